/**
 * TokenChallenge, RFC 9577 §2.1.1. The digest that binds a token to its challenge is taken over the
 * bytes as received, so a parsed challenge keeps them.
 * A reserved (greased) type may carry any structure at all: look at the type first
 * ({@link peekTokenType}) and parse only what is known.
 */
import { Reader, Writer } from "../../wire/index.ts";
import {
  encodeServerName,
  isOriginInfo,
  isServerName,
  readServerNameField,
} from "./server-name.ts";

/** RFC 9577 §2.1.1: a redemption context is absent or 32 bytes. */
export const REDEMPTION_CONTEXT_BYTES = 32;

export interface TokenChallengeFields {
  readonly tokenType: number;
  /** `host[:port]`, ASCII. */
  readonly issuerName: string;
  /** 0 or 32 bytes. */
  readonly redemptionContext: Uint8Array;
  /** Origin names joined by commas, or empty for a token that any origin may take. */
  readonly originInfo: string;
}

/** A parsed challenge. Nothing says yet who made it. */
export interface TokenChallenge extends TokenChallengeFields {
  /** The received bytes: the input of the challenge digest. */
  readonly raw: Uint8Array;
}

/** @throws `WIRE_*` */
export function parseTokenChallenge(bytes: Uint8Array): TokenChallenge {
  const reader = new Reader(bytes, "TokenChallenge");
  // uint16_t token_type;
  const tokenType = reader.u16("token_type");
  // opaque issuer_name<1..2^16-1>;
  const issuerName = readServerNameField(reader, "issuer_name", 1, isServerName);
  // opaque redemption_context<0..32>;
  const redemptionContext = reader.vec8("redemption_context", 0, REDEMPTION_CONTEXT_BYTES);
  if (redemptionContext.length % REDEMPTION_CONTEXT_BYTES !== 0) {
    reader.fail("WIRE_LENGTH_OUT_OF_BOUNDS", "redemption_context", "expected 0 or 32 bytes");
  }
  // opaque origin_info<0..2^16-1>;
  const originInfo = readServerNameField(reader, "origin_info", 0, isOriginInfo);
  reader.end();
  return { tokenType, issuerName, redemptionContext, originInfo, raw: bytes };
}

/** @throws RangeError for fields that no challenge may have */
export function encodeTokenChallenge(fields: TokenChallengeFields): Uint8Array<ArrayBuffer> {
  const contextBytes = fields.redemptionContext.length;
  if (contextBytes !== 0 && contextBytes !== REDEMPTION_CONTEXT_BYTES) {
    throw new RangeError("redemption_context: expected 0 or 32 bytes");
  }
  return new Writer()
    .u16(fields.tokenType)
    .vec16(encodeServerName("issuer_name", fields.issuerName, isServerName))
    .vec8(fields.redemptionContext)
    .vec16(encodeServerName("origin_info", fields.originInfo, isOriginInfo))
    .finish();
}

/** The token type that starts a TokenChallenge, Token or TokenRequest. @throws `WIRE_TOO_SHORT` */
export function peekTokenType(bytes: Uint8Array): number {
  return new Reader(bytes, "token_type").u16("token_type");
}
