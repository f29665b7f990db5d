/**
 * Deviations that real manufacturers' certificates have, one named row each (checklist A1, A7, A8).
 * A row is a known fault of known certificates, never a general leniency: strict reading comes first,
 * a row helps only where the verifier's options name it, and the result says which were needed.
 */
import { certificateInvalid } from "./errors.ts";

/** Each row: what deviates, from which rule, and who has it. */
export const EK_CERTIFICATE_ODDITIES = {
  /** A1. Field: ST, Infineon; nsacyber/HIRS issue 23. The NV index is larger than the certificate. */
  "nv-index-padding": "0x00 or 0xff bytes, all alike, follow the EK certificate",
  /**
   * A1. Field: google/go-attestation pull request 38. The header TCG_PCCLIENT_STORED_CERT of the TPM 1.2
   * PC Client specification §7.3.2, left in place on TPM 2.0.
   */
  "nv-index-header": "the five bytes 10 01 00 and a 16-bit length precede the EK certificate",
  /** X.690 §11.6. Field: every Nuvoton issuer up to CA 2111; keylime/keylime issue 944. */
  "set-of-order": "the attributes of a relative distinguished name are not in DER order",
  /** X.690 §8.3.2. Field: ST's intermediates; google/go-tspi issue 30. */
  "padded-serial-number": "the serial number has needless leading zero bytes",
  /** RFC 4055 §4.1 in place of RFC 5280 §4.1.2.7. Field: TPM 1.2 era chips of several vendors. */
  "rsaes-oaep-key": "the key's algorithm is id-RSAES-OAEP in place of rsaEncryption",
  /** EK profile §3.2.9, RFC 5280 §4.2.1.6. */
  "san-not-critical": "subjectAltName is not critical though the subject is empty",
  /** EK profile §3.2.13 (A6): certificates older than version 2.0 of the profile. */
  "no-ext-key-usage":
    "extKeyUsage is absent; where it is present it must name tcg-kp-EKCertificate",
  /** EK profile §3.1.2. Field: swtpm_localca writes IBM's PCI number, id:00001014. */
  "unregistered-manufacturer": "tpmManufacturer is not in the TCG Vendor ID Registry",
} as const;

export type EkCertificateOddity = keyof typeof EK_CERTIFICATE_ODDITIES;

/** The rows that one certificate may need, and those that it did. */
export interface OddityRows {
  /** @throws `ATTEST_EK_CERTIFICATE_INVALID` unless the row is accepted */
  readonly meet: (oddity: EkCertificateOddity) => void;
  readonly met: ReadonlySet<EkCertificateOddity>;
}

export function createOddityRows(accepted: readonly EkCertificateOddity[]): OddityRows {
  const met = new Set<EkCertificateOddity>();
  return {
    meet: (oddity) => {
      if (!accepted.includes(oddity)) throw certificateInvalid(`oddity ${oddity}`);
      met.add(oddity);
    },
    met,
  };
}
