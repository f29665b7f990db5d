/** expand_message_xmd, RFC 9380 §5.3.1, for the hashes of RFC 9497 §4. */
import { createHash } from "node:crypto";
import { Writer } from "../../wire/index.ts";
import type { VoprfCiphersuite } from "./group.ts";

/** s_in_bytes: the input block size of SHA-384 and of SHA-512. */
const BLOCK_BYTES = 128;

/**
 * @param dst at most 255 bytes; all of ours are constants of the suites
 * @param length bytes wanted, at most 255 digests
 * @throws RangeError beyond these bounds
 */
export function expandMessageXmd(
  suite: Pick<VoprfCiphersuite, "hash" | "Nh">,
  message: Uint8Array,
  dst: Uint8Array,
  length: number,
): Uint8Array<ArrayBuffer> {
  const count = Math.ceil(length / suite.Nh);
  if (dst.length > 255 || count > 255) throw new RangeError("expand_message_xmd: out of bounds");
  // DST_prime = DST || I2OSP(len(DST), 1)
  const dstPrime = new Writer().bytes(dst).u8(dst.length).finish();
  // msg_prime = Z_pad || msg || l_i_b_str || I2OSP(0, 1) || DST_prime
  const b0 = createHash(suite.hash)
    .update(new Uint8Array(BLOCK_BYTES))
    .update(message)
    .update(Uint8Array.of(length >> 8, length & 0xff, 0))
    .update(dstPrime)
    .digest();
  const uniform = new Uint8Array(count * suite.Nh);
  let previous = new Uint8Array(suite.Nh);
  for (let i = 1; i <= count; i += 1) {
    // b_i = H(strxor(b_0, b_(i - 1)) || I2OSP(i, 1) || DST_prime), with b_1 = H(b_0 || ...)
    const mixed = previous.map((byte, at) => byte ^ (b0[at] ?? 0));
    previous = Uint8Array.from(
      createHash(suite.hash).update(mixed).update(Uint8Array.of(i)).update(dstPrime).digest(),
    );
    uniform.set(previous, (i - 1) * suite.Nh);
  }
  return uniform.slice(0, length);
}
