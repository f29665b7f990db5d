/**
 * The edge in front of the fast path (tls/splice): forwards there what a rule opens or a clearance admits, and
 * leaves everything else to the handler: other hosts, our own endpoints, preflights, tokens, challenges. What it
 * answers itself, where the upstream fails, reads as the handler's.
 */
import { STATUS_CODES } from "node:http";
import type { FastPath, FastPathOptions, Forwarder } from "../../tls/index.ts";
import type { Log } from "../log.ts";
import type { Adaptive } from "./adaptive/adaptive.ts";
import type { Cors } from "./cors.ts";
import type { FastGate } from "./gate.ts";
import { notedProblem } from "./handler.ts";
import { normalHost } from "./host.ts";
import { refusalBody, securityHeaders } from "./refusal.ts";
import {
  factsOfHead,
  forwardedHeaders,
  isBodyless,
  isOwnPath,
  judgedRequest,
} from "./request-facts.ts";
import type { TrustedProxies } from "./trusted-proxies.ts";

export interface EdgeFastPathOptions {
  readonly hosts: readonly string[];
  readonly gate: FastGate;
  readonly cors: Cors;
  readonly forwarder: Forwarder;
  readonly log: Log;
  readonly proxies: TrustedProxies;
  readonly clock: () => number;
  readonly adaptive?: Adaptive;
}

const OTHER = { kind: "other" } as const;

export function createEdgeFastPath(options: EdgeFastPathOptions): FastPath {
  const hosts: ReadonlySet<string> = new Set(options.hosts.map((host) => normalHost(host)));

  const decide: FastPathOptions["decide"] = async (head, socket) => {
    // What a proxy says of its client takes the general path to read.
    if (options.proxies.isTrusted(socket.remoteAddress)) return OTHER;
    const host = normalHost(head.host);
    // Preflights are among the requests for OPTIONS.
    if (!hosts.has(host) || head.method === "OPTIONS" || isOwnPath(head.target)) return OTHER;
    const facts = factsOfHead(head, socket);
    const sent = { authorization: facts.field("authorization"), cookie: facts.field("cookie") };
    const admitted = await options.gate(judgedRequest(facts, host), sent);
    if (admitted === undefined) return OTHER;
    const extra = forwardedHeaders(facts, admitted);
    const onOutcome = options.adaptive?.watchAnswer(host, isBodyless(facts));
    return { kind: "forward", extra: onOutcome === undefined ? extra : { ...extra, onOutcome } };
  };

  const refusal: FastPathOptions["refusal"] = (error, { fields }, extra) => {
    const problem = notedProblem(options.log, error);
    const { body, contentType } = refusalBody(problem, fields.get("accept"));
    const headers = {
      ...securityHeaders,
      ...problem.headers,
      ...options.cors.headersFor({ headers: { origin: fields.get("origin") } }),
      "content-type": contentType,
    };
    return {
      status: problem.status,
      reason: STATUS_CODES[problem.status] ?? "",
      headers: [...Object.entries(headers), ...extra.responseHeaders],
      body,
    };
  };

  return options.forwarder.fastPath({ decide, refusal, clock: options.clock });
}
