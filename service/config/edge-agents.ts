/** Settings of the agents that sign their requests (RFC 9421), for rules to name (docs/edge-rules.md). */
import { Type } from "typebox";
import { choice, closed, text, whole } from "./kinds.ts";

export interface EdgeAgentConfig {
  readonly name: string;
  readonly jwksFile: string;
  readonly components: readonly string[];
  readonly tag?: string;
  readonly signatureAgent?: string;
  readonly nonce: "optional" | "required";
  readonly maxAgeSeconds: number;
}

const edgeAgent = Type.Object(
  {
    name: Type.String({
      description: "names the agent in rules and in Stile-Agent",
      pattern: "^[a-z0-9][a-z0-9-]{0,31}$",
    }),
    jwksFile: text("JWK set with its public keys: Ed25519, P-256 or RSA"),
    components: Type.Array(Type.String({ pattern: "^@?[a-z0-9-]{1,64}$" }), {
      description: "what its signatures must cover besides @authority",
      maxItems: 32,
      default: ["@method", "@target-uri"],
    }),
    tag: Type.Optional(text("the tag that its signatures must have: web-bot-auth, say")),
    signatureAgent: Type.Optional(
      text("what its Signature-Agent must say; then it must be covered"),
    ),
    nonce: choice("whether its signatures must have one", ["optional", "required"]),
    maxAgeSeconds: whole("how old a signature may be", 1, 86_400, 300),
  },
  closed,
);

export const edgeAgentSettings: Type.TUnsafe<readonly EdgeAgentConfig[]> = Type.Unsafe<
  readonly EdgeAgentConfig[]
>(
  Type.Array(edgeAgent, {
    description: "programs that sign their requests, for rules to name (docs/edge-rules.md)",
    maxItems: 256,
    default: [],
  }),
);
