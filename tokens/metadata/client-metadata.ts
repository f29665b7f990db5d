/**
 * The client's side of public metadata: what a token of type 0xDA7A carries is a function of the clock and of a
 * grid that all clients of an issuer have from its operator, and of nothing that an origin or an issuer says
 * (draft-ietf-privacypass-expiration-extension-00, privacy considerations: "the same deterministic function").
 * Whoever could choose a client's metadata could tell its tokens from others: a challenge that asks for anything
 * else is not answered, and an issuer that signs anything else is found out by the signature.
 */
import { constantTimeEqual, StileError } from "../../wire/index.ts";
import type { ReceivedChallenge } from "../challenge/private-token.ts";
import { EXTENSION_TYPE_EXPIRATION } from "../structures/expiration.ts";
import { type Extensions, parseExtensions } from "../structures/extensions.ts";
import {
  checkExpirationGrid,
  type ExpirationGrid,
  latestExpiration,
  soleExpiration,
} from "./expiration-policy.ts";

/** The defaults of `issuer.publicMetadata`: the midnight after the next one. */
export const DEFAULT_EXPIRATION_GRID: ExpirationGrid = {
  precisionSeconds: 86_400,
  maxLifetimeSeconds: 172_800,
};
/** A finer grid is refused, whoever asks for it: few clients fetch tokens within one step of it. */
export const MIN_CLIENT_PRECISION_SECONDS = 3_600;
/** So much may a client's clock be ahead of its issuer's without asking for what is not yet to be had. */
const CLOCK_SKEW_MS = 300_000;

export interface ClientMetadata {
  /**
   * The encoded extensions with which a token for this challenge is to be asked for at this instant.
   * @throws `TOKEN_METADATA_REFUSED` where the challenge asks for any others
   */
  extensionsFor(challenge: Pick<ReceivedChallenge, "extensions" | "extensionSet">): Uint8Array;
}

/** @throws RangeError for a grid that is too fine, or has fewer than two steps */
export function createClientMetadata(
  options: ExpirationGrid & {
    /** Unix milliseconds. */
    readonly clock: () => number;
  },
): ClientMetadata {
  const { clock, ...grid } = options;
  checkExpirationGrid(grid);
  if (grid.precisionSeconds < MIN_CLIENT_PRECISION_SECONDS) {
    throw new RangeError(`precisionSeconds: expected ${MIN_CLIENT_PRECISION_SECONDS} or more`);
  }
  // With one step, what a clock that is behind asks for would have expired.
  if (grid.maxLifetimeSeconds < 2 * grid.precisionSeconds) {
    throw new RangeError("maxLifetimeSeconds: expected twice the precision or more");
  }
  return {
    extensionsFor({ extensions, extensionSet }) {
      const now = clock();
      const isTypeRefused = extensionSet?.some(
        ({ extensionType, isRequired }) =>
          isRequired && extensionType !== EXTENSION_TYPE_EXPIRATION,
      );
      const isWanted =
        extensionSet?.some((entry) => entry.extensionType === EXTENSION_TYPE_EXPIRATION) ?? true;
      if (isTypeRefused === true || !isWanted) {
        throw refused("extension-set: expected an expiration and nothing else");
      }
      const isOurs = (offsetMs: number): boolean =>
        extensions === undefined ||
        constantTimeEqual(extensions, latestExpiration(grid, now + offsetMs));
      if (![-CLOCK_SKEW_MS, 0, CLOCK_SKEW_MS].some(isOurs)) {
        throw refused("extensions: expected the expiration that every client has");
      }
      return latestExpiration(grid, now - CLOCK_SKEW_MS);
    },
  };
}

/**
 * That extensions are one expiration on a grid that is coarse enough to be shared. Whether it is the one that
 * others have is known to {@link createClientMetadata} alone. @throws `TOKEN_METADATA_REFUSED`
 */
export function checkCoarse(extensions: Extensions): void {
  const { timestamp, timestampPrecision } = soleExpiration(extensions);
  const isCoarse = timestampPrecision >= BigInt(MIN_CLIENT_PRECISION_SECONDS);
  if (isCoarse && timestamp % timestampPrecision === 0n) return;
  throw refused("expiration: expected a multiple of an hour or more");
}

/** Unix milliseconds. @param encoded Extensions. @throws `WIRE_*`, `TOKEN_METADATA_REFUSED` */
export function expirationMsOf(encoded: Uint8Array): number {
  return Number(soleExpiration(parseExtensions(encoded)).timestamp) * 1_000;
}

function refused(message: string): StileError {
  return new StileError("TOKEN_METADATA_REFUSED", message);
}
