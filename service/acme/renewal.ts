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
import type { RenewalInfo } from "./renewal-info.ts";
import { askAgainMs, firstAskMs, renewAtMs, retryMs, shortestMs } from "./schedule.ts";

export interface RenewalOptions {
  readonly certificates: readonly WantedCertificate[];
  /** Without it, a third of the certificate's life. */
  readonly renewBeforeMs?: number | undefined;
  /** @param isFirst false where the same was tried before in vain */
  readonly issue: (wanted: WantedCertificate, isFirst: boolean) => Promise<IssuedCertificate>;
  /** When the server would have the kept one renewed. */
  readonly renewalInfo: (wanted: WantedCertificate) => Promise<RenewalInfo | undefined>;
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
  /** When the server is asked what it suggests. */
  askMs: number;
  failures: number;
  reason: string | undefined;
}

export function createRenewal(options: RenewalOptions): Renewal {
  const { certificates, clock, issue, observe, onIssued, random } = options;
  const tracked = certificates.map((wanted) => track(wanted, options));
  const renewalOf = (kept: Validity): number => renewAtMs(kept, options.renewBeforeMs, random());

  async function attempt(one: Tracked): Promise<void> {
    try {
      // Servers allow few certificates for the same names a week: one that could not be written is not ordered anew.
      const issued = (one.unwritten ??= await issue(one.wanted, one.failures === 0));
      await keepIssued(one.wanted.file, issued);
      one.unwritten = undefined;
      one.kept = issued;
      one.nextMs = Math.max(renewalOf(issued), clock() + shortestMs(issued));
      one.askMs = clock() + firstAskMs(random());
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

  /** RFC 9773: only ever makes a renewal earlier, and leaves the waits after failures alone. */
  async function ask(one: Tracked): Promise<void> {
    // That there is no answer now is no failure: the certificate is good, and its own time will come.
    const info = await options.renewalInfo(one.wanted).catch(() => undefined);
    one.askMs = clock() + askAgainMs(info);
    if (info === undefined) return;
    const suggestedMs = info.startMs + Math.floor((info.endMs - info.startMs) * random());
    one.nextMs = Math.min(one.nextMs, suggestedMs);
  }

  let running: Promise<void> | undefined;
  async function lookAtAll(): Promise<void> {
    for (const one of tracked) {
      if (one.failures === 0 && one.kept !== undefined && one.askMs <= clock()) await ask(one);
      if (one.nextMs <= clock()) await attempt(one);
    }
  }
  return {
    look: () =>
      (running ??= lookAtAll().finally(() => {
        running = undefined;
      })),
    status: () => tracked.map((one) => statusOf(one, clock())),
  };
}

function track(
  wanted: WantedCertificate,
  { clock, random, renewBeforeMs }: RenewalOptions,
): Tracked {
  const kept = readKept(wanted.file, wanted.names);
  return {
    wanted,
    kept,
    unwritten: undefined,
    nextMs: kept === undefined ? clock() : renewAtMs(kept, renewBeforeMs, random()),
    askMs: clock() + firstAskMs(random()),
    failures: 0,
    reason: undefined,
  };
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
