/**
 * Metrics of the upstreams, read from them when they are asked for: counting by label at each request would cost
 * more than choosing. Labels are names of the configuration and closed sets.
 */
import { Counter, Gauge, type Registry } from "prom-client";
import type { Upstreams } from "../tls/index.ts";

/** Of several processes, each of which has its own view of an upstream. */
const AGGREGATORS = { usable: "min", requests_under_way: "sum", latency_seconds: "max" } as const;

/** What happens to them, as it happens. */
export function upstreamEventCounter(registry: Registry): Counter<"upstream" | "event"> {
  return new Counter({
    name: "stile_upstream_events_total",
    help: "upstreams taken out, brought back, and looks at their files",
    labelNames: ["upstream", "event"],
    registers: [registry],
  });
}

/** @param steadyMs the upstreams' clock */
export function registerUpstreamMetrics(
  registry: Registry,
  { all, retries }: Upstreams,
  steadyMs: () => number,
): void {
  const gauge = (
    name: keyof typeof AGGREGATORS,
    help: string,
    read: (upstream: Upstreams["all"][number]) => number,
  ): Gauge =>
    new Gauge({
      name: `stile_upstream_${name}`,
      help,
      labelNames: ["upstream"],
      aggregator: AGGREGATORS[name],
      registers: [registry],
      collect() {
        for (const upstream of all) this.set({ upstream: upstream.name }, read(upstream));
      },
    });
  gauge("usable", "1 for an upstream that requests go to, or are tried at", (upstream) =>
    upstream.stateAt(steadyMs()) === "out" ? 0 : 1,
  );
  gauge("requests_under_way", "requests and tunnels at an upstream", ({ underWay }) => underWay);
  gauge(
    "latency_seconds",
    "moving average of the time to the head of an answer, quick to rise and slow to fall",
    (upstream) => upstream.latencyMs(steadyMs()) / 1_000,
  );
  const attempts = new Counter({
    name: "stile_upstream_attempts_total",
    help: "requests at an upstream by how they ended",
    labelNames: ["upstream", "outcome"],
    collect() {
      this.reset();
      for (const { name, outcomes } of all) {
        for (const [outcome, count] of Object.entries(outcomes)) {
          this.inc({ upstream: name, outcome }, count);
        }
      }
    },
    registers: [],
  });
  const further = new Counter({
    name: "stile_upstream_retries_total",
    help: "further attempts at a request; refused: one too many for the budget",
    labelNames: ["outcome"],
    collect() {
      this.reset();
      this.inc({ outcome: "made" }, retries.made);
      this.inc({ outcome: "refused" }, retries.refused);
    },
    registers: [],
  });
  registry.registerMetric(attempts);
  registry.registerMetric(further);
}
