/**
 * The agents of the configuration with their keys, and what is found out about one request: lazily, since a
 * signature is verified only where a rule asks for it, and once, since it is used up by that.
 */
import { watchFiles, type WatchedFiles } from "../../../tls/index.ts";
import { isStileError, StileError } from "../../../wire/index.ts";
import type { EdgeAgentConfig } from "../../config/index.ts";
import type { Log } from "../../log.ts";
import type { Metrics } from "../../metrics.ts";
import { type AgentKey, readAgentKeys } from "./keys.ts";
import { createReplays } from "./replays.ts";
import type { SignedRequest } from "./signature-base.ts";
import {
  type Agent,
  type KnownKey,
  type KnownKeys,
  MAX_SKEW_SECONDS,
  verifyAgent,
} from "./verify.ts";

export interface AgentsOptions {
  readonly agents: readonly EdgeAgentConfig[];
  readonly pollMs: number;
  readonly clock: () => number;
  readonly log: Log;
  readonly metrics: Metrics;
}

/** What a request's signature says of its sender. */
export interface RequestSignature {
  /** Name of the agent that signed it; undefined where no known one did. */
  readonly agent: () => string | undefined;
  /** Why not, once it was asked and where there was a signature. */
  readonly error: () => StileError | undefined;
}

export interface Agents {
  readonly signatureOf: (request: SignedRequest) => RequestSignature;
  /** Looks at the key files now. */
  readonly reload: () => void;
  readonly close: () => void;
}

const MAX_JWKS_BYTES = 262_144;

/** @throws `SERVICE_CONFIG_INVALID` where a key file cannot be used at start */
export function openAgents(options: AgentsOptions): Agents {
  const { clock, metrics } = options;
  const agents = options.agents.map((agent) => ({ agent: agentOf(agent), config: agent }));
  const watched = watchKeys(options, agents);
  return {
    signatureOf: (request) => {
      let isAsked = false;
      let agent: string | undefined;
      let error: StileError | undefined;
      return {
        error: () => error,
        agent: () => {
          if (isAsked || !isSigned(request)) return agent;
          isAsked = true;
          try {
            agent = verifyAgent(request, watched.current(), clock()).name;
            metrics.agentSignatures.inc({ outcome: "OK" });
          } catch (cause) {
            if (!isStileError(cause)) throw cause;
            error = cause;
            metrics.agentSignatures.inc({ outcome: cause.code });
          }
          return agent;
        },
      };
    },
    reload: () => watched.reload(),
    close: () => watched.close(),
  };
}

function isSigned({ lines }: SignedRequest): boolean {
  return lines("signature-input").length > 0 || lines("signature").length > 0;
}

function agentOf({ maxAgeSeconds, nonce, ...agent }: EdgeAgentConfig): Agent {
  // From the first use, created up to the skew ahead of us, to the end.
  const lifeMs = (maxAgeSeconds + MAX_SKEW_SECONDS) * 1_000;
  const replays = createReplays(lifeMs);
  return { ...agent, maxAgeSeconds, requiresNonce: nonce === "required", replays };
}

interface ConfiguredAgent {
  readonly agent: Agent;
  readonly config: EdgeAgentConfig;
}

function watchKeys(
  { log, pollMs }: AgentsOptions,
  agents: readonly ConfiguredAgent[],
): WatchedFiles<KnownKeys> {
  const files = agents.map(({ config }) => config.jwksFile);
  try {
    return watchFiles({
      files,
      maxBytes: MAX_JWKS_BYTES,
      pollMs,
      parse: (contents) => {
        const keys = contents.map((content) => readAgentKeys(content.toString("utf8")));
        return indexKeys(agents.map(({ agent }, i) => ({ agent, keys: keys[i] ?? [] })));
      },
      observe: (isUsable) => {
        log.write(
          isUsable ? "info" : "error",
          isUsable ? "edge.agents-loaded" : "edge.agents-failed",
        );
      },
    });
  } catch (cause) {
    const reason = cause instanceof Error && !("code" in cause) ? cause.message : "cannot be read";
    throw new StileError("SERVICE_CONFIG_INVALID", `configuration: edge.agents: ${reason}`, {
      cause,
    });
  }
}

function indexKeys(
  agents: readonly { readonly agent: Agent; readonly keys: readonly AgentKey[] }[],
): KnownKeys {
  const known = new Map<string, KnownKey>();
  for (const { agent, keys } of agents) {
    for (const key of keys) {
      for (const id of key.ids) {
        // Whose it would be, a kid could decide that somebody else has chosen.
        if (known.has(id)) throw new Error("two keys have one id");
        known.set(id, { agent, key });
      }
    }
  }
  return known;
}
