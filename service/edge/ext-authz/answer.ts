/**
 * Answers Envoy's question with what the client would get here: admitted, with the headers that the application may
 * believe, or the challenge. Whatever fails is a denial that says so, since an error of the call would be answered by
 * Envoy's own setting (failure_mode_allow).
 */
import { isSpoofable } from "../../../tls/index.ts";
import { StileError } from "../../../wire/index.ts";
import type { Log } from "../../log.ts";
import { type Problem, problemOf } from "../../problems.ts";
import type { RenderedPage } from "../../web/page.ts";
import type { Admission, AdmissionDecision, Admitted } from "../admission.ts";
import { credentialsForUpstream } from "../credentials.ts";
import { notedProblem } from "../handler.ts";
import { networkOf, normalHost } from "../host.ts";
import { type PageFor, refusalBody, securityHeaders } from "../refusal.ts";
import {
  type CheckRequest,
  encodeDenied,
  encodeOk,
  type HeaderList,
  readCheckRequest,
  RPC_CODE,
} from "./messages.ts";

export interface AnswerOptions {
  readonly admission: Admission;
  readonly hosts: readonly string[];
  readonly log: Log;
  readonly page?: PageFor;
}

/** From the bytes of a CheckRequest to those of a CheckResponse. @throws `WIRE_…` */
export type Answer = (message: Uint8Array) => Promise<Uint8Array>;

export function createAnswer(options: AnswerOptions): Answer {
  const hosts: ReadonlySet<string> = new Set(options.hosts.map((host) => normalHost(host)));
  return async (message) => {
    const request = readCheckRequest(message);
    try {
      const decision = await decide(options, hosts, request);
      if (decision.kind === "admitted") return encodeOk(admitted(request, decision));
      const { error, wwwAuthenticate } = decision;
      const page = options.page?.(navigation(request), wwwAuthenticate);
      return denied(request, problemOf(error), [["www-authenticate", wwwAuthenticate]], page);
    } catch (error) {
      return denied(request, notedProblem(options.log, error), []);
    }
  };
}

/** @throws `SERVICE_HOST_UNKNOWN`, `SERVICE_REQUEST_INVALID`, and what {@link Admission.decide} does */
function decide(
  { admission }: AnswerOptions,
  hosts: ReadonlySet<string>,
  { headers, host, sourceAddress }: CheckRequest,
): Promise<AdmissionDecision> {
  const asked = normalHost(host);
  if (!hosts.has(asked)) {
    throw new StileError("SERVICE_HOST_UNKNOWN", "this edge does not serve that host");
  }
  const network = networkOf(sourceAddress);
  if (network === undefined) {
    throw new StileError("SERVICE_REQUEST_INVALID", "the client's address is not known");
  }
  return admission.decide({
    host: asked,
    cookie: headers.get("cookie"),
    authorization: headers.get("authorization"),
    idempotencyKey: headers.get("idempotency-key"),
    network,
  });
}

/** What the forwarder does to a request of its own: the same for the application, whoever forwards. */
function admitted(
  { headers, host, sourceAddress = "" }: CheckRequest,
  { by, clearance }: Admitted,
): Parameters<typeof encodeOk>[0] {
  const told: [string, string][] = [
    ["stile-admission", by],
    ["x-forwarded-for", sourceAddress],
    ["x-forwarded-host", host],
    ["x-forwarded-proto", "https"],
  ];
  const names = new Set(told.map(([name]) => name));
  const remove = [...headers.keys()].filter((name) => isSpoofable(name) && !names.has(name));
  const kept = credentialsForUpstream({
    authorization: headers.get("authorization"),
    cookie: headers.get("cookie"),
  });
  for (const name of ["authorization", "cookie"] as const) {
    if (kept[name] !== undefined) told.push([name, kept[name]]);
    else if (headers.has(name)) remove.push(name);
  }
  return {
    headers: told,
    headersToRemove: remove,
    responseHeadersToAdd: clearance === undefined ? [] : [["set-cookie", clearance.setCookie]],
  };
}

function denied(
  request: CheckRequest,
  problem: Problem,
  headers: HeaderList,
  page?: RenderedPage,
): Uint8Array {
  const { body, contentType } = refusalBody(problem, request.headers.get("accept"), page);
  const all = { ...securityHeaders, ...problem.headers, ...Object.fromEntries(headers) };
  const list = Object.entries({ ...all, ...page?.headers, "content-type": contentType });
  return encodeDenied(codeOf(problem.status), { status: problem.status, headers: list, body });
}

function codeOf(status: number): number {
  if (status === 401) return RPC_CODE.unauthenticated;
  return status >= 500 ? RPC_CODE.unavailable : RPC_CODE.permissionDenied;
}

/** What tells a person's browser that opens a page. */
function navigation({ headers, method }: CheckRequest): Parameters<PageFor>[0] {
  const names = ["accept", "accept-language", "sec-fetch-dest", "sec-fetch-mode"] as const;
  const told = names.flatMap((name): [string, string][] => {
    const value = headers.get(name);
    return value === undefined ? [] : [[name, value]];
  });
  return { method, headers: Object.fromEntries(told) };
}
