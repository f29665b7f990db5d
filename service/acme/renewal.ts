/**
 * When certificates are asked for: at once where there is none, and again some time before their end. A failure
 * leaves the kept one in use and is tried again, later each time, and never before the server allows it. While a
 * certificate is good, nothing is asked of the server, whatever restarts.
 */
import { isStileError } from "../../wire/index.ts";
import type { Outcome } from "../metrics.ts";
import type { WantedCertificate } from "./files.ts";
import { type IssuedCertificate, keepIssued, readKept, type Validity } from "./issued.ts";
import { reasonOf } from "./problem.ts";

export interface RenewalOptions {
  readonly certificates: readonly WantedCertificate[];
  /** Without it, a third of the certificate's life. */
  readonly renewBeforeMs?: number | undefined;
  readonly issue: (wanted: WantedCertificate) => Promise<IssuedCertificate>;
  /** Calls back once a new certificate is on disk. */
  readonly onIssued: () => void;
  readonly observe: (outcome: Outcome, wanted: WantedCertificate, reason?: string) => void;
  /** Unix milliseconds. */
  readonly clock: () => number;
  /** From 0 up to 1: only spreads load. */
  readonly random: () => number;
}

/** What an operator is shown. */
export interface CertificateStatus {
  readonly names: readonly string[];
  readonly keyType: string;
  /** `missing`: clients of these names are refused. `failing`: the kept one is in use, its renewal fails. */
  readonly state: "missing" | "valid" | "failing";
  /** RFC 3339. */
  readonly notAfter?: string;
  /** RFC 3339: when the server is asked next. */
  readonly nextAttempt: string;
  readonly reason?: string;
}

export interface Renewal {
  /** Asks for what is due; one call at a time, a further one waits for it. */
  readonly look: () => Promise<void>;
  readonly status: () => readonly CertificateStatus[];
}

interface Tracked {
  readonly wanted: WantedCertificate;
  kept: Validity | undefined;
  unwritten: IssuedCertificate | undefined;
  nextMs: number;
  failures: number;
  reason: string | undefined;
}

const DEFAULT_SHARE = 1 / 3;
/** A setting that is longer than the certificate's life must not make it renewed all the time. */
const LARGEST_SHARE = 1 / 2;
/** Edges that were started together do not renew together. */
const JITTER_SHARE = 1 / 10;
const FIRST_RETRY_MS = 60_000;
/** After a refusal: of failed validations, servers allow some five an hour. */
const FIRST_REFUSED_RETRY_MS = 300_000;
const MAX_RETRY_MS = 6 * 3_600_000;

export function createRenewal(options: RenewalOptions): Renewal {
  const { certificates, clock, issue, observe, onIssued, random } = options;
  const tracked = certificates.map((wanted): Tracked => {
    const kept = readKept(wanted.file, wanted.names);
    const nextMs = kept === undefined ? clock() : renewAtMs(kept, options);
    return { wanted, kept, unwritten: undefined, nextMs, failures: 0, reason: undefined };
  });

  async function attempt(one: Tracked): Promise<void> {
    try {
      // Servers allow few certificates for the same names a week: one that could not be written is not ordered anew.
      const issued = (one.unwritten ??= await issue(one.wanted));
      await keepIssued(one.wanted.file, issued);
      one.unwritten = undefined;
      one.kept = issued;
      one.nextMs = renewAtMs(issued, options);
      one.failures = 0;
      one.reason = undefined;
      onIssued();
      observe("OK", one.wanted);
    } catch (error) {
      one.failures += 1;
      one.reason = reasonOf(error);
      one.nextMs = clock() + retryMs(error, one.failures, random());
      observe(isStileError(error) ? error.code : "INTERNAL", one.wanted, one.reason);
    }
  }

  let running: Promise<void> | undefined;
  async function lookAtAll(): Promise<void> {
    for (const one of tracked) if (one.nextMs <= clock()) await attempt(one);
  }
  return {
    look: () =>
      (running ??= lookAtAll().finally(() => {
        running = undefined;
      })),
    status: () => tracked.map((one) => statusOf(one, clock())),
  };
}

function renewAtMs(
  { notAfterMs, notBeforeMs }: Validity,
  { random, renewBeforeMs }: Pick<RenewalOptions, "random" | "renewBeforeMs">,
): number {
  const lifeMs = notAfterMs - notBeforeMs;
  const beforeMs = Math.min(renewBeforeMs ?? lifeMs * DEFAULT_SHARE, lifeMs * LARGEST_SHARE);
  return Math.floor(notAfterMs - beforeMs * (1 + JITTER_SHARE * random()));
}

function retryMs(error: unknown, failures: number, jitter: number): number {
  const isRefusal = isStileError(error) && error.code !== "SERVICE_ACME_UNAVAILABLE";
  const firstMs = isRefusal ? FIRST_REFUSED_RETRY_MS : FIRST_RETRY_MS;
  const backOffMs = Math.min(MAX_RETRY_MS, firstMs * 2 ** (failures - 1));
  const askedMs = ((isStileError(error) && error.retryAfterSeconds) || 0) * 1_000;
  return Math.floor(Math.max(askedMs, backOffMs) * (1 + JITTER_SHARE * jitter));
}

function statusOf({ kept, nextMs, reason, wanted }: Tracked, nowMs: number): CertificateStatus {
  const isGood = kept !== undefined && kept.notAfterMs > nowMs;
  return {
    names: wanted.names,
    keyType: wanted.keyType,
    state: isGood ? (reason === undefined ? "valid" : "failing") : "missing",
    ...(kept === undefined ? {} : { notAfter: new Date(kept.notAfterMs).toISOString() }),
    nextAttempt: new Date(nextMs).toISOString(),
    ...(reason === undefined ? {} : { reason }),
  };
}
