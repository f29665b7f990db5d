/**
 * Metrics for Prometheus. Labels are closed sets (codes, states, routes), so no label can hold a path,
 * an address, a token or a device, and their number is bounded.
 */
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from "prom-client";
import type { ErrorCode } from "../wire/index.ts";
import { createTally, type Tally, type TallyLabels } from "./tally.ts";

/** How a request was admitted. */
export type AdmittedBy =
  | "clearance"
  | "token"
  | "repeat"
  | "open"
  | "agent"
  | "certificate"
  | "monitor"
  | "adaptive-open";
/** By how. */
interface AdmissionTally {
  readonly inc: (by: AdmittedBy) => void;
}
/** A code of the project, or one of the two outcomes that have none. */
export type Outcome = ErrorCode | "OK" | "INTERNAL";

interface CertificateMetrics {
  readonly acmeOrders: Counter<"outcome">;
  readonly plainHttpAnswers: Counter<"answer">;
  readonly plainHttpRefused: Counter<"limit">;
  /** `name`: the first of a certificate of the operator's own. */
  readonly certificateNotAfter: Gauge<"name" | "key">;
}

interface EdgeMetrics {
  readonly admissions: AdmissionTally;
  /** `rule`: names of the configuration, or `default`; then the verdict. */
  readonly ruleVerdicts: Tally;
  readonly challenges: Counter<"reason">;
  readonly agentSignatures: Counter<"outcome">;
  /** `host`: of the configuration. In the mode adaptive. */
  readonly adaptiveChallenging: Gauge<"host">;
  readonly adaptiveTransitions: Counter<"host" | "why">;
}

export interface Metrics extends CertificateMetrics, EdgeMetrics {
  readonly registry: Registry;
  readonly attestations: Counter<"step" | "outcome">;
  readonly tokenRequests: Counter<"outcome">;
  readonly tokensIssued: Counter;
  readonly tlsEvents: Counter<"event">;
  readonly httpResponses: Counter<"route" | "status">;
  readonly spends: Counter<"outcome">;
  readonly spendBatchSize: Histogram;
  readonly spendSeconds: Histogram;
  readonly issuerKeys: Gauge<"state">;
  readonly clearanceKeys: Gauge<"state">;
  readonly reloads: Counter<"outcome">;
  /** 1 for the library that computes a private token type. */
  readonly voprfEngine: Gauge<"type" | "engine">;
}

const PREFIX = "stile_";

/** A registry with every metric at hand; nothing is registered globally. */
export function createMetrics(): Metrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry, prefix: PREFIX });
  const makers = makersFor(registry);
  const { counter, gauge, histogram } = makers;
  return {
    registry,
    ...edgeMetrics(makers),
    attestations: counter("attestations_total", "attestation steps by outcome", [
      "step",
      "outcome",
    ]),
    tokenRequests: counter("token_requests_total", "token requests by outcome", ["outcome"]),
    tokensIssued: counter("tokens_issued_total", "blind signatures given out", []),
    tlsEvents: counter("tls_events_total", "events of the public listener", ["event"]),
    ...certificateMetrics(makers),
    httpResponses: counter("http_responses_total", "answers of Stile's own endpoints", [
      "route",
      "status",
    ]),
    spends: counter("spends_total", "answers of the spent-token store", ["outcome"]),
    spendBatchSize: histogram(
      "spend_batch_size",
      "spends in one durable write",
      [1, 4, 16, 64, 256, 1024, 4096],
    ),
    spendSeconds: histogram(
      "spend_seconds",
      "duration of one durable write",
      [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1],
    ),
    reloads: counter("reloads_total", "SIGHUP by what became of the configuration", ["outcome"]),
    issuerKeys: gauge("issuer_keys", "issuer keys by state", ["state"]),
    clearanceKeys: gauge("clearance_keys", "keys of clearances by state", ["state"]),
    voprfEngine: gauge("voprf_engine", "1 for the library that computes a private token type", [
      "type",
      "engine",
    ]),
  };
}

/** Each makes one metric of a registry. */
interface Makers {
  readonly counter: <T extends string>(name: string, help: string, labelNames: T[]) => Counter<T>;
  readonly tally: (name: string, help: string, labelNames: TallyLabels) => Tally;
  /** @param aggregator of several processes; default: added */
  readonly gauge: <T extends string>(
    name: string,
    help: string,
    labelNames: T[],
    aggregator?: "sum" | "min" | "max",
  ) => Gauge<T>;
  readonly histogram: (name: string, help: string, buckets: number[]) => Histogram;
}

function edgeMetrics({ counter, gauge, tally }: Makers): EdgeMetrics {
  return {
    admissions: tally("admissions_total", "admitted requests", ["by"]),
    ruleVerdicts: tally(
      "rule_verdicts_total",
      "requests by rule that were open, block, ambiguous, or forwarded, not challenged: monitor, adaptive-open",
      ["rule", "verdict"],
    ),
    challenges: counter("challenges_total", "challenged requests by the code of the refusal", [
      "reason",
    ]),
    adaptiveChallenging: gauge(
      "adaptive_challenging",
      "1 while the mode adaptive challenges, of several workers one of them",
      ["host"],
      "max",
    ),
    adaptiveTransitions: counter(
      "adaptive_transitions_total",
      "changes of the mode adaptive: to open (calm), or to challenging, by what passed its threshold",
      ["host", "why"],
    ),
    agentSignatures: counter("agent_signatures_total", "message signatures that rules asked for", [
      "outcome",
    ]),
  };
}

function certificateMetrics({ counter, gauge }: Makers): CertificateMetrics {
  return {
    acmeOrders: counter("acme_orders_total", "orders of certificates by ACME", ["outcome"]),
    plainHttpAnswers: counter("plain_http_answers_total", "answers of the plain HTTP listener", [
      "answer",
    ]),
    plainHttpRefused: counter(
      "plain_http_refused_total",
      "connections of the plain HTTP listener that were cut at once, by the limit: address or all",
      ["limit"],
    ),
    certificateNotAfter: gauge(
      "certificate_not_after_timestamp_seconds",
      "end of the server certificates in use",
      ["name", "key"],
      "min",
    ),
  };
}

function makersFor(registry: Registry): Makers {
  const options = (
    name: string,
    help: string,
  ): { name: string; help: string; registers: Registry[] } => ({
    name: `${PREFIX}${name}`,
    help,
    registers: [registry],
  });
  return {
    counter: (name, help, labelNames) => new Counter({ ...options(name, help), labelNames }),
    tally: (name, help, labelNames) => createTally({ ...options(name, help), labelNames }),
    gauge: (name, help, labelNames, aggregator = "sum") =>
      new Gauge({ ...options(name, help), labelNames, aggregator }),
    histogram: (name, help, buckets) => new Histogram({ ...options(name, help), buckets }),
  };
}
