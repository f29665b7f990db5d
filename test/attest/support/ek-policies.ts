/**
 * The policies of the TCG EK Credential Profile Annex B.6, computed from their definitions with TPM 2.0
 * Part 3's policy arithmetic: what the templates state is compared with this and not taken on trust.
 */
import { createHash } from "node:crypto";
import { concatBytes, Writer } from "../../../wire/index.ts";
import type { HashRow } from "../../../attest/index.ts";

const TPM_CC_PolicySecret = 0x151;
const TPM_CC_PolicyOR = 0x171;
const TPM_CC_PolicyAuthorizeNV = 0x192;
const TPM_RH_ENDORSEMENT = 0x4000_000b;
/** TPMA_NV: POLICYWRITE, WRITEALL, PPREAD, OWNERREAD, AUTHREAD, POLICYREAD, NO_DA, WRITTEN. */
const POLICY_INDEX_ATTRIBUTES = 0x220f_1008;
const POLICY_INDEX = { sha1: 0, sha256: 0x01c0_7f01, sha384: 0x01c0_7f02, sha512: 0x01c0_7f03 };

export interface EkPolicies {
  readonly a: Uint8Array;
  readonly b: Uint8Array;
}

export function ekPolicies(hash: HashRow): EkPolicies {
  const digest = (...parts: readonly Uint8Array[]): Uint8Array =>
    new Uint8Array(createHash(hash.name).update(concatBytes(parts)).digest());
  const u32 = (value: number): Uint8Array => new Writer().u32(value).finish();
  const start = new Uint8Array(hash.digestBytes);
  // PolicyUpdate of an entity: H(H(old || command || Name) || policyRef), policyRef empty.
  const a = digest(digest(start, u32(TPM_CC_PolicySecret), u32(TPM_RH_ENDORSEMENT)));
  const nvPublic = new Writer()
    .u32(POLICY_INDEX[hash.name])
    .u16(hash.alg)
    .u32(POLICY_INDEX_ATTRIBUTES)
    .vec16(a)
    .u16(2 + hash.digestBytes)
    .finish();
  const nvName = new Writer().u16(hash.alg).bytes(digest(nvPublic)).finish();
  const c = digest(start, u32(TPM_CC_PolicyAuthorizeNV), nvName);
  return { a, b: digest(start, u32(TPM_CC_PolicyOR), a, c) };
}
