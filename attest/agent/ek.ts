/**
 * The EK of a device and its certificates as TCG EK Credential Profile v2.5 §2.2.1 lays them out in
 * NV. What is read here is passed on, not judged: the attester verifies it.
 */
import { type KeyObject, X509Certificate } from "node:crypto";
import { concatBytes, StileError, Writer } from "../../wire/index.ts";
import type { Tpm, TpmKey } from "../tss2/index.ts";
import { publicKeyOf } from "./public-key.ts";
import { type EkAlgorithm, ekTemplate, isDefaultEk } from "./templates.ts";

/** §2.2.1.4: NV indices of the low range. */
export const EK_NV_INDICES = {
  rsa: { certificate: 0x01c0_0002, nonce: 0x01c0_0003, template: 0x01c0_0004 },
  ecc: { certificate: 0x01c0_000a, nonce: 0x01c0_000b, template: 0x01c0_000c },
} as const;
/** §2.2.1.5.2: the first index of the EK certificate chain. */
export const EK_CHAIN_FIRST_INDEX = 0x01c0_0100;
const EK_CHAIN_LAST_INDEX = 0x01c0_01ff;
/** TCG Provisioning Guidance §7.8: where EKs are made persistent. */
const EK_PERSISTENT_FIRST = 0x8101_0000;
const EK_PERSISTENT_LAST = 0x8101_ffff;

const DER_SEQUENCE = 0x30;

/** Certificates of one EK, DER each: the EK certificate, then what may chain it to a root. */
export type EkCertificates = readonly [ek: Uint8Array, ...intermediates: Uint8Array[]];

/** @throws `ATTEST_EK_CERTIFICATE_INVALID` where the TPM holds none, `ATTEST_TSS_FAILED` */
export async function readEkCertificates(
  tpm: Tpm,
  algorithm: EkAlgorithm,
): Promise<EkCertificates> {
  const stored = await tpm.nvRead(EK_NV_INDICES[algorithm].certificate);
  const [ek] = splitCertificates(stored ?? new Uint8Array());
  if (ek === undefined) {
    const message = `the TPM holds no EK certificate for ${algorithm}`;
    throw new StileError("ATTEST_EK_CERTIFICATE_INVALID", message);
  }
  const chain: Uint8Array[] = [];
  for (const index of await tpm.handles(EK_CHAIN_FIRST_INDEX)) {
    if (index > EK_CHAIN_LAST_INDEX) break;
    const part = await tpm.nvRead(index);
    if (part !== undefined) chain.push(part);
  }
  // A chain may run on from one index into the next.
  return [ek, ...splitCertificates(concatBytes(chain))];
}

/**
 * Takes apart certificates that follow each other, and drops the 0x00 or 0xff bytes that fill up an
 * NV index: the one oddity that checklists of EK certificates name.
 */
export function splitCertificates(bytes: Uint8Array): Uint8Array[] {
  const certificates: Uint8Array[] = [];
  let rest = bytes;
  while (rest[0] === DER_SEQUENCE) {
    const length = derLength(rest);
    if (length === undefined || length > rest.length) break;
    certificates.push(new Uint8Array(rest.subarray(0, length)));
    rest = rest.subarray(length);
  }
  return certificates;
}

/** Bytes of the DER element at the start, tag and length included (X.690 §8.1.3, up to 64 KiB). */
function derLength(der: Uint8Array): number | undefined {
  const [, first = 0, second = 0, third = 0] = der;
  if (first < 0x80) return 2 + first;
  if (first === 0x81) return 3 + second;
  if (first === 0x82) return 4 + second * 256 + third;
  return undefined;
}

/**
 * The EK that `certificate` certifies: a persistent one, or else the primary of the template that
 * the manufacturer left in NV or of the default template. A transient one must be flushed.
 * @throws `ATTEST_EK_KEY_MISMATCH` where the TPM makes another key, `ATTEST_TSS_FAILED`
 */
export async function loadEk(
  tpm: Tpm,
  algorithm: EkAlgorithm,
  certificate: Uint8Array,
): Promise<TpmKey> {
  const certified = new X509Certificate(certificate).publicKey;
  for (const handle of await tpm.handles(EK_PERSISTENT_FIRST)) {
    if (handle > EK_PERSISTENT_LAST) break;
    const key = await tpm.loadHandle(handle);
    if (key === undefined) continue;
    if (isDefaultEk(key.publicArea, algorithm) && holds(key, certified)) return key;
    await tpm.flush(key);
  }
  const key = await tpm.createPrimary("endorsement", await readTemplate(tpm, algorithm));
  if (holds(key, certified)) return key;
  await tpm.flush(key);
  const message = "the EK certificate in NV certifies another key than the TPM's EK";
  throw new StileError("ATTEST_EK_KEY_MISMATCH", message);
}

/** §2.2.1.4: a template and a nonce in NV take the place of the default ones. */
async function readTemplate(tpm: Tpm, algorithm: EkAlgorithm): Promise<Uint8Array> {
  const template = await tpm.nvRead(EK_NV_INDICES[algorithm].template);
  if (template !== undefined) {
    return new Writer().vec16(template).finish();
  }
  return ekTemplate(algorithm, await tpm.nvRead(EK_NV_INDICES[algorithm].nonce));
}

function holds(key: TpmKey, certified: KeyObject): boolean {
  return publicKeyOf(key.publicArea).equals(certified);
}
