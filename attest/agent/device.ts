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
import { type Attestation, isKeyLost, openTpm, type Tpm, type TpmKey } from "../tss2/index.ts";
import { type EkCertificates, loadEk, readEkCertificates } from "./ek.ts";
import { es256JwkOf } from "./public-key.ts";
import { akTemplate, deviceKeyTemplate, type EkAlgorithm } from "./templates.ts";

export interface DeviceOptions {
  /** `device:/dev/tpmrm0`, `swtpm:path=…`. */
  readonly tcti: string;
  readonly ekAlgorithm: EkAlgorithm;
  /** TPM calls that may wait at once. Default 64. */
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
  /** Unloads the keys and ends the connection. */
  close(): Promise<void>;
}

interface Keys {
  readonly ak: TpmKey;
  readonly deviceKey: TpmKey;
}

/**
 * @throws `ATTEST_TSS_MISSING`, `ATTEST_TSS_FAILED`, `ATTEST_EK_CERTIFICATE_INVALID` where the TPM
 * holds no certificate, `ATTEST_EK_KEY_MISMATCH`
 */
export async function openDevice(options: DeviceOptions): Promise<Device> {
  const { tcti, ekAlgorithm, maxPendingCalls = 64 } = options;
  const tpm = await openTpm({ tcti, maxPendingCalls });
  try {
    const ekCertificates = await readEkCertificates(tpm, ekAlgorithm);
    const ek = await loadEk(tpm, ekAlgorithm, ekCertificates[0]);
    await tpm.flush(ek);
    const useEk = <T>(work: (ek: TpmKey) => Promise<T>): Promise<T> =>
      withEk(tpm, ekAlgorithm, ekCertificates[0], work);
    return createDevice(tpm, ekCertificates, ek.publicArea, useEk, await loadKeys(tpm));
  } catch (error) {
    await tpm.close();
    throw error;
  }
}

function createDevice(
  tpm: Tpm,
  ekCertificates: EkCertificates,
  ekPublic: Uint8Array,
  useEk: <T>(work: (ek: TpmKey) => Promise<T>) => Promise<T>,
  first: Keys,
): Device {
  const withKeys = keepKeys(tpm, first);
  return {
    ekCertificates,
    ekPublic,
    akPublic: first.ak.publicArea,
    deviceKeyPublic: first.deviceKey.publicArea,
    deviceKeyName: first.deviceKey.name,
    deviceKeyJwk: es256JwkOf(first.deviceKey.publicArea),
    activateCredential: (credentialBlob, encryptedSecret) =>
      withKeys(({ ak }) =>
        useEk((ek) => tpm.activateCredential(ek, ak, credentialBlob, encryptedSecret)),
      ),
    quote: (qualifyingData, pcrSelection) =>
      withKeys(({ ak }) => tpm.quote(ak, qualifyingData, pcrSelection)),
    certifyDeviceKey: (qualifyingData) =>
      withKeys(({ ak, deviceKey }) => tpm.certify(deviceKey, ak, qualifyingData)),
    pcrRead: (hash, pcrs) => tpm.pcrRead(hash, pcrs),
    async signEs256(message) {
      const digest = new Uint8Array(createHash("sha256").update(message).digest());
      return rawEs256(await withKeys(({ deviceKey }) => tpm.sign(deviceKey, digest)));
    },
    async close() {
      await withKeys(({ ak, deviceKey }) => flushAll(tpm, [ak, deviceKey])).catch(() => undefined);
      await tpm.close();
    },
  };
}

/**
 * Runs work with the loaded keys. Where a key is lost, all are loaded again on a new context and the
 * work is done once more: a handle that still answers may have been given to another key by then.
 */
function keepKeys(tpm: Tpm, first: Keys): <T>(work: (keys: Keys) => Promise<T>) => Promise<T> {
  let keys: Promise<Keys> = Promise.resolve(first);
  return async (work) => {
    const used = keys;
    try {
      return await work(await used);
    } catch (error) {
      if (!isKeyLost(error)) throw error;
      // Of several calls that fail at once, the first reloads and the others wait for it.
      if (keys === used) {
        const loading = reload(tpm);
        keys = loading;
        loading.catch(() => {
          // The lost keys make the next call come here again.
          if (keys === loading) keys = used;
        });
      }
      return await work(await keys);
    }
  };
}

async function reload(tpm: Tpm): Promise<Keys> {
  await tpm.reconnect();
  return loadKeys(tpm);
}

async function loadKeys(tpm: Tpm): Promise<Keys> {
  const ak = await tpm.createPrimary("endorsement", akTemplate());
  try {
    return { ak, deviceKey: await tpm.createPrimary("owner", deviceKeyTemplate()) };
  } catch (error) {
    await flushAll(tpm, [ak]);
    throw error;
  }
}

/** The EK is loaded for one use: a TPM without a resource manager has three slots. */
async function withEk<T>(
  tpm: Tpm,
  algorithm: EkAlgorithm,
  certificate: Uint8Array,
  work: (ek: TpmKey) => Promise<T>,
): Promise<T> {
  const ek = await loadEk(tpm, algorithm, certificate);
  try {
    return await work(ek);
  } finally {
    await flushAll(tpm, [ek]);
  }
}

/** Clean-up after a failure must not hide the failure. */
async function flushAll(tpm: Tpm, keys: readonly TpmKey[]): Promise<void> {
  for (const key of keys) await tpm.flush(key).catch(() => undefined);
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
