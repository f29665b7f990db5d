/**
 * Admission rules: which requests pass without a token, need one, or are blocked. A list, first match wins,
 * compiled once; judging a plain path allocates nothing. Paths are judged in every way an upstream may read
 * them and the strictest verdict holds, so no spelling takes a request out of a rule (docs/edge-rules.md).
 * It decides by the request's outside only and does not know tokens.
 */
import type { EdgeAction, EdgeRuleConfig } from "../config/index.ts";
import { normalHost } from "./host.ts";
import {
  ADDRESS_BYTES,
  isInNetwork,
  type Network,
  parseNetwork,
  readAddress,
} from "../../tls/index.ts";
import type { RequestSignature } from "./signatures/agents.ts";
import { foldPath, isBelow, isPlainPath, pathEnd, readingsOf } from "./request-path.ts";

/** `ambiguous`: no rule can be trusted to match as the upstream reads it; refused. */
export interface Verdict {
  readonly action: EdgeAction | "ambiguous";
  /** Of token-or-certificate: which rules' clients need no token. */
  readonly certificates?: ReadonlySet<string> | undefined;
  /** Name of the rule, or `default`. One of a closed set. */
  readonly rule: string;
  /** It matched by who signed the request. */
  readonly isByAgent: boolean;
}

/** What rules go by. Every string but the host is hostile. */
export interface JudgedRequest {
  /** In its normal form. */
  readonly host: string;
  readonly method: string;
  /** Request target in origin form, or `*`. */
  readonly target: string;
  readonly remoteAddress: string | undefined;
  /** A header that some upstreams take another method from is present. */
  readonly isMethodOverridden: boolean;
  /** Name of the rule of tls.clientCertificates that the connection's client was verified under. */
  readonly client?: string | undefined;
  /** Looked at for rules with `agents` only. */
  readonly signature?: RequestSignature | undefined;
}

export interface EdgeRules {
  /** Never throws. Not reentrant, and need not be: it does not wait. */
  readonly judge: (request: JudgedRequest) => Verdict;
}

interface CompiledRule {
  readonly verdict: Verdict;
  readonly hosts: ReadonlySet<string> | undefined;
  readonly methods: ReadonlySet<string> | undefined;
  readonly networks: readonly Network[] | undefined;
  readonly agents: ReadonlySet<string> | undefined;
  readonly exact: readonly string[] | undefined;
  readonly folded: readonly string[] | undefined;
}

const DEFAULT: Verdict = Object.freeze({ action: "token", rule: "default", isByAgent: false });
const AMBIGUOUS: Verdict = Object.freeze({
  action: "ambiguous",
  rule: "default",
  isByAgent: false,
});
const STRICTNESS: Readonly<Record<Verdict["action"], number>> = {
  open: 0,
  "token-or-certificate": 1,
  token: 2,
  block: 3,
  ambiguous: 4,
};

/** What rules may name. */
export interface RuleNames {
  readonly agents?: readonly string[];
  readonly certificates?: readonly string[];
}

/** @throws RangeError that names the rule and what is wrong with it */
export function compileRules(
  configured: readonly EdgeRuleConfig[],
  servedHosts: readonly string[],
  { agents = [], certificates = [] }: RuleNames = {},
): EdgeRules {
  const unnamed = agents.find((agent) => !configured.some((rule) => rule.agents?.includes(agent)));
  if (unnamed !== undefined) throw new RangeError(`no rule names the agent ${unnamed}`);
  if (new Set(agents).size !== agents.length) throw new RangeError("two agents have one name");
  const served: ReadonlySet<string> = new Set(servedHosts.map((host) => normalHost(host)));
  const rules = configured.map((rule) => compileRule(rule, served, { agents, certificates }));
  const names = new Set(rules.map(({ verdict }) => verdict.rule));
  if (names.has(DEFAULT.rule)) throw new RangeError("a rule must not be named default");
  if (names.size !== rules.length) throw new RangeError("two rules have one name");
  const byPath = rules.some(({ exact }) => exact !== undefined);
  const byMethod = rules.some(({ methods }) => methods !== undefined);
  const byNetwork = rules.some(({ networks }) => networks !== undefined);
  const address = new Uint8Array(ADDRESS_BYTES);

  function first(request: JudgedRequest, text: string, end: number, isFolded: boolean): Verdict {
    for (const rule of rules) {
      const isOutside = isMatch(rule, request, address) && isPathMatch(rule, text, end, isFolded);
      // Last: whatever else does not match spares the signature, which is good for one use.
      if (isOutside && isAgentMatch(rule, request)) return rule.verdict;
    }
    return DEFAULT;
  }

  return {
    judge: (request) => {
      const { target } = request;
      if (byMethod && request.isMethodOverridden) return AMBIGUOUS;
      // A peer that is gone has no address: whether a network is blocked cannot be told.
      if (byNetwork && !readAddress(request.remoteAddress ?? "", address)) return AMBIGUOUS;
      const end = pathEnd(target);
      if (!byPath || target === "*") return first(request, target, end, false);
      if (isPlainPath(target, end)) {
        const exact = first(request, target, end, false);
        return stricter(exact, first(request, target, end, true));
      }
      const readings = readingsOf(target.slice(0, end));
      if (readings === undefined) return AMBIGUOUS;
      return readings
        .map(({ text, isFolded }) => first(request, text, text.length, isFolded))
        .reduce((left, right) => stricter(left, right));
    },
  };
}

