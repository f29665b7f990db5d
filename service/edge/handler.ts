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
import { credentialsForUpstream } from "./credentials.ts";
import type { Cors } from "./cors.ts";
import type { Gate } from "./gate.ts";
import { networkOf, normalHost } from "./host.ts";
import { isQuestion } from "./question.ts";
import { type PageFor, refuse, refuseUpgrade } from "./refusal.ts";
import type { JudgedRequest } from "./rules.ts";
import type { TrustedProxies } from "./trusted-proxies.ts";

/** Prefixes and paths that Stile answers itself, whatever the host. */
const OWN_PREFIXES = ["/.stile/", "/attest/"] as const;
const OWN_PATHS: ReadonlySet<string> = new Set([
  "/token-request",
  "/.well-known/private-token-issuer-directory",
  "/.well-known/jwks.json",
]);

type Admitted = Extract<AdmissionDecision, { kind: "admitted" }>;
type Challenged = Extract<AdmissionDecision, { kind: "challenged" }>;
type ForwardExtra = Parameters<Forwarder["forward"]>[2];

export interface EdgeOptions {
  readonly hosts: readonly string[];
  /** Rules, then clearance, then token, then challenge. */
  readonly gate: Gate;
  readonly forwarder: Forwarder;
  /** Fastify's routing: answers Stile's own endpoints. */
  readonly ownEndpoints: (request: IncomingMessage, response: ServerResponse) => void;
  readonly log: Log;
  readonly proxies: TrustedProxies;
  readonly cors: Cors;
  readonly page?: PageFor;
}

export interface EdgeHandler {
  readonly handle: (request: IncomingMessage, response: ServerResponse) => void;
  readonly upgrade: (request: IncomingMessage, socket: Duplex, head: Buffer) => void;
}

export function createEdgeHandler(options: EdgeOptions): EdgeHandler {
  const checkedHost = createHostCheck(options.hosts);

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    // Not every proxy asks with the host that it asks about (Traefik): the question names it in a header.
    if (isQuestion(request.url ?? "/") && options.proxies.isProxied(request)) {
      checkRequestHead(request);
      return options.ownEndpoints(request, response);
    }
    const host = checkedHost(request);
    if (options.cors.answerPreflight(request, response)) return;
    const cors = options.cors.headersFor(request);
    if (isOwnPath(request.url ?? "/")) {
      return options.ownEndpoints(request, response.setHeaders(new Map(Object.entries(cors))));
    }
    const decision = await askGate(options, request, host);
    if (decision.kind === "challenged") {
      challenge(options, request, response, { decision, cors });
      return;
    }
    try {
      await options.forwarder.forward(request, response, forwardExtra(options, request, decision));
    } catch (error) {
      // The token is spent whatever became of the request: the client is not to pay again.
      refuse(request, response, noted(error), { ...cors, ...clearanceHeaders(decision) });
    }
  }

  async function upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const host = checkedHost(request);
    const decision = await askGate(options, request, host);
    if (decision.kind === "challenged") {
      const headers = { "www-authenticate": decision.wwwAuthenticate };
      refuseUpgrade(socket, problemOf(decision.error), headers);
      return;
    }
    try {
      const extra = forwardExtra(options, request, decision);
      await options.forwarder.upgrade(request, socket, head, extra);
    } catch (error) {
      refuseUpgrade(socket, noted(error), clearanceHeaders(decision));
    }
  }

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

function askGate(
  { gate, proxies }: EdgeOptions,
  request: IncomingMessage,
  host: string,
): Promise<AdmissionDecision> {
  const address = proxies.clientAddress(request);
  // Clients share a proxy's connection: it says nothing about any of them.
  const isProxied = proxies.isProxied(request);
  return gate(judgedRequest(request, host, address), () =>
    admissionRequest(request, host, { address, isProxied }),
  );
}

function forwardExtra(
  { proxies }: EdgeOptions,
  request: IncomingMessage,
  decision: Admitted,
): ForwardExtra {
  const clientAddress = proxies.clientAddress(request);
  return { ...forwardedHeaders(request, decision), clientAddress };
}

function challenge(
  options: EdgeOptions,
  request: IncomingMessage,
  response: ServerResponse,
  { cors, decision }: { cors: Readonly<Record<string, string>>; decision: Challenged },
): void {
  const { error, wwwAuthenticate } = decision;
  const headers = { ...cors, "www-authenticate": wwwAuthenticate };
  refuse(request, response, problemOf(error), headers, options.page?.(request, wwwAuthenticate));
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

function judgedRequest(
  request: IncomingMessage,
  host: string,
  remoteAddress: string | undefined,
): JudgedRequest {
  return {
    host,
    method: request.method ?? "",
    target: request.url ?? "",
    remoteAddress,
    isMethodOverridden: METHOD_OVERRIDES.some((name) => request.headers[name] !== undefined),
  };
}

function admissionRequest(
  request: IncomingMessage,
  host: string,
  client: { readonly address: string | undefined; readonly isProxied: boolean },
): AdmissionRequest {
  const idempotencyKey = request.headers["idempotency-key"];
  return {
    host,
    cookie: request.headers.cookie,
    authorization: request.headers.authorization,
    idempotencyKey: typeof idempotencyKey === "string" ? idempotencyKey : undefined,
    tlsExporter:
      !client.isProxied && request.socket instanceof TLSSocket
        ? tlsExporter(request.socket)
        : undefined,
    network: networkOf(client.address),
  };
}

/**
 * What the upstream sees of the admission: how, never with what. The token and the clearance are taken
 * out; another scheme's Authorization goes through, since it is the application's own.
 */
function forwardedHeaders(request: IncomingMessage, decision: Admitted): ForwardExtra {
  const remove: string[] = [];
  const requestHeaders: [string, string][] = [["Stile-Admission", decision.by]];
  const kept = credentialsForUpstream(request.headers);
  if (request.headers.cookie !== undefined) {
    remove.push("cookie");
    if (kept.cookie !== undefined) requestHeaders.push(["Cookie", kept.cookie]);
  }
  if (kept.authorization === undefined) remove.push("authorization");
  const responseHeaders = Object.entries(clearanceHeaders(decision));
  return { removeRequestHeaders: remove, requestHeaders, responseHeaders };
}

function clearanceHeaders(decision: Admitted): Record<string, string> {
  return decision.clearance === undefined ? {} : { "Set-Cookie": decision.clearance.setCookie };
}
