/**
 * Redemption for other programs: `GET /.stile/authorize` for a proxy that asks "may this request pass?"
 * (nginx auth_request, Caddy forward_auth, Traefik ForwardAuth, Envoy ext_authz), and
 * `POST /.stile/redeem` for an edge node that terminates TLS itself. What a caller gets is what the token's
 * holder would get at the edge. Only trusted proxies may ask the former: they are believed which host and
 * which client it is about, and are not counted as one client that sends very many requests.
 */
import { Type } from "@fastify/type-provider-typebox";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { PresentedToken } from "../../tokens/index.ts";
import { decodeBase64Url, StileError } from "../../wire/index.ts";
import { sendProblem } from "../http/app.ts";
import { problemOf } from "../problems.ts";
import type { RenderedPage } from "../web/page.ts";
import type { AuthorizeHeaders } from "../config/index.ts";
import type { Admission, Admitted, Challenged } from "./admission.ts";
import { credentialsForUpstream } from "./credentials.ts";
import { networkOf, normalHost } from "./host.ts";
import { AUTHORIZE_PATH, isQuestion } from "./question.ts";
import { type PageFor, refusalBody } from "./refusal.ts";
import type { TrustedProxies } from "./trusted-proxies.ts";

export interface EdgeRoutesOptions {
  readonly admission: Admission;
  readonly hosts: readonly string[];
  /** Which headers say what the proxy was asked; `off` answers 404. */
  readonly authorizeHeaders: AuthorizeHeaders;
  readonly proxies: TrustedProxies;
  readonly page?: PageFor;
}

/** The header that names the host of the request in question, by setting. Never guessed. */
const HOST_HEADER = { original: "x-original-host", forwarded: "x-forwarded-host" } as const;

/** Envoy asks with the method of the request in question, and with its path behind this one. */
const QUESTION_METHODS = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];

const redeemBody = Type.Object(
  {
    token: Type.String({ description: "base64url of the token (RFC 9577 §2.2)", maxLength: 4_096 }),
    extensions: Type.Optional(
      Type.String({
        description: "base64url of the extensions of a token with public metadata",
        maxLength: 4_096,
      }),
    ),
    host: Type.String({ description: "host that the token is redeemed for", maxLength: 261 }),
  },
  { additionalProperties: false },
);

export function registerEdgeRoutes(app: FastifyInstance, options: EdgeRoutesOptions): void {
  const hosts: ReadonlySet<string> = new Set(options.hosts.map((host) => normalHost(host)));
  if (options.authorizeHeaders !== "off") {
    registerAuthorize(app, options, { hosts, hostHeader: HOST_HEADER[options.authorizeHeaders] });
  }

  function knownHost(value: unknown): string {
    const host = typeof value === "string" ? normalHost(value) : "";
    if (!hosts.has(host)) {
      throw new StileError("SERVICE_HOST_UNKNOWN", "this edge does not serve that host");
    }
    return host;
  }

  app.post<{ Body: { token: string; extensions?: string; host: string } }>(
    "/.stile/redeem",
    { schema: { summary: "Redeem a token for an edge node", body: redeemBody } },
    async (request, reply) => {
      const host = knownHost(request.body.host);
      const presented = presentedToken(request.body);
      const idempotencyKey = idempotencyKeyOf(request);
      const decision = await options.admission.redeem({ host, idempotencyKey }, presented);
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

/** @throws `WIRE_BAD_ENCODING` */
function presentedToken(body: { token: string; extensions?: string }): PresentedToken {
  const token = decodeBase64Url(body.token, "token");
  if (body.extensions === undefined) return { token };
  return { token, extensions: decodeBase64Url(body.extensions, "extensions") };
}

interface AuthorizeScope {
  readonly hosts: ReadonlySet<string>;
  readonly hostHeader: (typeof HOST_HEADER)[keyof typeof HOST_HEADER];
}

function registerAuthorize(
  app: FastifyInstance,
  { admission, page, proxies }: EdgeRoutesOptions,
  { hostHeader, hosts }: AuthorizeScope,
): void {
  const handler = async (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> => {
    // Proxies keep this path from their clients, and not every one knows each of its spellings.
    if (!isQuestion(request.url)) throw new StileError("SERVICE_NOT_FOUND", "no such resource");
    if (!proxies.isProxied(request.raw)) {
      throw new StileError("SERVICE_PROXY_UNTRUSTED", "expected one of listen.trustedProxies");
    }
    const host = request.headers[hostHeader];
    const address = proxies.clientAddress(request.raw);
    // nginx turns everything but 2xx, 401 and 403 into 500. A proxy that leaves out what it is to say is
    // not believed the rest.
    const isKnown = typeof host === "string" && hosts.has(normalHost(host));
    if (!isKnown || address === undefined) return reply.code(403).send();
    const decision = await admission.decide({
      host: normalHost(host),
      cookie: request.headers.cookie,
      authorization: request.headers.authorization,
      idempotencyKey: idempotencyKeyOf(request),
      network: networkOf(address),
    });
    const { headers } = request;
    if (decision.kind === "admitted") {
      return sendAdmission(reply.headers(credentialsForUpstream(headers)), decision);
    }
    const asked = page?.({ method: askedMethod(request), headers }, decision.wwwAuthenticate);
    return sendRefusal(reply, decision, { accept: headers.accept, page: asked });
  };
  for (const url of [AUTHORIZE_PATH, `${AUTHORIZE_PATH}/*`]) {
    app.route({
      method: QUESTION_METHODS,
      url,
      schema: { summary: "May this request pass? For other proxies" },
      config: { rateLimit: false },
      handler,
    });
  }
}

function idempotencyKeyOf(request: FastifyRequest): string | undefined {
  const value = request.headers["idempotency-key"];
  return typeof value === "string" ? value : undefined;
}

/** Every header that a proxy is told to copy is on every allowing answer: Caddy leaks stale ones. */
function sendAdmission(reply: FastifyReply, decision: Admitted): FastifyReply {
  if (decision.clearance !== undefined) {
    void reply.header("set-cookie", decision.clearance.setCookie);
  }
  return reply.code(200).header("stile-admission", decision.by).send();
}

/** The method of the request in question, as proxies name it, or as Envoy uses it. */
function askedMethod({ headers, method }: FastifyRequest): string {
  const told = headers["x-forwarded-method"] ?? headers["x-original-method"];
  return typeof told === "string" ? told : method;
}

/** What the proxy hands on to the client: most of them with its body, so a person's browser gets the page. */
function sendRefusal(
  reply: FastifyReply,
  { error, wwwAuthenticate }: Challenged,
  { accept, page }: { accept: string | undefined; page: RenderedPage | undefined },
): FastifyReply {
  const problem = problemOf(error);
  const { body, contentType } = refusalBody(problem, accept, page);
  return reply
    .code(problem.status)
    .headers({ ...problem.headers, "www-authenticate": wwwAuthenticate, ...page?.headers })
    .type(contentType)
    .send(Buffer.from(body));
}

function sendChallenge(reply: FastifyReply, decision: Challenged): FastifyReply {
  return sendProblem(reply, decision.error, { "www-authenticate": decision.wwwAuthenticate });
}
