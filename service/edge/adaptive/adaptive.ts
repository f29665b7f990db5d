/**
 * The mode `adaptive`: challenges at a host while more comes to it than its operator wants to let in unproven, and
 * is open otherwise (docs/edge-rules.md). Composes one watch for each host with clock, metrics and log. Each
 * process measures what it sees itself, against its share of the thresholds.
 */
import type { UpstreamOutcome } from "../../../tls/index.ts";
import type { EdgeAdaptiveConfig } from "../../config/index.ts";
import type { Log } from "../../log.ts";
import type { Metrics } from "../../metrics.ts";
import { HostWatch } from "./host-watch.ts";

export interface AdaptiveOptions {
  readonly settings: EdgeAdaptiveConfig;
  /** In their normal form. */
  readonly hosts: readonly string[];
  /** Unix milliseconds. */
  readonly clock: () => number;
  readonly log: Log;
  readonly metrics: Metrics;
}

export interface Adaptive {
  /** False for a host that is not watched. */
  readonly isOpen: (host: string) => boolean;
  /** A request that needs a token came without one that is good, and without a clearance. */
  readonly noteUnadmitted: (host: string) => void;
  /**
   * A request of this host goes to the upstream.
   * @param isTimed false where the client has a body to send: how long that takes is not the upstream's doing
   */
  readonly watchAnswer: (host: string, isTimed: boolean) => (outcome: UpstreamOutcome) => void;
  readonly close: () => void;
}

/** Without requests nothing else would notice that a host has become calm. */
const LOOK_MS = 1_000;
/** Of the statuses (RFC 9110 §15.6). */
const FIRST_FAILURE = 500;

export function createAdaptive(options: AdaptiveOptions): Adaptive {
  const { clock, hosts } = options;
  const watches = new Map(hosts.map((host) => [host, watchOf(options, host)]));
  const timer = setInterval(() => {
    for (const watch of watches.values()) watch.isOpen(clock());
  }, LOOK_MS);
  timer.unref();
  return {
    isOpen: (host) => watches.get(host)?.isOpen(clock()) ?? false,
    noteUnadmitted: (host) => watches.get(host)?.note("unadmitted", clock()),
    watchAnswer: (host, isTimed) => {
      const watch = watches.get(host);
      const end = isTimed ? watch?.startAnswer(clock()) : undefined;
      let isTold = false;
      return (outcome) => {
        if (isTold) return;
        isTold = true;
        end?.(clock());
        if (isFailure(outcome)) watch?.note("failures", clock());
      };
    },
    close: () => clearInterval(timer),
  };
}

function isFailure(outcome: UpstreamOutcome): boolean {
  return outcome === "failed" || (typeof outcome === "number" && outcome >= FIRST_FAILURE);
}

function watchOf({ clock, log, metrics, settings }: AdaptiveOptions, host: string): HostWatch {
  const { calmSeconds, challengeSeconds, failures, slow, unadmitted, windowSeconds } = settings;
  metrics.adaptiveChallenging.set({ host }, 1);
  return new HostWatch(
    {
      signals: { unadmitted, slow, failures },
      meanMs: windowSeconds * 1_000,
      slowAfterMs: slow.afterMs,
      challengeMs: challengeSeconds * 1_000,
      calmMs: calmSeconds * 1_000,
      onChange: (isOpen, why) => {
        metrics.adaptiveChallenging.set({ host }, isOpen ? 0 : 1);
        metrics.adaptiveTransitions.inc({ host, why });
        log.write(isOpen ? "info" : "warn", isOpen ? "edge.open" : "edge.challenging", {
          host,
          why,
        });
      },
    },
    clock(),
  );
}
