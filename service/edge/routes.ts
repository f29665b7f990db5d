/**
 * Redemption for other programs: `GET /.stile/authorize` for a proxy that asks "may this request pass?"
 * (nginx auth_request, Caddy forward_auth, Traefik ForwardAuth, Envoy ext_authz), and
 * `POST /.stile/redeem` for an edge node that terminates TLS itself. Neither trusts its caller: what a
 * caller gets is what the token's holder would get at the edge.
 */
import { Type } from "@fastify/type-provider-typebox";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { decodeBase64Url, StileError } from "../../wire/index.ts";
import { sendProblem } from "../http/app.ts";
import type { Admission, AdmissionDecision } from "./admission.ts";
import { normalHost } from "./host.ts";

export interface EdgeRoutesOptions {
  readonly admission: Admission;
  readonly hosts: readonly string[];
  /** Which headers say what the proxy was asked; `off` answers 404. */
  readonly authorizeHeaders: "off" | "original" | "forwarded";
}

/** The header that names the host of the request in question, by setting. Never guessed. */
const HOST_HEADER = { original: "x-original-host", forwarded: "x-forwarded-host" } as const;

const redeemBody = Type.Object(
  {
    token: Type.String({ description: "base64url of the token (RFC 9577 §2.2)", maxLength: 4_096 }),
    host: Type.String({ description: "host that the token is redeemed for", maxLength: 261 }),
  },
  { additionalProperties: false },
);

export function registerEdgeRoutes(app: FastifyInstance, options: EdgeRoutesOptions): void {
  const hosts: ReadonlySet<string> = new Set(options.hosts.map((host) => normalHost(host)));
  const { authorizeHeaders } = options;

  function knownHost(value: unknown): string {
    const host = typeof value === "string" ? normalHost(value) : "";
    if (!hosts.has(host)) {
      throw new StileError("SERVICE_HOST_UNKNOWN", "this edge does not serve that host");
    }
    return host;
  }

  if (authorizeHeaders !== "off") {
    app.get(
      "/.stile/authorize",
      { schema: { summary: "May this request pass? For other proxies" } },
      async (request, reply) => {
        // nginx turns everything but 2xx, 401 and 403 into 500, so an unknown host is a plain 403.
        const host = request.headers[HOST_HEADER[authorizeHeaders]];
        if (typeof host !== "string" || !hosts.has(normalHost(host))) return reply.code(403).send();
        const decision = await options.admission.decide({
          host: normalHost(host),
          cookie: request.headers.cookie,
          authorization: request.headers.authorization,
          idempotencyKey: idempotencyKeyOf(request),
        });
        return answerAuthorize(reply, decision);
      },
    );
  }

  app.post<{ Body: { token: string; host: string } }>(
    "/.stile/redeem",
    { schema: { summary: "Redeem a token for an edge node", body: redeemBody } },
    async (request, reply) => {
      const host = knownHost(request.body.host);
      const token = decodeBase64Url(request.body.token, "token");
      const idempotencyKey = idempotencyKeyOf(request);
      const decision = await options.admission.redeem({ host, idempotencyKey }, token);
      if (decision.kind === "challenged") return sendChallenge(reply, decision);
      const { by, clearance } = decision;
      return reply.send({
        admitted: true,
        by,
        ...(clearance === undefined
          ? {}
          : { clearance: clearance.jwt, expiresIn: clearance.expiresInSeconds }),
      });
    },
  );
}

function idempotencyKeyOf(request: FastifyRequest): string | undefined {
  const value = request.headers["idempotency-key"];
  return typeof value === "string" ? value : undefined;
}

/** Every header that a proxy is told to copy is on every allowing answer: Caddy leaks stale ones. */
function answerAuthorize(reply: FastifyReply, decision: AdmissionDecision): FastifyReply {
  if (decision.kind === "challenged") return sendChallenge(reply, decision);
  if (decision.clearance !== undefined) {
    void reply.header("set-cookie", decision.clearance.setCookie);
  }
  return reply.code(200).header("stile-admission", decision.by).send();
}

function sendChallenge(
  reply: FastifyReply,
  decision: Extract<AdmissionDecision, { kind: "challenged" }>,
): FastifyReply {
  return sendProblem(reply, decision.error, { "www-authenticate": decision.wwwAuthenticate });
}
