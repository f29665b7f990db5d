/**
 * The data path: every request of the public listener comes through here. Stile's own endpoints go to
 * Fastify, everything else is admitted or challenged and then forwarded without Fastify in between.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import {
  checkRequestHead,
  checkUpgradeRequest,
  type FastPath,
  type Forwarder,
} from "../../tls/index.ts";
import { StileError } from "../../wire/index.ts";
import type { Clients } from "../client-certificates.ts";
import { errorFields, type Log } from "../log.ts";
import { type Problem, problemOf } from "../problems.ts";
import type { Adaptive } from "./adaptive/adaptive.ts";
import type { AdmissionDecision, Challenged } from "./admission.ts";
import type { Cors } from "./cors.ts";
import type { Gate } from "./gate.ts";
import { normalHost } from "./host.ts";
import { isQuestion } from "./question.ts";
import { type PageFor, refuse, refuseUpgrade } from "./refusal.ts";
import {
  admissionRequest,
  clearanceHeaders,
  factsOf,
  forwardedHeaders,
  isBodyless,
  isOwnPath,
  judgedRequest,
  type RequestFacts,
} from "./request-facts.ts";
import type { Agents } from "./signatures/agents.ts";
import type { TrustedProxies } from "./trusted-proxies.ts";

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
  readonly adaptive?: Adaptive;
  readonly agents?: Agents;
  readonly clients?: Clients | undefined;
  readonly page?: PageFor;
}

export interface EdgeHandler {
  readonly handle: (request: IncomingMessage, response: ServerResponse) => void;
  readonly upgrade: (request: IncomingMessage, socket: Duplex, head: Buffer) => void;
  /** For requests that are plainly to be forwarded, where there is such a path. */
  readonly fastPath?: FastPath;
}

export function createEdgeHandler(options: EdgeOptions): EdgeHandler {
  const checkedHost = createHostCheck(options);

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
    const facts = knownFacts(options, request, host);
    const decision = await askGate(options, facts, host);
    if (decision.kind === "challenged") {
      return challenge(options, request, response, { decision, cors });
    }
    try {
      const onOutcome = options.adaptive?.watchAnswer(host, isBodyless(facts));
      const extra = { ...forwardedHeaders(facts, decision), onOutcome };
      await options.forwarder.forward(request, response, extra);
    } catch (error) {
      // The token is spent whatever became of the request: the client is not to pay again.
      refuse(request, response, noted(error), { ...cors, ...clearanceHeaders(decision) });
    }
  }

  async function upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const host = checkedHost(request);
    checkUpgradeRequest(request);
    const facts = knownFacts(options, request, host);
    const decision = await askGate(options, facts, host);
    if (decision.kind === "challenged") return challengeUpgrade(socket, decision);
    try {
      const onOutcome = options.adaptive?.watchAnswer(host, false);
      const extra = { ...forwardedHeaders(facts, decision), onOutcome };
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

function knownFacts(
  { clients, proxies }: EdgeOptions,
  request: IncomingMessage,
  host: string,
): RequestFacts {
  const client = clients?.knownClient(host, request.socket);
  return { ...factsOf(request, proxies), client };
}

async function askGate(
  { agents, gate }: EdgeOptions,
  facts: RequestFacts,
  host: string,
): Promise<AdmissionDecision> {
  return gate(judgedRequest(facts, host, agents), () => admissionRequest(facts, host));
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

function challengeUpgrade(socket: Duplex, { error, wwwAuthenticate }: Challenged): void {
  refuseUpgrade(socket, problemOf(error), { "www-authenticate": wwwAuthenticate });
}

/** The host of a request whose head is sound, and whose connection may be used for it. */
function createHostCheck(options: EdgeOptions): (request: IncomingMessage) => string {
  const hosts: ReadonlySet<string> = new Set(options.hosts.map((host) => normalHost(host)));
  return (request) => {
    checkRequestHead(request);
    const host = normalHost(request.headers.host ?? "");
    if (!hosts.has(host)) {
      throw new StileError("SERVICE_HOST_UNKNOWN", "this edge does not serve that host");
    }
    options.clients?.knownClient(host, request.socket);
    return host;
  };
}

/** What is our fault or the upstream's is logged. */
export function notedProblem(log: Log, error: unknown): Problem {
  const problem = problemOf(error);
  if (problem.status >= 500) log.write("warn", "edge.failed", errorFields(error));
  return problem;
}
