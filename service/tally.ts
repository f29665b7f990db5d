/**
 * A counter for what happens with every request. It adds up by itself and tells prom-client when that is read,
 * whose own way to a labelled value costs as much as reading a small head.
 */
import { Counter, type CounterConfiguration } from "prom-client";

/** Labels in the order of `labelNames`, of which there are one or two. Their values are closed sets. */
export interface Tally {
  readonly inc: (first: string, second?: string) => void;
}

export type TallyLabels = readonly [string] | readonly [string, string];

type TallyConfiguration = Pick<CounterConfiguration<string>, "name" | "help" | "registers"> & {
  readonly labelNames: TallyLabels;
};

export function createTally({ labelNames, ...config }: TallyConfiguration): Tally {
  const [firstName, secondName] = labelNames;
  /** Since it was last told. */
  const counts = new Map<string, Map<string, number>>();
  const counter = new Counter({
    ...config,
    labelNames: [...labelNames],
    collect: () => {
      for (const [first, bySecond] of counts) {
        for (const [second, count] of bySecond) {
          const more = secondName === undefined ? {} : { [secondName]: second };
          counter.inc({ [firstName]: first, ...more }, count);
        }
      }
      counts.clear();
    },
  });
  return {
    inc: (first, second = "") => {
      let bySecond = counts.get(first);
      if (bySecond === undefined) counts.set(first, (bySecond = new Map<string, number>()));
      bySecond.set(second, (bySecond.get(second) ?? 0) + 1);
    },
  };
}
