/**
 * Before admission: the rules of the configuration, and the mode. A rule may open or block a request; what
 * is left is admitted by clearance or token, or challenged. In the mode `monitor`, and in `adaptive` while that
 * is open, what would be challenged is forwarded and counted. What rules block or cannot judge is refused in
 * every mode.
 */
import { isStileError, StileError } from "../../wire/index.ts";
import type { EdgeMode } from "../config/index.ts";
import type { AdmittedBy, Metrics } from "../metrics.ts";
import type { Adaptive } from "./adaptive/adaptive.ts";
import type { Admission, AdmissionDecision, AdmissionRequest, Admitted } from "./admission.ts";
import type { EdgeRules, JudgedRequest, Verdict } from "./rules.ts";
import type { RequestSignature } from "./signatures/agents.ts";

export interface GateOptions {
  readonly rules: EdgeRules;
  readonly mode: EdgeMode;
  /** Of the mode adaptive; without it, that mode challenges. */
  readonly adaptive?: Adaptive | undefined;
  readonly admission: Admission;
  readonly metrics: Metrics;
}

/**
 * Decides at once where no token is looked at, and no clearance that was not seen before.
 * @param request asked for only where a token or a clearance decides
 * @throws `SERVICE_REQUEST_BLOCKED`, `SERVICE_PATH_AMBIGUOUS`, `SERVICE_OVERLOADED`, and as `Admission.decide`
 */
export type Gate = (
  judged: JudgedRequest,
  request: () => AdmissionRequest,
) => AdmissionDecision | Promise<AdmissionDecision>;

type Unproven = Extract<AdmittedBy, "monitor" | "adaptive-open">;

type TokenCheck = (
  rule: string,
  request: AdmissionRequest,
) => AdmissionDecision | Promise<AdmissionDecision>;

/** What rules leave to clearance and token, as the mode has it. */
function createTokenCheck({ adaptive, admission, metrics, mode }: GateOptions): TokenCheck {
  /** Who sends no token passes then: to refuse who sent one, since a store is down, protects nothing. */
  async function leniently(
    rule: string,
    by: Unproven,
    request: AdmissionRequest,
  ): Promise<AdmissionDecision> {
    // While adaptive is open most requests bring nothing: a challenge would be made that nobody gets.
    const isPlain = by === "adaptive-open" && request.authorization === undefined;
    const decision = await (isPlain
      ? admission.byClearance(request)
      : decideOrNot(admission, request));
    if (decision?.kind === "admitted") return decision;
    adaptive?.noteUnadmitted(request.host);
    return letIn(metrics, rule, by);
  }

  async function strictly(request: AdmissionRequest): Promise<AdmissionDecision> {
    let isAdmitted = false;
    try {
      const decision = await admission.decide(request);
      isAdmitted = decision.kind === "admitted";
      return decision;
    } finally {
      if (!isAdmitted) adaptive?.noteUnadmitted(request.host);
    }
  }

  return (rule, request) => {
    // Of a site's requests nearly all, whatever the mode.
    const cleared = admission.byKnownClearance(request);
    if (cleared !== undefined) return cleared;
    if (mode === "monitor") return leniently(rule, "monitor", request);
    if (mode === "adaptive" && adaptive?.isOpen(request.host) === true) {
      return leniently(rule, "adaptive-open", request);
    }
    return strictly(request);
  };
}

export function createGate(options: GateOptions): Gate {
  const { metrics, rules } = options;
  const byToken = createTokenCheck(options);

  function follow(
    { action, certificates, isByAgent, rule }: Verdict,
    judged: JudgedRequest,
    request: () => AdmissionRequest,
  ): AdmissionDecision | Promise<AdmissionDecision> {
    const isByCertificate = judged.client !== undefined && certificates?.has(judged.client);
    if (action === "token-or-certificate" && isByCertificate === true) {
      metrics.admissions.inc("certificate");
      return { kind: "admitted", by: "certificate" };
    }
    if (action === "token" || action === "token-or-certificate") {
      const decision = byToken(rule, request());
      if (!(decision instanceof Promise)) return decision;
      return decision.then((made) => withReason(made, judged));
    }
    metrics.ruleVerdicts.inc(rule, action);
    if (action !== "open") throw refusalOf(action);
    const by = isByAgent ? "agent" : "open";
    metrics.admissions.inc(by);
    return { kind: "admitted", by, ...(isByAgent ? { agent: judged.signature?.agent() } : {}) };
  }

  return (judged, request) => {
    const { signature } = judged;
    if (signature === undefined) return follow(rules.judge(judged), judged, request);
    return judgeSigned(rules, judged, signature).then((verdict) =>
      follow(verdict, judged, request),
    );
  };
}

/** A signature that a rule has looked at has its one use here; without it, the rules are asked of the request again. */
async function judgeSigned(
  rules: EdgeRules,
  judged: JudgedRequest,
  signature: RequestSignature,
): Promise<Verdict> {
  const verdict = rules.judge(judged);
  return (await signature.useUp()) ? verdict : rules.judge(judged);
}

async function decideOrNot(
  admission: Admission,
  request: AdmissionRequest,
): Promise<AdmissionDecision | undefined> {
  try {
    return await admission.decide(request);
  } catch (error) {
    if (isStileError(error)) return undefined;
    throw error;
  }
}

/**
 * Who sent a signature and no token is told what is wrong with the signature.
 * @throws `SERVICE_OVERLOADED` where that is not the client's to mend
 */
function withReason(decision: AdmissionDecision, { signature }: JudgedRequest): AdmissionDecision {
  const error = signature?.error();
  const isUnsaid =
    decision.kind === "challenged" && isStileError(decision.error, "SERVICE_TOKEN_REQUIRED");
  if (!isUnsaid || error === undefined) return decision;
  if (isStileError(error, "SERVICE_OVERLOADED")) throw error;
  return { ...decision, error };
}

/** In a mode that challenges nobody, or nobody now. */
function letIn(metrics: Metrics, rule: string, by: Unproven): Admitted {
  metrics.ruleVerdicts.inc(rule, by);
  metrics.admissions.inc(by);
  return { kind: "admitted", by };
}

function refusalOf(action: "block" | "ambiguous"): StileError {
  return action === "block"
    ? new StileError("SERVICE_REQUEST_BLOCKED", "this request is blocked here")
    : new StileError("SERVICE_PATH_AMBIGUOUS", "the request can be read in several ways");
}
