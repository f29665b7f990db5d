/**
 * The data path: every request of the public listener comes through here. Stile's own endpoints go to
 * Fastify, everything else is admitted or challenged and then forwarded without Fastify in between.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { TLSSocket } from "node:tls";
import { checkRequestHead, type Forwarder, tlsExporter } from "../../tls/index.ts";
import { StileError } from "../../wire/index.ts";
import { errorFields, type Log } from "../log.ts";
import { type Problem, problemOf } from "../problems.ts";
import type { AdmissionDecision, AdmissionRequest } from "./admission.ts";
import { withoutClearanceCookie } from "./clearance.ts";
import type { Cors } from "./cors.ts";
import type { Gate } from "./gate.ts";
import { networkOf, normalHost } from "./host.ts";
import type { RenderedPage } from "../web/page.ts";
import { refuse, refuseUpgrade } from "./refusal.ts";
import type { JudgedRequest } from "./rules.ts";

/** Prefixes and paths that Stile answers itself, whatever the host. */
const OWN_PREFIXES = ["/.stile/", "/attest/"] as const;
const OWN_PATHS: ReadonlySet<string> = new Set([
  "/token-request",
  "/.well-known/private-token-issuer-directory",
  "/.well-known/jwks.json",
]);

export interface EdgeOptions {
  readonly hosts: readonly string[];
  /** Rules, then clearance, then token, then challenge. */
  readonly gate: Gate;
  readonly forwarder: Forwarder;
  /** Fastify's routing: answers Stile's own endpoints. */
  readonly ownEndpoints: (request: IncomingMessage, response: ServerResponse) => void;
  readonly log: Log;
  readonly cors: Cors;
  /** What a person's browser gets with a challenge; undefined for a request that is not one's. */
  readonly page?: (request: IncomingMessage, wwwAuthenticate: string) => RenderedPage | undefined;
}

export interface EdgeHandler {
  readonly handle: (request: IncomingMessage, response: ServerResponse) => void;
  readonly upgrade: (request: IncomingMessage, socket: Duplex, head: Buffer) => void;
}

export function createEdgeHandler(options: EdgeOptions): EdgeHandler {
  const checkedHost = createHostCheck(options.hosts);

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const host = checkedHost(request);
    if (options.cors.answerPreflight(request, response)) return;
    const cors = options.cors.headersFor(request);
    if (isOwnPath(request.url ?? "/")) {
      return options.ownEndpoints(request, response.setHeaders(new Map(Object.entries(cors))));
    }
    const decision = await decide(request, host);
    if (decision.kind === "challenged") {
      const { error, wwwAuthenticate } = decision;
      const challenge = { ...cors, "www-authenticate": wwwAuthenticate };
      const page = options.page?.(request, wwwAuthenticate);
      refuse(request, response, problemOf(error), challenge, page);
      return;
    }
    try {
      await options.forwarder.forward(request, response, forwardedHeaders(request, decision));
    } catch (error) {
      // The token is spent whatever became of the request: the client is not to pay again.
      refuse(request, response, noted(error), { ...cors, ...clearanceHeaders(decision) });
    }
  }

  async function upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const host = checkedHost(request);
    const decision = await decide(request, host);
    if (decision.kind === "challenged") {
      const challenge = { "www-authenticate": decision.wwwAuthenticate };
      refuseUpgrade(socket, problemOf(decision.error), challenge);
      return;
    }
    try {
      await options.forwarder.upgrade(request, socket, head, forwardedHeaders(request, decision));
    } catch (error) {
      refuseUpgrade(socket, noted(error), clearanceHeaders(decision));
    }
  }

  const decide = (request: IncomingMessage, host: string): Promise<AdmissionDecision> =>
    options.gate(judgedRequest(request, host), () => admissionRequest(request, host));

  const noted = (error: unknown): Problem => notedProblem(options.log, error);

  return {
    handle: (request, response) => {
      handle(request, response).catch((error: unknown) =>
        refuse(request, response, noted(error), {}),
      );
    },
    upgrade: (request, socket, head) => {
      upgrade(request, socket, head).catch((error: unknown) =>
        refuseUpgrade(socket, noted(error), {}),
      );
    },
  };
}

/** The host of a request whose head is sound. */
function createHostCheck(served: readonly string[]): (request: IncomingMessage) => string {
  const hosts: ReadonlySet<string> = new Set(served.map((host) => normalHost(host)));
  return (request) => {
    checkRequestHead(request);
    const host = normalHost(request.headers.host ?? "");
    if (hosts.has(host)) return host;
    throw new StileError("SERVICE_HOST_UNKNOWN", "this edge does not serve that host");
  };
}

/** What is our fault or the upstream's is logged. */
function notedProblem(log: Log, error: unknown): Problem {
  const problem = problemOf(error);
  if (problem.status >= 500) log.write("warn", "edge.failed", errorFields(error));
  return problem;
}

function isOwnPath(url: string): boolean {
  const query = url.indexOf("?");
  const path = query < 0 ? url : url.slice(0, query);
  return OWN_PATHS.has(path) || OWN_PREFIXES.some((prefix) => path.startsWith(prefix));
}

/** Headers that some frameworks take another method from: a rule for GET must not let in a DELETE. */
const METHOD_OVERRIDES = ["x-http-method-override", "x-http-method", "x-method-override"] as const;

function judgedRequest(request: IncomingMessage, host: string): JudgedRequest {
  return {
    host,
    method: request.method ?? "",
    target: request.url ?? "",
    remoteAddress: request.socket.remoteAddress,
    isMethodOverridden: METHOD_OVERRIDES.some((name) => request.headers[name] !== undefined),
  };
}

function admissionRequest(request: IncomingMessage, host: string): AdmissionRequest {
  const idempotencyKey = request.headers["idempotency-key"];
  return {
    host,
    cookie: request.headers.cookie,
    authorization: request.headers.authorization,
    idempotencyKey: typeof idempotencyKey === "string" ? idempotencyKey : undefined,
    tlsExporter: request.socket instanceof TLSSocket ? tlsExporter(request.socket) : undefined,
    network: networkOf(request.socket.remoteAddress),
  };
}

/**
 * What the upstream sees of the admission: how, never with what. The token and the clearance are taken
 * out; another scheme's Authorization goes through, since it is the application's own.
 */
function forwardedHeaders(
  request: IncomingMessage,
  decision: Extract<AdmissionDecision, { kind: "admitted" }>,
): Parameters<Forwarder["forward"]>[2] {
  const remove: string[] = [];
  const requestHeaders: [string, string][] = [["Stile-Admission", decision.by]];
  const { cookie, authorization } = request.headers;
  if (cookie !== undefined) {
    const kept = withoutClearanceCookie(cookie);
    remove.push("cookie");
    if (kept !== undefined) requestHeaders.push(["Cookie", kept]);
  }
  if (authorization !== undefined && /^privatetoken\b/i.test(authorization.trimStart())) {
    remove.push("authorization");
  }
  const responseHeaders = Object.entries(clearanceHeaders(decision));
  return { removeRequestHeaders: remove, requestHeaders, responseHeaders };
}

function clearanceHeaders(
  decision: Extract<AdmissionDecision, { kind: "admitted" }>,
): Record<string, string> {
  return decision.clearance === undefined ? {} : { "Set-Cookie": decision.clearance.setCookie };
}
