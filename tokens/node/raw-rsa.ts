/**
 * BlindSign of RFC 9474 §4.3 on OpenSSL: the unpadded private-key operation is RSASP1, with CRT and
 * base blinding, in constant time, a thousand times faster than big integers in JavaScript, whose
 * running time would tell the key to whoever picks the input. Synchronous: run it off the event loop.
 */
import { constants, type KeyObject, privateDecrypt, publicEncrypt } from "node:crypto";
import { constantTimeEqual, StileError } from "../../wire/index.ts";

const padding = constants.RSA_NO_PADDING;

/**
 * @param privateKey an `rsaEncryption` key; for type 0x0002 of 2048 bits
 * @param blindedMessage hostile; as long as the modulus, for type 0x0002 256 bytes
 * @returns as many bytes, checked against the public key
 * @throws `TOKEN_REQUEST_INVALID` for another length, zero, or a number not below the modulus
 * @throws `TOKEN_SIGNATURE_FAULT` when the check fails: the result is withheld
 */
export function rawRsaSign(
  privateKey: KeyObject,
  blindedMessage: Uint8Array,
): Uint8Array<ArrayBuffer> {
  // OpenSSL also takes shorter input, so 255 bytes would be a second spelling of one number.
  if (blindedMessage.length !== modulusBytes(privateKey)) throw invalid("expected modulus length");
  if (blindedMessage.every((byte) => byte === 0)) throw invalid("expected a unit of the ring");
  // 1. m = bytes_to_int(blinded_msg)   2. s = RSASP1(sk, m)
  const signature = rsasp1(privateKey, blindedMessage);
  // 3. m' = RSAVP1(pk, s)   4. If m != m', raise "signing failure"
  // One faulty CRT signature factors the modulus (Boneh, DeMillo, Lipton): it must not get out.
  const check = publicEncrypt({ key: privateKey, padding }, signature);
  if (!constantTimeEqual(check, blindedMessage)) {
    throw new StileError("TOKEN_SIGNATURE_FAULT", "the blind signature fails its check");
  }
  return signature;
}

/**
 * The same for several messages end to end; all or nothing.
 * @throws as {@link rawRsaSign}
 */
export function rawRsaSignAll(
  privateKey: KeyObject,
  blindedMessages: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const length = modulusBytes(privateKey);
  if (blindedMessages.length === 0 || blindedMessages.length % length !== 0) {
    throw invalid("expected modulus length");
  }
  const signatures = new Uint8Array(blindedMessages.length);
  for (let at = 0; at < signatures.length; at += length) {
    signatures.set(rawRsaSign(privateKey, blindedMessages.subarray(at, at + length)), at);
  }
  return signatures;
}

function modulusBytes(key: KeyObject): number {
  const bits = key.asymmetricKeyDetails?.modulusLength;
  if (key.asymmetricKeyType !== "rsa" || bits === undefined) {
    throw new TypeError("expected an rsaEncryption key");
  }
  return Math.ceil(bits / 8);
}

function rsasp1(privateKey: KeyObject, message: Uint8Array): Uint8Array<ArrayBuffer> {
  try {
    return Uint8Array.from(privateDecrypt({ key: privateKey, padding }, message));
  } catch (error) {
    if (isTooLarge(error)) throw invalid("expected a number below the modulus");
    throw error;
  }
}

function isTooLarge(error: unknown): boolean {
  return (
    error instanceof Error &&
    "code" in error &&
    error.code === "ERR_OSSL_RSA_DATA_TOO_LARGE_FOR_MODULUS"
  );
}

function invalid(message: string): StileError {
  return new StileError("TOKEN_REQUEST_INVALID", `blinded_msg: ${message}`);
}
