/**
 * Before admission: the rules of the configuration, and the mode. A rule may open or block a request; what
 * is left is admitted by clearance or token, or challenged. In the mode `monitor` what would be challenged
 * is forwarded and counted. What rules block or cannot judge is refused in both modes.
 */
import { isStileError, StileError } from "../../wire/index.ts";
import type { EdgeMode } from "../config/index.ts";
import type { Metrics } from "../metrics.ts";
import type { Admission, AdmissionDecision, AdmissionRequest } from "./admission.ts";
import type { EdgeRules, JudgedRequest } from "./rules.ts";

export interface GateOptions {
  readonly rules: EdgeRules;
  readonly mode: EdgeMode;
  readonly admission: Admission;
  readonly metrics: Metrics;
}

/**
 * @param request read only where a token or a clearance decides
 * @throws `SERVICE_REQUEST_BLOCKED`, `SERVICE_PATH_AMBIGUOUS`, and as `Admission.decide`
 */
export type Gate = (
  judged: JudgedRequest,
  request: () => AdmissionRequest,
) => Promise<AdmissionDecision>;

/**
 * The gate for the fast path: whom a rule or a clearance admits. Undefined for everything else, and then
 * nothing was counted or spent: the request can be decided anew.
 */
export type FastGate = (
  judged: JudgedRequest,
  cookie: string | undefined,
) => Promise<Extract<AdmissionDecision, { kind: "admitted" }> | undefined>;

export function createFastGate({ admission, metrics, rules }: Omit<GateOptions, "mode">): FastGate {
  return async (judged, cookie) => {
    const { action, rule } = rules.judge(judged);
    // A clearance admits in both modes.
    if (action === "token") return admission.byClearance({ host: judged.host, cookie });
    if (action !== "open") return undefined;
    metrics.ruleVerdicts.inc({ rule, verdict: action });
    metrics.admissions.inc({ by: "open" });
    return { kind: "admitted", by: "open" };
  };
}

export function createGate({ admission, metrics, mode, rules }: GateOptions): Gate {
  async function monitored(rule: string, request: AdmissionRequest): Promise<AdmissionDecision> {
    const decision = await decideOrNot(request);
    if (decision?.kind === "admitted") return decision;
    metrics.ruleVerdicts.inc({ rule, verdict: "monitor" });
    metrics.admissions.inc({ by: "monitor" });
    return { kind: "admitted", by: "monitor" };
  }

  /** Who sends no token passes in this mode: to refuse who sent one, since a store is down, protects nothing. */
  async function decideOrNot(request: AdmissionRequest): Promise<AdmissionDecision | undefined> {
    try {
      return await admission.decide(request);
    } catch (error) {
      if (isStileError(error)) return undefined;
      throw error;
    }
  }

  return async (judged, request) => {
    const { action, rule } = rules.judge(judged);
    if (action === "token") {
      return mode === "monitor" ? monitored(rule, request()) : admission.decide(request());
    }
    metrics.ruleVerdicts.inc({ rule, verdict: action });
    if (action !== "open") throw refusalOf(action);
    metrics.admissions.inc({ by: "open" });
    return { kind: "admitted", by: "open" };
  };
}

function refusalOf(action: "block" | "ambiguous"): StileError {
  return action === "block"
    ? new StileError("SERVICE_REQUEST_BLOCKED", "this request is blocked here")
    : new StileError("SERVICE_PATH_AMBIGUOUS", "the request can be read in several ways");
}
