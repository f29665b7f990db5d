/**
 * Which signatures of agents were used already: one memory for all that judge requests, so that each is good once
 * among all of them. Of several processes it is the keeper's, who is asked over the link.
 */
import type { EdgeAgentConfig } from "../../config/index.ts";
import { createReplays, MAX_REMEMBERED } from "./replays.ts";
import { MAX_SKEW_SECONDS } from "./verify.ts";

export interface SignatureUse {
  /** Name of the agent. */
  readonly agent: string;
  /** Of `VerifiedSignature`. */
  readonly key: Uint8Array;
}

export interface UsedSignatures {
  /**
   * Atomic: of all that ask for one key, one is told true.
   * @throws where it cannot be told, `TOKEN_STORE_UNAVAILABLE`: no use is to be made of it then
   */
  readonly useOnce: (use: SignatureUse) => Promise<boolean>;
}

export interface UsedSignaturesOptions {
  readonly agents: readonly EdgeAgentConfig[];
  /** How long after it was found to be of now a use may still come here. */
  readonly waitMs: number;
  readonly clock: () => number;
  /** Of each agent, for one generation. */
  readonly max?: number;
}

export function createUsedSignatures({
  agents,
  clock,
  max = MAX_REMEMBERED,
  waitMs,
}: UsedSignaturesOptions): UsedSignatures {
  const replays = new Map(
    agents.map(({ maxAgeSeconds, name }) => {
      // From the first use, created up to the skew ahead of us, to the last that may be asked for.
      const lifeMs = (maxAgeSeconds + MAX_SKEW_SECONDS) * 1_000 + waitMs;
      return [name, createReplays(lifeMs, max)] as const;
    }),
  );
  return {
    useOnce: ({ agent, key }) => {
      // An agent that is not known here is one of another configuration: nothing was kept of it.
      const known = replays.get(agent);
      return Promise.resolve(known?.useOnce(Buffer.from(key).toString("latin1"), clock()) ?? false);
    },
  };
}
