/**
 * What keeps a DPoP proof from being used twice (RFC 9449 §11.1): the proofs that were used, for as long as
 * they could be fresh, and nonces (§8) for those that this memory cannot speak for.
 *
 * Why no proof is good twice, whatever restarts and the wall clock do:
 * 1. A proof is remembered for two windows of a clock that never jumps.
 * 2. When it is forgotten, its `iat` becomes the floor. By a steady wall clock nothing below the floor is fresh
 *    any more. After a jump back it would be: then it is good with a nonce only.
 * 3. Each run of the attester starts with an empty memory. So results name the run that made them, and a proof
 *    for a result of another run is good with a nonce only: what an earlier run saw has none of this one.
 * 4. A nonce lives two windows at most, by the clock that never jumps: less than a proof with it is remembered.
 */
import { encodeBase64Url, StileError } from "../../wire/index.ts";

export interface DpopMemoryOptions {
  /** Milliseconds of a clock that never jumps. */
  readonly monotonicMs: () => number;
  readonly random: (length: number) => Uint8Array;
  /** How far `iat` may lie from now, both ways. */
  readonly windowMs: number;
  /** When so many are remembered, new ones are refused rather than old ones forgotten. */
  readonly maxRemembered: number;
}

export interface RememberedProof {
  /** Unique to the key and the proof. */
  readonly name: string;
  /** Unix seconds, fresh by the wall clock. */
  readonly iat: number;
  /** Hostile: the claim, or undefined. */
  readonly nonce: unknown;
  /** Whether the result that it proves the key of is of this run. */
  readonly isOfThisRun: boolean;
}

export interface DpopMemory {
  /** @throws `ATTEST_PROOF_INVALID`, `ATTEST_PROOF_NONCE_REQUIRED` */
  readonly useOnce: (proof: RememberedProof) => void;
  /** For the next proof; good for one window at least. */
  readonly nonce: () => string;
}

const NONCE_BYTES = 16;

export function createDpopMemory(options: DpopMemoryOptions): DpopMemory {
  const { maxRemembered, monotonicMs, windowMs } = options;
  const nonces = createNonces(options);
  /** In the order of insertion, which is the order of expiry. */
  const remembered = new Map<string, { readonly iat: number; readonly expiresAtMs: number }>();
  let floor = Number.NEGATIVE_INFINITY;

  function forget(nowMs: number): void {
    for (const [name, { expiresAtMs, iat }] of remembered) {
      if (expiresAtMs >= nowMs) break;
      remembered.delete(name);
      floor = Math.max(floor, iat);
    }
  }

  return {
    nonce: nonces.current,
    useOnce: ({ iat, isOfThisRun, name, nonce }) => {
      const nowMs = monotonicMs();
      forget(nowMs);
      const isKnownNew = nonce === undefined && isOfThisRun && iat > floor;
      if (!isKnownNew && !nonces.isGood(nonce)) {
        throw new StileError("ATTEST_PROOF_NONCE_REQUIRED", "DPoP proof: expected our nonce");
      }
      if (remembered.has(name)) throw invalid("the proof was used before");
      if (remembered.size >= maxRemembered) throw invalid("too many proofs are remembered");
      // Twice the window, both ends included: iat may lie that far ahead and the proof still be fresh.
      remembered.set(name, { iat, expiresAtMs: nowMs + 2 * windowMs });
    },
  };
}

/** Two at a time, each for two windows: what was handed out last is good for one at least. */
function createNonces({ monotonicMs, random, windowMs }: DpopMemoryOptions): {
  readonly current: () => string;
  readonly isGood: (nonce: unknown) => boolean;
} {
  const draw = (): string => encodeBase64Url(random(NONCE_BYTES));
  let current = draw();
  let previous: string | undefined;
  let drawnAtMs = monotonicMs();
  const turn = (): void => {
    const ageMs = monotonicMs() - drawnAtMs;
    if (ageMs < windowMs) return;
    previous = ageMs < 2 * windowMs ? current : undefined;
    current = draw();
    // From when the one before it ended, so that no nonce lives longer than two windows.
    drawnAtMs += Math.floor(ageMs / windowMs) * windowMs;
  };
  return {
    current: () => {
      turn();
      return current;
    },
    isGood: (nonce) => {
      turn();
      return nonce !== undefined && (nonce === current || nonce === previous);
    },
  };
}

function invalid(message: string): StileError {
  return new StileError("ATTEST_PROOF_INVALID", `DPoP proof: ${message}`);
}
