/**
 * Metrics of all processes as those of one: counters and histograms are added, and go on counting what a worker
 * that has ended had counted. A worker that is killed takes with it what it counted since it was last asked.
 */
import {
  AggregatorRegistry,
  type MetricObjectWithValues,
  type MetricValue,
  type Registry,
} from "prom-client";

type Samples = readonly MetricObjectWithValues<MetricValue<string>>[];

export interface SharedMetrics {
  /** @param samples of a worker, as a registry gives them. @throws TypeError for anything else */
  readonly take: (worker: number, samples: unknown) => void;
  /** What it measures counts no more, what it counted does. */
  readonly end: (worker: number) => void;
  /**
   * Of this process and of all workers.
   * @param ask asks every worker for its metrics, and says which they are
   */
  readonly all: (own: Registry, ask: () => Iterable<number>) => Promise<Registry>;
}

/** A worker that does not answer by then is shown as it was. */
const ANSWER_MS = 500;
const NAME = /^[A-Za-z_][A-Za-z0-9_]{0,127}$/;
const TYPES = ["counter", "gauge", "histogram", "summary"];
const AGGREGATORS = ["sum", "first", "min", "max", "average", "omit"];
const COUNTED: ReadonlySet<string> = new Set(["counter", "histogram"]);

export function createSharedMetrics(): SharedMetrics {
  const latest = new Map<number, Samples>();
  const asked = new Set<number>();
  let ended: Samples[] = [];
  let waiting: (() => void)[] = [];

  function heard(worker: number): void {
    asked.delete(worker);
    if (asked.size === 0) for (const go of waiting.splice(0)) go();
  }

  async function answered(): Promise<void> {
    if (asked.size === 0) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ANSWER_MS);
      waiting = [...waiting, () => (clearTimeout(timer), resolve())];
    });
  }

  return {
    take: (worker, samples) => {
      if (!Array.isArray(samples) || !samples.every(isMetric)) {
        throw new TypeError("a worker sent metrics that are none");
      }
      latest.set(worker, samples);
      heard(worker);
    },
    end: (worker) => {
      const last = latest.get(worker) ?? [];
      latest.delete(worker);
      ended.push(last.filter(({ type }) => COUNTED.has(String(type))));
      heard(worker);
    },
    all: async (own, ask) => {
      for (const worker of ask()) asked.add(worker);
      await answered();
      const before = ended;
      ended = [];
      // One for all of those that have ended, however many they are.
      ended.push(await aggregate(before).getMetricsAsJSON());
      return aggregate([await own.getMetricsAsJSON(), ...ended, ...latest.values()]);
    },
  };
}

/** What it is made of is written to the operator: a worker that fails must not spoil the others' metrics, too. */
function isMetric(metric: unknown): metric is Samples[number] {
  if (!isRecord(metric)) return false;
  const { aggregator, help, name, type, values } = metric;
  const isNamed = isName(name) && typeof help === "string";
  const isKnown =
    AGGREGATORS.some((known) => known === aggregator) && TYPES.some((t) => t === type);
  return isNamed && isKnown && Array.isArray(values) && values.every(isValue);
}

/** Of a number that JSON has no word for, such as the mean of nothing, null is left. */
function isValue(sample: unknown): boolean {
  if (!isRecord(sample) || !isRecord(sample["labels"])) return false;
  const { labels, metricName, value } = sample;
  const isNamed = metricName === undefined || isName(metricName);
  return (
    isNamed && (value === null || typeof value === "number") && Object.keys(labels).every(isName)
  );
}

function isName(value: unknown): boolean {
  return typeof value === "string" && NAME.test(value);
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function aggregate(all: readonly Samples[]): Registry {
  return AggregatorRegistry.aggregate(all.map((samples) => [...samples]));
}
