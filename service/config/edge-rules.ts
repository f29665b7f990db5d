/** Settings of the edge's admission rules (docs/edge-rules.md). */
import { Type } from "typebox";
import { edgeAdaptiveSettings } from "./edge-adaptive.ts";
import { edgeAgentSettings } from "./edge-agents.ts";
import { closed, some } from "./kinds.ts";

/** What becomes of a request that a rule matches. */
export type EdgeAction = "open" | "token-or-certificate" | "token" | "block";
export type EdgeMode = "enforce" | "monitor" | "adaptive";

/** Everything that is said must hold; what is not said holds always. */
export interface EdgeRuleConfig {
  readonly name: string;
  readonly action: EdgeAction;
  readonly hosts?: readonly string[];
  readonly paths?: readonly string[];
  readonly methods?: readonly string[];
  readonly networks?: readonly string[];
  readonly agents?: readonly string[];
  /** Of the action token-or-certificate. */
  readonly certificates?: readonly string[];
}

const edgeRule = Type.Object(
  {
    name: Type.String({
      description: "names the rule in metrics; not default",
      pattern: "^[a-z0-9][a-z0-9-]{0,31}$",
    }),
    action: Type.Unsafe<EdgeAction>({
      description:
        "open: without a token; token: as without rules; token-or-certificate: with one of certificates, or as token; block: 403",
      type: "string",
      enum: ["open", "token-or-certificate", "token", "block"],
    }),
    hosts: some("hosts, each one of edge.hosts", "^."),
    paths: some("paths with all that is below them: /a is /a and /a/b, not /ab", "^/"),
    methods: some("methods, in capitals; GET does not include HEAD", "^[A-Z][A-Z-]{0,31}$"),
    networks: some(
      "networks of the connection's other end: 192.0.2.0/24, 2001:db8::/32",
      "^[0-9a-fA-F:./]+$",
    ),
    agents: some("names of edge.agents, one of which has signed the request", "^."),
    certificates: some("of token-or-certificate: names of tls.clientCertificates", "^."),
  },
  closed,
);

export const edgeRuleSettings: {
  readonly adaptive: typeof edgeAdaptiveSettings;
  readonly agents: typeof edgeAgentSettings;
  readonly mode: Type.TUnsafe<EdgeMode>;
  readonly rules: Type.TUnsafe<readonly EdgeRuleConfig[]>;
} = {
  mode: Type.Unsafe<EdgeMode>({
    description:
      "monitor forwards what enforce would challenge, and counts it; adaptive does so until edge.adaptive says otherwise; block still blocks",
    type: "string",
    enum: ["enforce", "monitor", "adaptive"],
    default: "enforce",
  }),
  adaptive: edgeAdaptiveSettings,
  agents: edgeAgentSettings,
  rules: Type.Unsafe<readonly EdgeRuleConfig[]>(
    Type.Array(edgeRule, {
      description: "what needs a token; the first rule that matches decides",
      maxItems: 1_000,
      default: [],
    }),
  ),
};
