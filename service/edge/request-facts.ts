/** What is decided from, of a request: the same for one of node:http and for one of the fast path. */
import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { type ForwardExtra, type RequestHead, tlsExporter } from "../../tls/index.ts";
import type { KnownClient } from "../client-certificates.ts";
import type { AdmissionRequest, Admitted } from "./admission.ts";
import { credentialsForUpstream } from "./credentials.ts";
import { networkOf } from "./host.ts";
import type { JudgedRequest } from "./rules.ts";
import type { Agents } from "./signatures/agents.ts";
import type { TrustedProxies } from "./trusted-proxies.ts";

export interface RequestFacts {
  readonly method: string;
  readonly target: string;
  /** The value of a header, by its name in lower case. */
  readonly field: (name: string) => string | undefined;
  /** Every line of a header in order, by its name in lower case. */
  readonly lines: (name: string) => readonly string[];
  readonly socket: Socket;
  /** Of a certificate that was verified for the request's host. */
  readonly client?: KnownClient | undefined;
  /** As {@link TrustedProxies} tells it. */
  readonly clientAddress: string | undefined;
  /** Clients share a proxy's connection: it says nothing about any of them. */
  readonly isProxied: boolean;
}

/** Prefixes and paths that Stile answers itself, whatever the host. */
const OWN_PREFIXES = ["/.stile/", "/attest/"] as const;
const OWN_PATHS: ReadonlySet<string> = new Set([
  "/token-request",
  "/.well-known/private-token-issuer-directory",
  "/.well-known/jwks.json",
]);
/** Headers that some frameworks take another method from: a rule for GET must not let in a DELETE. */
const METHOD_OVERRIDES = ["x-http-method-override", "x-http-method", "x-method-override"] as const;

export function factsOf(request: IncomingMessage, proxies: TrustedProxies): RequestFacts {
  const { headers, method = "", socket, url = "" } = request;
  const field = (name: string): string | undefined => {
    const value = headers[name];
    return typeof value === "string" ? value : undefined;
  };
  const clientAddress = proxies.clientAddress(request);
  return {
    method,
    target: url,
    field,
    lines: (name) => linesOf(request.rawHeaders, name),
    socket,
    clientAddress,
    isProxied: proxies.isProxied(request),
  };
}

/** Of a client that is connected itself. */
export function factsOfHead(
  { fields, method, rawHeaders, target }: RequestHead,
  socket: Socket,
  of: Pick<RequestFacts, "client" | "clientAddress">,
): RequestFacts {
  return {
    method,
    target,
    field: (name) => fields.get(name),
    lines: (name) => linesOf(rawHeaders, name),
    socket,
    client: of.client,
    clientAddress: of.clientAddress,
    isProxied: false,
  };
}

function linesOf(rawHeaders: readonly string[], name: string): string[] {
  return rawHeaders.filter((_, i) => i % 2 === 1 && rawHeaders[i - 1]?.toLowerCase() === name);
}

/** Nothing of the request is still to come once its head is there. */
export function isBodyless({ field }: RequestFacts): boolean {
  return field("transfer-encoding") === undefined && Number(field("content-length") ?? 0) === 0;
}

export function isOwnPath(target: string): boolean {
  const query = target.indexOf("?");
  const path = query < 0 ? target : target.slice(0, query);
  return OWN_PATHS.has(path) || OWN_PREFIXES.some((prefix) => path.startsWith(prefix));
}

/** @param agents without them, the request counts as unsigned */
export function judgedRequest(facts: RequestFacts, host: string, agents?: Agents): JudgedRequest {
  const { lines, method, target } = facts;
  return {
    host,
    method: facts.method,
    target: facts.target,
    remoteAddress: facts.clientAddress,
    isMethodOverridden: METHOD_OVERRIDES.some((name) => facts.field(name) !== undefined),
    client: facts.client?.rule,
    signature: agents?.signatureOf({ authority: host, method, target, lines }),
  };
}

export function admissionRequest(facts: RequestFacts, host: string): AdmissionRequest {
  return new RequestOfFacts(facts, host);
}

/** What a clearance makes needless is worked out only where it is asked for. */
class RequestOfFacts implements AdmissionRequest {
  readonly #facts: RequestFacts;
  readonly host: string;

  constructor(facts: RequestFacts, host: string) {
    this.#facts = facts;
    this.host = host;
  }

  get cookie(): string | undefined {
    return this.#facts.field("cookie");
  }

  get authorization(): string | undefined {
    return this.#facts.field("authorization");
  }

  get idempotencyKey(): string | undefined {
    return this.#facts.field("idempotency-key");
  }

  get tlsExporter(): Uint8Array | undefined {
    const { isProxied, socket } = this.#facts;
    return !isProxied && socket instanceof TLSSocket ? tlsExporter(socket) : undefined;
  }

  get network(): string | undefined {
    return networkOf(this.#facts.clientAddress);
  }
}

/**
 * What the upstream sees of the admission: how, never with what. The token and the clearance are taken
 * out; another scheme's Authorization goes through, since it is the application's own.
 */
export function forwardedHeaders(facts: RequestFacts, decision: Admitted): ForwardExtra {
  const { clientAddress, field } = facts;
  const remove: string[] = [];
  const requestHeaders: [string, string][] = [["Stile-Admission", decision.by]];
  for (const [name, value] of facts.client?.headers ?? []) requestHeaders.push([name, value]);
  if (decision.agent !== undefined) requestHeaders.push(["Stile-Agent", decision.agent]);
  const sent = { authorization: field("authorization"), cookie: field("cookie") };
  const kept = credentialsForUpstream(sent);
  if (sent.cookie !== undefined) {
    remove.push("cookie");
    if (kept.cookie !== undefined) requestHeaders.push(["Cookie", kept.cookie]);
  }
  if (kept.authorization !== sent.authorization) {
    remove.push("authorization");
    if (kept.authorization !== undefined)
      requestHeaders.push(["Authorization", kept.authorization]);
  }
  const responseHeaders = Object.entries(clearanceHeaders(decision));
  return { removeRequestHeaders: remove, requestHeaders, responseHeaders, clientAddress };
}

export function clearanceHeaders(decision: Admitted): Record<string, string> {
  return decision.clearance === undefined ? {} : { "Set-Cookie": decision.clearance.setCookie };
}
