/**
 * What one network may attest by WebAuthn in one window of the allowance. An authenticator makes as many
 * credentials as it is asked for, so the allowance of a credential alone would bound nobody: each attestation,
 * registration and assertion alike, is charged to the client's network, durably and before it counts.
 *
 * The address is not kept: a keyed hash of its prefix and the window is, as the allowance store hashes it
 * again, and goes with the window. Hashes of two windows cannot be joined.
 */
import { createHmac } from "node:crypto";
import { encodeUtf8, isStileError, StileError, Writer } from "../../wire/index.ts";
import type { AllowanceStore } from "../stores/index.ts";

const LABEL = encodeUtf8("stile/1 webauthn network");

export interface NetworkLimitOptions {
  readonly allowances: AllowanceStore;
  /** Attestations of one network in one window. */
  readonly limit: number;
  readonly windowMs: number;
  /** 32 bytes. */
  readonly secret: Uint8Array;
  /** Unix milliseconds. */
  readonly clock: () => number;
}

/** @returns a function that throws `ATTEST_WEBAUTHN_NETWORK_LIMIT`, `ATTEST_ALLOWANCE_UNAVAILABLE` */
export function createNetworkLimit(
  options: NetworkLimitOptions,
): (network: string) => Promise<void> {
  const { allowances, clock, limit, secret, windowMs } = options;
  return async (network) => {
    const atMs = clock();
    const name = new Writer()
      .vec16(LABEL)
      .u64(BigInt(Math.floor(atMs / windowMs)))
      .vec16(encodeUtf8(network))
      .finish();
    const pseudonym = createHmac("sha256", secret).update(name).digest("base64url");
    try {
      await allowances.charge({ pseudonym, count: 1, atMs, limit });
    } catch (cause) {
      if (!isStileError(cause) || cause.code !== "ATTEST_ALLOWANCE_EXCEEDED") throw cause;
      const message = "too many attestations from this network";
      const { retryAfterSeconds } = cause;
      throw new StileError("ATTEST_WEBAUTHN_NETWORK_LIMIT", message, {
        cause,
        ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }),
      });
    }
  };
}
