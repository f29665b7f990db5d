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
import type { SignedRequest } from "./signature-base.ts";
import type { SignatureUse, UsedSignatures } from "./used-signatures.ts";
import {
  type Agent,
  type KnownKey,
  type KnownKeys,
  type VerifiedSignature,
  verifyAgent,
} from "./verify.ts";

export interface AgentsOptions {
  readonly agents: readonly EdgeAgentConfig[];
  readonly usedSignatures: UsedSignatures;
  readonly pollMs: number;
  readonly clock: () => number;
  readonly log: Log;
  readonly metrics: Metrics;
}

/** What a request's signature says of its sender. */
export interface RequestSignature {
  /** Name of the agent that signed it; undefined where no known one did, or it was no use of its own. */
  readonly agent: () => string | undefined;
  /**
   * Of a signature that `agent` was asked for: its one use. Before it, nothing may be done for the agent.
   * @returns false where there is none for this request, which counts as unsigned from then on
   */
  readonly useUp: () => Promise<boolean>;
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
  const { clock } = options;
  const agents = options.agents.map((agent) => ({ agent: agentOf(agent), config: agent }));
  const watched = watchKeys(options, agents);
  return {
    signatureOf: (request) =>
      lazily(options, request, () => verifyAgent(request, watched.current(), clock())),
    reload: () => watched.reload(),
    close: () => watched.close(),
  };
}

function lazily(
  { metrics, usedSignatures }: AgentsOptions,
  request: SignedRequest,
  verify: () => VerifiedSignature,
): RequestSignature {
  let isAsked = false;
  let unused: VerifiedSignature | undefined;
  let agent: string | undefined;
  let error: StileError | undefined;
  const refuse = (cause: unknown): void => {
    if (!isStileError(cause)) throw cause;
    agent = undefined;
    error = cause;
    metrics.agentSignatures.inc({ outcome: cause.code });
  };
  return {
    error: () => error,
    agent: () => {
      if (isAsked || !isSigned(request)) return agent;
      isAsked = true;
      try {
        unused = verify();
        agent = unused.agent.name;
      } catch (cause) {
        refuse(cause);
      }
      return agent;
    },
    useUp: async () => {
      if (unused === undefined) return true;
      const use = { agent: unused.agent.name, key: unused.key };
      unused = undefined;
      try {
        await useOnce(usedSignatures, use);
        metrics.agentSignatures.inc({ outcome: "OK" });
      } catch (cause) {
        refuse(cause);
      }
      return agent !== undefined;
    },
  };
}

/** @throws `SERVICE_SIGNATURE_REPLAYED`; `SERVICE_OVERLOADED` where nobody can tell whether it is one */
async function useOnce(usedSignatures: UsedSignatures, use: SignatureUse): Promise<void> {
  let isFirst: boolean;
  try {
    isFirst = await usedSignatures.useOnce(use);
  } catch (cause) {
    if (!isStileError(cause)) throw cause;
    const message = "message signature: whether it was used before cannot be told";
    throw new StileError("SERVICE_OVERLOADED", message, { cause });
  }
  if (isFirst) return;
  throw new StileError("SERVICE_SIGNATURE_REPLAYED", "message signature: it was used before");
}

function isSigned({ lines }: SignedRequest): boolean {
  return lines("signature-input").length > 0 || lines("signature").length > 0;
}

function agentOf({ nonce, ...agent }: EdgeAgentConfig): Agent {
  return { ...agent, requiresNonce: nonce === "required" };
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
