/**
 * Greased challenges (RFC 9577 §2.1.3, §4.1): of token types that are reserved to mean nothing, with a random
 * body, so that clients keep passing over types they do not know.
 */
import { Writer } from "../../wire/index.ts";
import type { PrivateTokenChallenge } from "./private-token.ts";

/** RFC 9577 §6.2.1. */
export const GREASED_TOKEN_TYPES: readonly number[] = [
  0x0000, 0x02aa, 0x1132, 0x2e96, 0x3cd3, 0x4473, 0x5a63, 0x6d32, 0x7f3f, 0x8d07, 0x916b, 0xa6a4,
  0xbeab, 0xc3f3, 0xda42, 0xe944, 0xf057,
];

const MAX_BODY_BYTES = 96;
const MAX_KEY_BYTES = 64;

/**
 * The challenges in their order, with a greased one in between, before or after.
 * @param random cryptographically secure or not: nothing is secret here
 */
export function withGrease(
  challenges: readonly PrivateTokenChallenge[],
  random: (length: number) => Uint8Array,
): readonly PrivateTokenChallenge[] {
  const [type = 0, body = 0, key = 0, at = 0] = random(4);
  const tokenType = GREASED_TOKEN_TYPES[type % GREASED_TOKEN_TYPES.length] ?? 0;
  const greased: PrivateTokenChallenge = {
    challenge: new Writer()
      .u16(tokenType)
      .bytes(random(body % MAX_BODY_BYTES))
      .finish(),
    tokenKey: random(key % MAX_KEY_BYTES),
  };
  const index = at % (challenges.length + 1);
  return [...challenges.slice(0, index), greased, ...challenges.slice(index)];
}
