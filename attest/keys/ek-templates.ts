/**
 * The default EK templates of the TCG EK Credential Profile (v2.5 Annex B.3: L-1 and L-2; B.4: H-1 to H-7
 * without H-5, whose SM2 no engine here has), checklist A11. A key that deviates in one field is another
 * key than the manufacturer certified, or one with other rights, so every field is compared.
 */
import { constantTimeEqual, decodeHex, StileError } from "../../wire/index.ts";
import {
  type CurveName,
  type HashName,
  TPM_ALG_RSA,
  TPMA_OBJECT_ADMINWITHPOLICY,
  TPMA_OBJECT_DECRYPT,
  TPMA_OBJECT_FIXEDPARENT,
  TPMA_OBJECT_FIXEDTPM,
  TPMA_OBJECT_RESTRICTED,
  TPMA_OBJECT_SENSITIVEDATAORIGIN,
  TPMA_OBJECT_USERWITHAUTH,
} from "../structures/constants.ts";
import { checkUnique, type TpmtPublic } from "../structures/public.ts";
import { hasDefaultExponent } from "./exponent.ts";

export type EkTemplateId = "L-1" | "L-2" | "H-1" | "H-2" | "H-3" | "H-4" | "H-6" | "H-7";

/** B.3: userWithAuth is clear, so that only the policy authorises decryption. */
const LOW_ATTRIBUTES =
  TPMA_OBJECT_FIXEDTPM |
  TPMA_OBJECT_FIXEDPARENT |
  TPMA_OBJECT_SENSITIVEDATAORIGIN |
  TPMA_OBJECT_ADMINWITHPOLICY |
  TPMA_OBJECT_RESTRICTED |
  TPMA_OBJECT_DECRYPT;
const HIGH_ATTRIBUTES = LOW_ATTRIBUTES | TPMA_OBJECT_USERWITHAUTH;

/** B.6.2: PolicySecret(TPM_RH_ENDORSEMENT). The low templates use it with SHA-256 alone. */
const POLICY_A_SHA256 = decodeHex(
  "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa",
);
/** B.6.5: PolicyOR of policy A and PolicyAuthorizeNV of the index 0x01c07f01 and following. */
const POLICY_B: Readonly<Partial<Record<HashName, Uint8Array>>> = {
  sha256: decodeHex("ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0"),
  sha384: decodeHex(
    "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4" +
      "cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12",
  ),
  sha512: decodeHex(
    "b8221ca69e8550a4914de3faa6a18c072cc01208073a928d5d66d59ef79e49a4" +
      "29c41a6b269571d57edb25fbdb1838425608b413cd616a5f6db5b6071af99bea",
  ),
};

export interface EkTemplate {
  readonly id: EkTemplateId;
  /** RSA by its size in bits, ECC by its curve. */
  readonly key: number | CurveName;
  readonly nameAlg: HashName;
  /** Of AES in CFB mode. */
  readonly symmetricBits: 128 | 256;
}

export const EK_TEMPLATES: readonly EkTemplate[] = [
  { id: "L-1", key: 2048, nameAlg: "sha256", symmetricBits: 128 },
  { id: "L-2", key: "P-256", nameAlg: "sha256", symmetricBits: 128 },
  { id: "H-1", key: 2048, nameAlg: "sha256", symmetricBits: 128 },
  { id: "H-2", key: "P-256", nameAlg: "sha256", symmetricBits: 128 },
  { id: "H-3", key: "P-384", nameAlg: "sha384", symmetricBits: 256 },
  { id: "H-4", key: "P-521", nameAlg: "sha512", symmetricBits: 256 },
  { id: "H-6", key: 3072, nameAlg: "sha384", symmetricBits: 256 },
  { id: "H-7", key: 4096, nameAlg: "sha384", symmetricBits: 256 },
];

/**
 * The EK public area is one of the default templates (A11).
 * @returns which
 * @throws `ATTEST_EK_TEMPLATE_INVALID`, `ATTEST_STRUCTURE_INVALID`
 */
export function checkEkPublic(area: TpmtPublic): EkTemplateId {
  checkUnique(area);
  const template = EK_TEMPLATES.find((row) => isOf(area, row));
  if (template === undefined) {
    const message = "EK public area: expected a default template of the TCG";
    throw new StileError("ATTEST_EK_TEMPLATE_INVALID", message);
  }
  return template.id;
}

function isOf(area: TpmtPublic, template: EkTemplate): boolean {
  const isLow = template.id.startsWith("L");
  const authPolicy = isLow ? POLICY_A_SHA256 : POLICY_B[template.nameAlg];
  const isKey =
    area.type === TPM_ALG_RSA
      ? area.keyBits === template.key && hasDefaultExponent(area.exponent)
      : area.curve.name === template.key;
  return (
    isKey &&
    authPolicy !== undefined &&
    area.nameAlg.name === template.nameAlg &&
    area.objectAttributes === (isLow ? LOW_ATTRIBUTES : HIGH_ATTRIBUTES) &&
    constantTimeEqual(area.authPolicy, authPolicy) &&
    area.symmetric?.keyBits === template.symmetricBits &&
    area.scheme === undefined
  );
}
