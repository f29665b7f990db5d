/** KDFa and KDFe: TPM 2.0 Library Part 1 §11.4.10.2 and §11.4.10.3. Counters are 32 bits, labels end in 0. */
import { concatBytes, encodeUtf8 } from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";
import type { HashRow } from "../structures/constants.ts";

/** HMAC-based, counter mode (SP 800-108). @param bits of output; a partial first byte is masked */
export function kdfa(
  crypto: AttestCrypto,
  hash: HashRow,
  key: Uint8Array,
  label: string,
  contextU: Uint8Array,
  contextV: Uint8Array,
  bits: number,
): Uint8Array {
  const fixed = concatBytes([labelBytes(label), contextU, contextV, uint32(bits)]);
  return derive(hash, bits, (counter) =>
    crypto.hmac(hash.name, key, concatBytes([counter, fixed])),
  );
}

/** Hash-based, for one-pass ECDH (SP 800-56A). @param z x coordinate of the shared point */
export function kdfe(
  crypto: AttestCrypto,
  hash: HashRow,
  z: Uint8Array,
  use: string,
  partyUInfo: Uint8Array,
  partyVInfo: Uint8Array,
  bits: number,
): Uint8Array {
  const fixed = concatBytes([z, labelBytes(use), partyUInfo, partyVInfo]);
  return derive(hash, bits, (counter) => crypto.hash(hash.name, concatBytes([counter, fixed])));
}

function derive(
  hash: HashRow,
  bits: number,
  block: (counter: Uint8Array) => Uint8Array,
): Uint8Array {
  const bytes = Math.ceil(bits / 8);
  const blocks = Array.from({ length: Math.ceil(bytes / hash.digestBytes) }, (_, i) =>
    block(uint32(i + 1)),
  );
  const out = concatBytes(blocks).subarray(0, bytes);
  if (bits % 8 !== 0) out[0] = (out[0] ?? 0) & ((1 << (bits % 8)) - 1);
  return out;
}

function labelBytes(label: string): Uint8Array {
  return concatBytes([encodeUtf8(label), Uint8Array.of(0)]);
}

function uint32(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff);
}
