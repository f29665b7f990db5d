/**
 * The client of draft-amjad-cfrg-partially-blind-rsa-02, RSAPBSSA-SHA384-PSS-Deterministic: Blind (§4.2) and Finalize
 * (§4.4), with the hashes of WebCrypto and JavaScript big integers, so that a page can run it. The library that
 * blinds type 0x0002 verifies with WebCrypto under the derived key, and browsers refuse a key whose exponent is
 * longer than a few bytes. Here the encoded message that was blinded is kept: a signature is good where it gives
 * that back, which needs no PSS decoding.
 */
import { concatBytes } from "../../wire/index.ts";
import { bytesToInt, intToBytes, inverseMod, powerMod } from "./big-integers.ts";
import { exponentDerivation, exponentOf, messageWithMetadata } from "./derivation.ts";

export interface BlindedMessage {
  readonly blindedMessage: Uint8Array<ArrayBuffer>;
  /**
   * @param blindSignature hostile
   * @returns the signature, or undefined where it is none under this metadata
   */
  finalize(blindSignature: Uint8Array): Uint8Array<ArrayBuffer> | undefined;
}

export interface BlindOptions {
  /** Of a 2048-bit key. */
  readonly modulus: Uint8Array;
  readonly metadata: Uint8Array;
  readonly message: Uint8Array;
  readonly random: (length: number) => Uint8Array;
}

const SALT_BYTES = 48;
const HASH = "SHA-384";
const HASH_BYTES = 48;

export async function blindWithMetadata(options: BlindOptions): Promise<BlindedMessage> {
  const { message, metadata, modulus, random } = options;
  const n = bytesToInt(modulus);
  // 1. msg_prime   2. encoded_msg = EMSA-PSS-ENCODE(msg_prime, bit_len(n) - 1)   4. m = bytes_to_int(encoded_msg)
  const signed = messageWithMetadata(metadata, message);
  const m = bytesToInt(await encodePss(signed, modulus.length, random(SALT_BYTES)));
  // 5. c = is_coprime(m, n): else a factor of the modulus was found
  if (inverseMod(m, n) === undefined) throw new RangeError("modulus: expected two large primes");
  const { inverse, r } = randomUnit(n, modulus.length, random);
  // 10. pk_derived = DerivePublicKey(pk, info)
  const exponent = bytesToInt(await deriveExponent(modulus, metadata));
  // 11. x = RSAVP1(pk_derived, r)   12. z = m * x mod n
  const z = (m * powerMod(r, exponent, n)) % n;
  return {
    blindedMessage: intToBytes(z, modulus.length),
    finalize(blindSignature) {
      const blind = bytesToInt(blindSignature);
      if (blindSignature.length !== modulus.length || blind >= n) return undefined;
      // 3. s = z * inv mod n   7. RSASSA-PSS-VERIFY, of the one encoded message that is ours
      const s = (blind * inverse) % n;
      return powerMod(s, exponent, n) === m ? intToBytes(s, modulus.length) : undefined;
    },
  };
}

/** 7. r = random_integer_uniform(1, n)   8. inv = inverse_mod(r, n) */
function randomUnit(
  n: bigint,
  length: number,
  random: (length: number) => Uint8Array,
): { readonly r: bigint; readonly inverse: bigint } {
  for (;;) {
    const r = bytesToInt(random(length));
    const inverse = r < n ? inverseMod(r, n) : undefined;
    if (inverse !== undefined) return { r, inverse };
  }
}

async function deriveExponent(modulus: Uint8Array, metadata: Uint8Array): Promise<Uint8Array> {
  const { info, input, length, salt } = exponentDerivation(modulus, metadata);
  const { subtle } = globalThis.crypto;
  const key = await subtle.importKey("raw", input, "HKDF", false, ["deriveBits"]);
  const hkdf = { name: "HKDF", hash: HASH, salt, info };
  return exponentOf(new Uint8Array(await subtle.deriveBits(hkdf, key, 8 * length)));
}

/** EMSA-PSS-ENCODE, RFC 8017 §9.1.1, for an encoded message that is one bit shorter than the modulus. */
async function encodePss(
  message: Uint8Array<ArrayBuffer>,
  length: number,
  salt: Uint8Array,
): Promise<Uint8Array> {
  // 5. M' = (0x)00 00 00 00 00 00 00 00 || mHash || salt   6. H = Hash(M')
  const mHash = await sha384(message);
  const h = await sha384(concatBytes([new Uint8Array(8), mHash, salt]));
  // 7. PS   8. DB = PS || 0x01 || salt
  const padding = new Uint8Array(length - salt.length - HASH_BYTES - 2);
  const db = concatBytes([padding, Uint8Array.of(1), salt]);
  // 9. dbMask = MGF(H, emLen - hLen - 1)   10. maskedDB = DB xor dbMask
  const mask = await mgf1(h, db.length);
  const masked = db.map((byte, i) => byte ^ (mask[i] ?? 0));
  // 11. set the leftmost bit to zero   12. EM = maskedDB || H || 0xbc
  masked[0] = (masked[0] ?? 0) & 0x7f;
  return concatBytes([masked, h, Uint8Array.of(0xbc)]);
}

/** RFC 8017 §B.2.1. */
async function mgf1(seed: Uint8Array, length: number): Promise<Uint8Array> {
  const blocks: Uint8Array[] = [];
  for (let i = 0; i * HASH_BYTES < length; i += 1) {
    blocks.push(await sha384(concatBytes([seed, Uint8Array.of(0, 0, 0, i)])));
  }
  return concatBytes(blocks).subarray(0, length);
}

async function sha384(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  return new Uint8Array(await globalThis.crypto.subtle.digest(HASH, bytes));
}
