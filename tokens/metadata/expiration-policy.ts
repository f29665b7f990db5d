/**
 * Which public metadata a token may carry: one expiration (draft-ietf-privacypass-expiration-extension-00) and
 * nothing else. Metadata divides the clients of a key into sets, and a value that one client has alone follows it
 * from issuance to redemption (draft-ietf-privacypass-public-metadata-issuance, privacy considerations). So the
 * issuer signs only instants on a coarse grid and not far ahead, whoever asks: at most
 * {@link MAX_EXPIRATIONS} values at any time, 4 bits at the very most.
 */
import { isStileError, StileError } from "../../wire/index.ts";
import {
  EXTENSION_TYPE_EXPIRATION,
  expirationExtension,
  type ExpirationTimestamp,
  parseExpirationTimestamp,
} from "../structures/expiration.ts";
import { encodeExtensions, type Extensions } from "../structures/extensions.ts";

/** Expirations that may be asked for at a time. */
export const MAX_EXPIRATIONS = 16;

export interface MetadataPolicy {
  /** For a request, before anything is charged or signed. @throws `TOKEN_METADATA_REFUSED` */
  checkRequested(extensions: Extensions): void;
  /** For a token, at its redemption. @throws `TOKEN_METADATA_REFUSED`, `TOKEN_EXPIRED` */
  checkPresented(extensions: Extensions): void;
}

export interface ExpirationGrid {
  /** Expirations are multiples of this, and say so. */
  readonly precisionSeconds: number;
  /** How far ahead an expiration may be: one to {@link MAX_EXPIRATIONS} steps. */
  readonly maxLifetimeSeconds: number;
}

/** @param grid also for redemption: of a token that was issued by another grid only its own is believed */
export function createExpirationPolicy(
  grid: ExpirationGrid & {
    /** Unix milliseconds. */
    readonly clock: () => number;
  },
): MetadataPolicy {
  checkExpirationGrid(grid);
  const precision = BigInt(grid.precisionSeconds);
  const nowSeconds = (): bigint => BigInt(Math.floor(grid.clock() / 1_000));
  return {
    checkRequested(extensions) {
      const { timestamp, timestampPrecision } = soleExpiration(extensions);
      const isOnGrid = timestampPrecision === precision && timestamp % precision === 0n;
      const now = nowSeconds();
      const isInRange = timestamp > now && timestamp <= now + BigInt(grid.maxLifetimeSeconds);
      if (!isOnGrid || !isInRange) {
        throw refused("expiration: expected a multiple of the issuer's precision in its range");
      }
    },
    checkPresented(extensions) {
      if (soleExpiration(extensions).timestamp > nowSeconds()) return;
      throw new StileError("TOKEN_EXPIRED", "expiration: expected an instant that is to come");
    },
  };
}

/** @throws RangeError for a grid that has no expiration at some time, or too many */
export function checkExpirationGrid({
  maxLifetimeSeconds,
  precisionSeconds,
}: ExpirationGrid): void {
  const steps = maxLifetimeSeconds / precisionSeconds;
  if (!Number.isSafeInteger(precisionSeconds) || precisionSeconds < 1) {
    throw new RangeError("precisionSeconds: expected 1 or more");
  }
  if (!Number.isSafeInteger(maxLifetimeSeconds) || !(steps >= 1 && steps <= MAX_EXPIRATIONS)) {
    throw new RangeError(
      `maxLifetimeSeconds: expected 1 to ${MAX_EXPIRATIONS} times the precision`,
    );
  }
}

/**
 * The encoded extensions that a client should ask for: the last expiration that is to be had. Clients that all
 * follow this rule have the same metadata.
 */
export function latestExpiration(grid: ExpirationGrid, nowMs: number): Uint8Array<ArrayBuffer> {
  const precision = BigInt(grid.precisionSeconds);
  const latest = BigInt(Math.floor(nowMs / 1_000) + grid.maxLifetimeSeconds);
  const timestamp = latest - (latest % precision);
  return encodeExtensions([expirationExtension({ timestampPrecision: precision, timestamp })]);
}

/**
 * An extension twice, or one that is not known, is metadata like any other: it is refused, never ignored.
 * @throws `TOKEN_METADATA_REFUSED`
 */
export function soleExpiration({ extensions }: Extensions): ExpirationTimestamp {
  const [extension, ...others] = extensions;
  if (extension?.extensionType !== EXTENSION_TYPE_EXPIRATION || others.length > 0) {
    throw refused("extensions: expected one expiration and nothing else");
  }
  try {
    return parseExpirationTimestamp(extension.extensionData);
  } catch (cause) {
    if (!isStileError(cause)) throw cause;
    throw refused("expiration: expected two numbers of 64 bits", cause);
  }
}

function refused(message: string, cause?: unknown): StileError {
  return new StileError("TOKEN_METADATA_REFUSED", message, { cause });
}
