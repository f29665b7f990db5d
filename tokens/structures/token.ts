/**
 * Token and AuthenticatorInput, RFC 9577 §2.2 and RFC 9578 §5.3, §6.3. A token that parses has one
 * spelling only: trailing bytes are refused, else one token could be told apart from itself.
 * Verifying it is the redeemer's work.
 */
import { Reader, StileError, Writer } from "../../wire/index.ts";
import {
  CHALLENGE_DIGEST_BYTES,
  NONCE_BYTES,
  TOKEN_KEY_ID_BYTES,
  tokenTypeEntry,
} from "./token-types.ts";

export interface AuthenticatorInput {
  readonly tokenType: number;
  /** 32 bytes. */
  readonly nonce: Uint8Array;
  /** 32 bytes: SHA-256 of the TokenChallenge. */
  readonly challengeDigest: Uint8Array;
  /** 32 bytes: SHA-256 of the issuer public key as the directory spells it. */
  readonly tokenKeyId: Uint8Array;
}

/** A parsed token. **Nothing has been verified**: every field is the sender's claim. */
export interface Token extends AuthenticatorInput {
  /** Nk bytes of its type. */
  readonly authenticator: Uint8Array;
  /** The received bytes that the authenticator is over. */
  readonly authenticatorInput: Uint8Array;
}

/** @throws `WIRE_*`; `TOKEN_TYPE_UNSUPPORTED` where the length of the authenticator is not known */
export function parseToken(bytes: Uint8Array): Token {
  const reader = new Reader(bytes, "Token");
  const input = readAuthenticatorInput(reader);
  const authenticatorInput = reader.since(0);
  const entry = tokenTypeEntry(input.tokenType);
  if (entry === undefined) throw unsupportedType();
  // uint8_t authenticator[Nk];
  const authenticator = reader.bytes("authenticator", entry.Nk);
  reader.end();
  return { ...input, authenticator, authenticatorInput };
}

/** @throws RangeError for a field of another length than its type has */
export function encodeToken(
  token: AuthenticatorInput & Pick<Token, "authenticator">,
): Uint8Array<ArrayBuffer> {
  if (token.authenticator.length !== tokenTypeEntry(token.tokenType)?.Nk) {
    throw new RangeError("authenticator: expected Nk bytes of a known token type");
  }
  return new Writer().bytes(encodeAuthenticatorInput(token)).bytes(token.authenticator).finish();
}

/** @throws `WIRE_*` */
export function parseAuthenticatorInput(bytes: Uint8Array): AuthenticatorInput {
  const reader = new Reader(bytes, "AuthenticatorInput");
  const input = readAuthenticatorInput(reader);
  reader.end();
  return input;
}

/** @throws RangeError for a field that is not 32 bytes */
export function encodeAuthenticatorInput(input: AuthenticatorInput): Uint8Array<ArrayBuffer> {
  return new Writer()
    .u16(input.tokenType)
    .bytes(exactly("nonce", input.nonce, NONCE_BYTES))
    .bytes(exactly("challenge_digest", input.challengeDigest, CHALLENGE_DIGEST_BYTES))
    .bytes(exactly("token_key_id", input.tokenKeyId, TOKEN_KEY_ID_BYTES))
    .finish();
}

function readAuthenticatorInput(reader: Reader): AuthenticatorInput {
  return {
    // uint16_t token_type;
    tokenType: reader.u16("token_type"),
    // uint8_t nonce[32];
    nonce: reader.bytes("nonce", NONCE_BYTES),
    // uint8_t challenge_digest[32];
    challengeDigest: reader.bytes("challenge_digest", CHALLENGE_DIGEST_BYTES),
    // uint8_t token_key_id[Nid];
    tokenKeyId: reader.bytes("token_key_id", TOKEN_KEY_ID_BYTES),
  };
}

function exactly(field: string, value: Uint8Array, length: number): Uint8Array {
  if (value.length !== length) throw new RangeError(`${field}: expected ${length} bytes`);
  return value;
}

function unsupportedType(): StileError {
  return new StileError("TOKEN_TYPE_UNSUPPORTED", "Token.token_type: expected a known token type");
}
