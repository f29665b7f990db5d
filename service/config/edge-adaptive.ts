/** Settings of the edge's mode `adaptive` (docs/edge-rules.md). Each pair of thresholds is in events a second. */
import { Type } from "typebox";
import { closed, section, whole } from "./kinds.ts";

export interface ThresholdsConfig {
  readonly above: number;
  readonly below: number;
}

export interface EdgeAdaptiveConfig {
  readonly unadmitted: ThresholdsConfig;
  readonly slow: ThresholdsConfig & { readonly afterMs: number };
  readonly failures: ThresholdsConfig;
  readonly windowSeconds: number;
  readonly challengeSeconds: number;
  readonly calmSeconds: number;
}

function perSecond(description: string, value: number): Type.TNumber {
  return Type.Number({ description, minimum: 0.01, maximum: 1_000_000, default: value });
}

function thresholds(above: number, below: number): { above: Type.TNumber; below: Type.TNumber } {
  return {
    above: perSecond("a second, at one host: more start to challenge", above),
    below: perSecond("a second: only less lets it stop; below the one above", below),
  };
}

export const edgeAdaptiveSettings: Type.TOptional<Type.TUnsafe<EdgeAdaptiveConfig>> = Type.Optional(
  Type.Unsafe<EdgeAdaptiveConfig>(
    Type.Object(
      {
        unadmitted: Type.Object(thresholds(50, 10), section),
        slow: Type.Object(
          {
            afterMs: whole(
              "an answer of the upstream that begins later is slow",
              1,
              600_000,
              2_000,
            ),
            ...thresholds(5, 1),
          },
          section,
        ),
        failures: Type.Object(thresholds(5, 1), section),
        windowSeconds: whole("over which the rates are a mean", 1, 600, 10),
        challengeSeconds: whole("it challenges for at least so long", 1, 86_400, 60),
        calmSeconds: whole("for so long all rates must be below before it stops", 1, 86_400, 30),
      },
      { ...closed, description: "of edge.mode adaptive: when to challenge" },
    ),
  ),
);
