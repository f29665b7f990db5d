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
import type { Admission, AdmissionDecision, AdmissionRequest } from "./admission.ts";
import { withoutClearanceCookie } from "./clearance.ts";
import { networkOf, normalHost } from "./host.ts";
import { refusalBody, securityHeaders } from "./refusal.ts";

/** Prefixes and paths that Stile answers itself, whatever the host. */
const OWN_PREFIXES = ["/.stile/", "/attest/"] as const;
const OWN_PATHS: ReadonlySet<string> = new Set([
  "/token-request",
  "/.well-known/private-token-issuer-directory",
  "/.well-known/jwks.json",
]);
/** A refused request with a body up to this size keeps its connection; a larger one is not read. */
const MAX_DISCARDED_BYTES = 65_536;

export interface EdgeOptions {
  readonly hosts: readonly string[];
  readonly admission: Admission;
  readonly forwarder: Forwarder;
  /** Fastify's routing: answers Stile's own endpoints. */
  readonly ownEndpoints: (request: IncomingMessage, response: ServerResponse) => void;
  readonly log: Log;
}

export interface EdgeHandler {
  readonly handle: (request: IncomingMessage, response: ServerResponse) => void;
  readonly upgrade: (request: IncomingMessage, socket: Duplex, head: Buffer) => void;
}

export function createEdgeHandler(options: EdgeOptions): EdgeHandler {
  const hosts: ReadonlySet<string> = new Set(options.hosts.map((host) => normalHost(host)));

  function checkedHost(request: IncomingMessage): string {
    checkRequestHead(request);
    const host = normalHost(request.headers.host ?? "");
    if (!hosts.has(host)) {
      throw new StileError("SERVICE_HOST_UNKNOWN", "this edge does not serve that host");
    }
    return host;
  }

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const host = checkedHost(request);
    if (isOwnPath(request.url ?? "/")) {
      options.ownEndpoints(request, response);
      return;
    }
    const decision = await options.admission.decide(admissionRequest(request, host));
    if (decision.kind === "challenged") {
      refuse(request, response, problemOf(decision.error), {
        "www-authenticate": decision.wwwAuthenticate,
      });
      return;
    }
    await options.forwarder.forward(request, response, forwardedHeaders(request, decision));
  }

  async function upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const host = checkedHost(request);
    const decision = await options.admission.decide(admissionRequest(request, host));
    if (decision.kind === "challenged") {
      refuseUpgrade(socket, problemOf(decision.error), decision.wwwAuthenticate);
      return;
    }
    await options.forwarder.upgrade(request, socket, head, forwardedHeaders(request, decision));
  }

  return {
    handle: (request, response) => {
      handle(request, response).catch((error: unknown) => {
        const problem = problemOf(error);
        if (problem.status >= 500) options.log.write("warn", "edge.failed", errorFields(error));
        refuse(request, response, problem, {});
      });
    },
    upgrade: (request, socket, head) => {
      upgrade(request, socket, head).catch((error: unknown) => {
        const problem = problemOf(error);
        if (problem.status >= 500) options.log.write("warn", "edge.failed", errorFields(error));
        refuseUpgrade(socket, problem, undefined);
      });
    },
  };
}

function isOwnPath(url: string): boolean {
  const query = url.indexOf("?");
  const path = query < 0 ? url : url.slice(0, query);
  return OWN_PATHS.has(path) || OWN_PREFIXES.some((prefix) => path.startsWith(prefix));
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
  const responseHeaders: [string, string][] =
    decision.clearance === undefined ? [] : [["Set-Cookie", decision.clearance.setCookie]];
  return { removeRequestHeaders: remove, requestHeaders, responseHeaders };
}

function refuse(
  request: IncomingMessage,
  response: ServerResponse,
  problem: Problem,
  headers: Readonly<Record<string, string>>,
): void {
  if (response.headersSent) {
    // Part of the answer is out: only cutting the connection tells the client that it is not whole.
    request.socket.destroy();
    return;
  }
  const { contentType, body } = refusalBody(problem, request.headers.accept);
  const keep = isSmallBody(request) && problem.status !== 400;
  response.writeHead(problem.status, {
    ...securityHeaders,
    ...problem.headers,
    ...headers,
    "content-type": contentType,
    "content-length": Buffer.byteLength(body),
    ...(keep ? {} : { connection: "close" }),
  });
  response.end(request.method === "HEAD" ? undefined : body);
}

function isSmallBody(request: IncomingMessage): boolean {
  if (request.headers["transfer-encoding"] !== undefined) return false;
  return Number(request.headers["content-length"] ?? "0") <= MAX_DISCARDED_BYTES;
}

function refuseUpgrade(
  socket: Duplex,
  problem: Problem,
  wwwAuthenticate: string | undefined,
): void {
  if (socket.destroyed) return;
  const { contentType, body } = refusalBody(problem, undefined);
  const lines = [
    `HTTP/1.1 ${problem.status} ${problem.body.title.replaceAll(/[^\x20-\x7e]/g, "")}`,
    `content-type: ${contentType}`,
    `content-length: ${Buffer.byteLength(body)}`,
    "cache-control: no-store",
    "connection: close",
    ...(wwwAuthenticate === undefined ? [] : [`www-authenticate: ${wwwAuthenticate}`]),
  ];
  socket.end(`${lines.join("\r\n")}\r\n\r\n${body}`);
}
