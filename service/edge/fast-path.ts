/**
 * The edge in front of the fast path (tls/splice): the same decisions and answers as the handler's, for requests
 * that are plainly for the upstream. It leaves to the handler other hosts, our own endpoints, preflights and
 * what comes through a proxy.
 */
import { STATUS_CODES } from "node:http";
import type {
  FastDecision,
  FastPath,
  FastPathOptions,
  Forwarder,
  ForwardExtra,
  LocalAnswer,
  RequestHead,
} from "../../tls/index.ts";
import type { Clients } from "../client-certificates.ts";
import type { Log } from "../log.ts";
import { type Problem, problemOf } from "../problems.ts";
import type { RenderedPage } from "../web/page.ts";
import type { Adaptive } from "./adaptive/adaptive.ts";
import type { AdmissionDecision, AdmissionRequest, Admitted, Challenged } from "./admission.ts";
import type { Cors } from "./cors.ts";
import type { Gate } from "./gate.ts";
import { notedProblem } from "./handler.ts";
import { normalHost } from "./host.ts";
import { type PageFor, refusalBody, securityHeaders } from "./refusal.ts";
import {
  admissionRequest,
  factsOfHead,
  forwardedHeaders,
  isBodyless,
  isOwnPath,
  judgedRequest,
  type RequestFacts,
} from "./request-facts.ts";
import type { Agents } from "./signatures/agents.ts";
import type { TrustedProxies } from "./trusted-proxies.ts";

export interface EdgeFastPathOptions {
  readonly hosts: readonly string[];
  readonly gate: Gate;
  readonly cors: Cors;
  readonly forwarder: Forwarder;
  readonly log: Log;
  readonly proxies: TrustedProxies;
  readonly clock: () => number;
  readonly adaptive?: Adaptive;
  readonly page?: PageFor;
  readonly agents?: Agents;
  readonly clients?: Clients | undefined;
}

type HeaderList = ForwardExtra["responseHeaders"];

const OTHER = { kind: "other" } as const;

export function createEdgeFastPath(options: EdgeFastPathOptions): FastPath {
  const hosts: ReadonlySet<string> = new Set(options.hosts.map((host) => normalHost(host)));

  const decide: FastPathOptions["decide"] = (head, socket) => {
    const { remoteAddress } = socket;
    // What a proxy says of its client takes the general path to read.
    if (options.proxies.isTrusted(remoteAddress)) return OTHER;
    // Nearly all spell it in its normal form.
    const host = hosts.has(head.host) ? head.host : normalHost(head.host);
    // Preflights are among the requests for OPTIONS.
    if (!hosts.has(host) || head.method === "OPTIONS" || isOwnPath(head.target)) return OTHER;
    const refused = (error: unknown): FastDecision => ({
      kind: "answer",
      answer: refusal(error, head, []),
    });
    try {
      const client = options.clients?.knownClient(host, socket);
      const facts = factsOfHead(head, socket, { clientAddress: remoteAddress, client });
      const request = (): AdmissionRequest => admissionRequest(facts, host);
      const decision = options.gate(judgedRequest(facts, host, options.agents), request);
      const act = (made: AdmissionDecision): FastDecision =>
        made.kind === "challenged"
          ? { kind: "answer", answer: challenge(options, head, made) }
          : { kind: "forward", extra: admitted(options, facts, host, made) };
      return decision instanceof Promise ? decision.then(act).catch(refused) : act(decision);
    } catch (error) {
      return refused(error);
    }
  };

  const refusal = (error: unknown, head: RequestHead, added: HeaderList): LocalAnswer =>
    answerOf(options, head, notedProblem(options.log, error), added);

  return options.forwarder.fastPath({
    decide,
    refusal: (error, head, extra) => refusal(error, head, extra.responseHeaders),
    clock: options.clock,
  });
}

function admitted(
  { adaptive }: EdgeFastPathOptions,
  facts: RequestFacts,
  host: string,
  decision: Admitted,
): ForwardExtra {
  const onOutcome = adaptive?.watchAnswer(host, isBodyless(facts));
  return { ...forwardedHeaders(facts, decision), onOutcome };
}

function challenge(
  options: EdgeFastPathOptions,
  head: RequestHead,
  { error, wwwAuthenticate }: Challenged,
): LocalAnswer {
  const headers = Object.fromEntries(head.fields);
  const page = options.page?.({ headers, method: head.method }, wwwAuthenticate);
  const added: HeaderList = [["www-authenticate", wwwAuthenticate]];
  return answerOf(options, head, problemOf(error), added, page);
}

function answerOf(
  { cors }: EdgeFastPathOptions,
  { fields }: RequestHead,
  problem: Problem,
  added: HeaderList,
  page?: RenderedPage,
): LocalAnswer {
  const { body, contentType } = refusalBody(problem, fields.get("accept"), page);
  const headers = {
    ...securityHeaders,
    ...problem.headers,
    ...cors.headersFor({ headers: { origin: fields.get("origin") } }),
    ...page?.headers,
    "content-type": contentType,
  };
  return {
    status: problem.status,
    reason: STATUS_CODES[problem.status] ?? "",
    headers: [...Object.entries(headers), ...added],
    body,
    // As the handler does: what was malformed is nothing to go on behind.
    isLast: problem.status === 400,
  };
}
