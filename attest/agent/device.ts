/**
 * A device that can be attested: its EK with certificates, an AK and a device key, all in its TPM.
 * AK and device key are primaries of fixed templates (templates.ts), so nothing is stored and the
 * same TPM gives the same keys. The AK lies in the endorsement hierarchy: elsewhere a TPM obfuscates
 * clock and firmware version in what it attests (TPM 2.0 Part 1 §36.7).
 */
import { createHash } from "node:crypto";
import { concatBytes, StileError } from "../../wire/index.ts";
import type { Es256PublicJwk } from "../result/attestation-result.ts";
import { type HashName, TPM_ALG_ECDSA, TPM_ALG_SHA256 } from "../structures/constants.ts";
import { parseTpmtSignature } from "../structures/signature.ts";
import { leftPadded } from "../structures/spki.ts";
import { type Attestation, openTpm, type Tpm, type TpmKey } from "../tss2/index.ts";
import { type EkCertificates, loadEk, readEkCertificates } from "./ek.ts";
import { createKeySlots, type KeySlots, type KeySources } from "./key-slots.ts";
import { es256JwkOf } from "./public-key.ts";
import { akTemplate, deviceKeyTemplate, type EkAlgorithm } from "./templates.ts";

export interface DeviceOptions {
  /** `device:/dev/tpmrm0`, `swtpm:path=…`. */
  readonly tcti: string;
  readonly ekAlgorithm: EkAlgorithm;
  /** Uses of the device that may run or wait at once; more get `ATTEST_TSS_BUSY`. Default 64. */
  readonly maxPendingCalls?: number;
}

/** Every method may throw `ATTEST_TSS_FAILED` and `ATTEST_TSS_BUSY`. */
export interface Device {
  /** As they lie in the TPM; nothing has been verified. */
  readonly ekCertificates: EkCertificates;
  /** TPM2B_PUBLIC. */
  readonly ekPublic: Uint8Array;
  /** TPM2B_PUBLIC. */
  readonly akPublic: Uint8Array;
  /** TPM2B_PUBLIC. */
  readonly deviceKeyPublic: Uint8Array;
  /** nameAlg || digest of the device key's public area. */
  readonly deviceKeyName: Uint8Array;
  readonly deviceKeyJwk: Es256PublicJwk;
  /**
   * @param credentialBlob TPM2B_ID_OBJECT; hostile
   * @param encryptedSecret TPM2B_ENCRYPTED_SECRET; hostile
   */
  activateCredential(credentialBlob: Uint8Array, encryptedSecret: Uint8Array): Promise<Uint8Array>;
  /** A quote by the AK. @param pcrSelection TPML_PCR_SELECTION */
  quote(qualifyingData: Uint8Array, pcrSelection: Uint8Array): Promise<Attestation>;
  /** TPM2_Certify of the device key by the AK. */
  certifyDeviceKey(qualifyingData: Uint8Array): Promise<Attestation>;
  /** Values of PCRs of one bank, in the given order. */
  pcrRead(hash: HashName, pcrs: readonly number[]): Promise<Uint8Array[]>;
  /** An ES256 signature (RFC 7518 §3.4: R || S, 64 bytes) by the device key. */
  signEs256(message: Uint8Array): Promise<Uint8Array>;
  /** Ends the connection; nothing stays loaded. */
  close(): Promise<void>;
}

type Role = "ek" | "ak" | "deviceKey";

/**
 * @throws `ATTEST_TSS_MISSING`, `ATTEST_TSS_FAILED`, `ATTEST_EK_CERTIFICATE_INVALID` where the TPM
 * holds no certificate, `ATTEST_EK_KEY_MISMATCH`
 */
export async function openDevice(options: DeviceOptions): Promise<Device> {
  const { tcti, ekAlgorithm, maxPendingCalls = 64 } = options;
  const tpm = await openTpm({ tcti, maxPendingCalls });
  try {
    const ekCertificates = await readEkCertificates(tpm, ekAlgorithm);
    const sources: KeySources<Role> = {
      ek: () => loadEk(tpm, ekAlgorithm, ekCertificates[0]),
      ak: () => tpm.createPrimary("endorsement", akTemplate()),
      deviceKey: () => tpm.createPrimary("owner", deviceKeyTemplate()),
    };
    const slots = createKeySlots(tpm, sources, maxPendingCalls);
    return createDevice(tpm, slots, ekCertificates, {
      ek: await slots.use(["ek"], ({ ek }) => Promise.resolve(ek)),
      ak: await slots.use(["ak"], ({ ak }) => Promise.resolve(ak)),
      deviceKey: await slots.use(["deviceKey"], ({ deviceKey }) => Promise.resolve(deviceKey)),
    });
  } catch (error) {
    await tpm.close();
    throw error;
  }
}

function createDevice(
  tpm: Tpm,
  slots: KeySlots<Role>,
  ekCertificates: EkCertificates,
  publicOf: Readonly<Record<Role, Pick<TpmKey, "publicArea" | "name">>>,
): Device {
  return {
    ekCertificates,
    ekPublic: publicOf.ek.publicArea,
    akPublic: publicOf.ak.publicArea,
    deviceKeyPublic: publicOf.deviceKey.publicArea,
    deviceKeyName: publicOf.deviceKey.name,
    deviceKeyJwk: es256JwkOf(publicOf.deviceKey.publicArea),
    activateCredential: (credentialBlob, encryptedSecret) =>
      slots.use(["ek", "ak"], ({ ek, ak }) =>
        tpm.activateCredential(ek, ak, credentialBlob, encryptedSecret),
      ),
    quote: (qualifyingData, pcrSelection) =>
      slots.use(["ak"], ({ ak }) => tpm.quote(ak, qualifyingData, pcrSelection)),
    certifyDeviceKey: (qualifyingData) =>
      slots.use(["ak", "deviceKey"], ({ ak, deviceKey }) =>
        tpm.certify(deviceKey, ak, qualifyingData),
      ),
    pcrRead: (hash, pcrs) => tpm.pcrRead(hash, pcrs),
    async signEs256(message) {
      const digest = new Uint8Array(createHash("sha256").update(message).digest());
      return rawEs256(
        await slots.use(["deviceKey"], ({ deviceKey }) => tpm.sign(deviceKey, digest)),
      );
    },
    close: () => tpm.close(),
  };
}

/** TPMT_SIGNATURE to R || S (RFC 7518 §3.4). */
function rawEs256(bytes: Uint8Array): Uint8Array {
  const signature = parseTpmtSignature(bytes);
  if (signature.sigAlg !== TPM_ALG_ECDSA || signature.hash.alg !== TPM_ALG_SHA256) {
    throw new StileError("ATTEST_ALGORITHM_NOT_ALLOWED", "the device key signs other than ES256");
  }
  const { signatureR, signatureS } = signature;
  return concatBytes([leftPadded(signatureR, 32), leftPadded(signatureS, 32)]);
}
