/**
 * What a manufacturer does to a TPM before it is sold: EK certificates in NV (TCG EK Credential
 * Profile v2.5 §2.2.1), the issuing certificate beside them, and the RSA EK made persistent.
 */
import { X509Certificate } from "node:crypto";
import {
  EK_CHAIN_FIRST_INDEX,
  EK_NV_INDICES,
  type EkAlgorithm,
  ekTemplate,
  publicKeyOf,
} from "../attest/agent/index.ts";
import { openTpm, type Tpm, TPMA_NV, type TpmKey } from "../attest/tss2/index.ts";
import type { ManufacturerCa } from "./manufacturer-ca.ts";

/** TCG Provisioning Guidance §7.8. */
const RSA_EK_PERSISTENT_HANDLE = 0x8101_0001;

/** §2.2.1.5.1: written by the platform once, readable by everybody. */
const EK_CERTIFICATE_ATTRIBUTES =
  TPMA_NV.PLATFORMCREATE |
  TPMA_NV.PPWRITE |
  TPMA_NV.WRITEDEFINE |
  TPMA_NV.PPREAD |
  TPMA_NV.OWNERREAD |
  TPMA_NV.AUTHREAD |
  TPMA_NV.NO_DA;

/** Leaves a TPM alone whose certificates are of this manufacturer already. */
export async function provision(
  tcti: string,
  ca: ManufacturerCa,
  algorithms: readonly EkAlgorithm[],
): Promise<void> {
  if (algorithms.length === 0) return;
  const tpm = await openTpm({ tcti, maxPendingCalls: 1 });
  try {
    for (const algorithm of algorithms) await provisionEk(tpm, ca, algorithm);
    await tpm.nvStore(EK_CHAIN_FIRST_INDEX, ca.intermediate, EK_CERTIFICATE_ATTRIBUTES);
  } finally {
    await tpm.close();
  }
}

async function provisionEk(tpm: Tpm, ca: ManufacturerCa, algorithm: EkAlgorithm): Promise<void> {
  const index = EK_NV_INDICES[algorithm].certificate;
  const stored = await tpm.nvRead(index);
  if (stored !== undefined && isIssuedBy(stored, ca)) return;
  const ek = await tpm.createPrimary("endorsement", ekTemplate(algorithm));
  try {
    const spki = publicKeyOf(ek.publicArea).export({ type: "spki", format: "der" });
    const certificate = await ca.issueEkCertificate(new Uint8Array(spki), algorithm);
    await tpm.nvStore(index, certificate, EK_CERTIFICATE_ATTRIBUTES);
    if (algorithm === "rsa") await makePersistent(tpm, ek);
  } finally {
    await tpm.flush(ek);
  }
}

/** An RSA primary takes a hardware TPM many seconds: manufacturers leave it in place. */
async function makePersistent(tpm: Tpm, ek: TpmKey): Promise<void> {
  const there = await tpm.loadHandle(RSA_EK_PERSISTENT_HANDLE);
  if (there === undefined) await tpm.makePersistent(ek, RSA_EK_PERSISTENT_HANDLE);
}

function isIssuedBy(certificate: Uint8Array, ca: ManufacturerCa): boolean {
  const issuer = new X509Certificate(ca.intermediate);
  return new X509Certificate(certificate).verify(issuer.publicKey);
}