function stricter(left: Verdict, right: Verdict): Verdict {
  // Of two rules by certificate, no client would be one of both.
  const isByEither = left.action === "token-or-certificate" && left.action === right.action;
  if (isByEither && left !== right) return { ...right, action: "token" };
  return STRICTNESS[right.action] > STRICTNESS[left.action] ? right : left;
}

function isMatch(rule: CompiledRule, request: JudgedRequest, address: Uint8Array): boolean {
  if (rule.hosts !== undefined && !rule.hosts.has(request.host)) return false;
  if (rule.methods !== undefined && !rule.methods.has(request.method)) return false;
  if (rule.networks === undefined) return true;
  for (const network of rule.networks) if (isInNetwork(address, network)) return true;
  return false;
}

function isAgentMatch({ agents }: CompiledRule, { signature }: JudgedRequest): boolean {
  if (agents === undefined) return true;
  const agent = signature?.agent();
  return agent !== undefined && agents.has(agent);
}

function isPathMatch(rule: CompiledRule, text: string, end: number, isFolded: boolean): boolean {
  const prefixes = isFolded ? rule.folded : rule.exact;
  if (prefixes === undefined) return true;
  for (const prefix of prefixes) if (isBelow(text, end, prefix, isFolded)) return true;
  return false;
}

function compileRule(
  rule: EdgeRuleConfig,
  served: ReadonlySet<string>,
  names: Required<RuleNames>,
): CompiledRule {
  if (rule.agents?.every((agent) => names.agents.includes(agent)) === false) {
    throw new RangeError(`${rule.name}: an agent is not one of edge.agents`);
  }
  if ((rule.action === "token-or-certificate") !== (rule.certificates !== undefined)) {
    throw new RangeError(
      `${rule.name}: certificates are for token-or-certificate, which needs them`,
    );
  }
  if (rule.certificates?.every((name) => names.certificates.includes(name)) === false) {
    throw new RangeError(`${rule.name}: a certificate is not one of tls.clientCertificates`);
  }
  const hosts = rule.hosts?.map((host) => normalHost(host));
  if (hosts?.some((host) => !served.has(host)) === true) {
    throw new RangeError(`${rule.name}: a host is not one of edge.hosts`);
  }
  const exact = rule.paths?.map((path) => prefixOf(rule.name, path));
  return {
    verdict: Object.freeze({
      action: rule.action,
      rule: rule.name,
      isByAgent: rule.agents !== undefined,
      certificates: rule.certificates && new Set(rule.certificates),
    }),
    agents: rule.agents && new Set(rule.agents),
    hosts: hosts && new Set(hosts),
    methods: rule.methods && new Set(rule.methods),
    networks: rule.networks?.map((network) => networkOfRule(rule.name, network)),
    exact,
    folded: exact?.map((path) => foldPath(path)),
  };
}

/** In its plain spelling, so that what the operator reads is what is compared; no slash at the end. */
function prefixOf(name: string, path: string): string {
  if (/[%;?#]/.test(path) || readingsOf(path) === undefined) {
    throw new RangeError(`${name}: a path is not in its plain, decoded form`);
  }
  const prefix = path.endsWith("/") ? path.slice(0, -1) : path;
  if (/[. ]$/.test(prefix)) throw new RangeError(`${name}: a path ends in a dot or a space`);
  return prefix;
}

function networkOfRule(name: string, network: string): Network {
  try {
    return parseNetwork(network);
  } catch (cause) {
    throw new RangeError(`${name}: a network is not address/bits`, { cause });
  }
}
