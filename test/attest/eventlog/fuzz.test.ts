/** Mutated logs: our errors only, no hang, and nothing believed that a TPM did not extend. */
import { describe, expect, it } from "vitest";
import {
  parseEventLog,
  type VerifiedEventLog,
  verifyEventLog,
} from "../../../attest/eventlog/index.ts";
import { isStileError } from "../../../wire/index.ts";
import { createRandom, type Random } from "../../support/fuzz.ts";
import { readShared, sharedMissing } from "../../support/shared.ts";
import { EVENT_LOG_ROWS } from "../support/corpora/event-logs.ts";
import { crypto, quoteOf } from "./support/log-builder.ts";

/** All but the one that extends nothing, so that no PCR could refuse what is made of it. */
const FILES = EVENT_LOG_ROWS.map(([name]) => name).filter(
  (name) => name !== "short_no_action_eventlog",
);
const ROUNDS = Number(process.env["FUZZ_CASES"] ?? "6000") / FILES.length;

function mutated(log: Uint8Array, random: Random): Uint8Array {
  const kind = random(4);
  const at = random(log.length);
  if (kind === 0) return log.slice(0, at);
  if (kind === 1) {
    const length = random(64);
    return new Uint8Array(Buffer.concat([log.subarray(0, at), log.subarray(at + length)]));
  }
  const changed = log.slice();
  for (let i = 0; i <= random(3); i += 1) {
    changed[random(log.length)] = kind === 2 ? random(256) : 0xff;
  }
  return changed;
}

/** What a policy would rest on. */
const believed = ({ secureBoot, boot }: VerifiedEventLog): string =>
  [
    secureBoot.state,
    ...secureBoot.databases.flatMap(({ signatures }) => signatures.map(({ data }) => hex(data))),
    ...secureBoot.authorities.map(({ data, isInDb }) => `${hex(data)} ${isInDb}`),
    ...boot.bootApplications.flatMap(({ digests }) => [...digests.values()].map(hex)),
    ...boot.loader.filter(({ covered }) => covered).map(({ text }) => text),
  ].join("\n");
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

/** What was extended into the PCRs that must replay, in order within each. */
const extended = ({ log: { events } }: VerifiedEventLog, alg: number): string =>
  events
    .filter(({ eventType, pcrIndex }) => eventType !== 3 && pcrIndex < 8)
    .toSorted((a, b) => a.pcrIndex - b.pcrIndex)
    .map(({ digests, pcrIndex }) => `${pcrIndex} ${hex(digests.get(alg)!)}`)
    .join("\n");

/** CPU time, the least of three runs: what the input costs, and not what else the machine does. */
function cost(run: () => void): number {
  const times = [1, 2, 3].map(() => {
    const before = process.cpuUsage();
    try {
      run();
    } catch {
      // Judged by the caller.
    }
    const { system, user } = process.cpuUsage(before);
    return (system + user) / 1_000;
  });
  return Math.min(...times);
}

describe.skipIf(sharedMissing)("mutated logs", () => {
  it.each(FILES)(
    "G3, E5: %s is refused, or says nothing more than before",
    { timeout: 3_600_000 },
    (name) => {
      const log = readShared(`corpora/eventlogs/${name}`);
      const isAgile = parseEventLog(log).algorithms.some(({ alg }) => alg === 0x0b);
      const hash = isAgile ? "sha256" : "sha1";
      const quote = quoteOf(log, [hash]);
      const original = verifyEventLog({ log, quote, crypto });
      const alg = isAgile ? 0x0b : 0x04;
      const digests = extended(original, alg);
      const facts = believed(original);
      const random = createRandom(20_261_123);
      const seen = { refused: 0, accepted: 0, otherDigests: 0, less: 0, slowestMs: 0 };
      for (let round = 0; round < ROUNDS; round += 1) {
        const input = mutated(log, random);
        const started = performance.now();
        try {
          const result = verifyEventLog({ log: input, quote, crypto });
          seen.accepted += 1;
          if (extended(result, alg) !== digests) seen.otherDigests += 1;
          if (believed(result) !== facts) {
            seen.less += 1;
            // A changed type or text hides something; it never turns anything on.
            expect(result.secureBoot.state === "on" && original.secureBoot.state !== "on").toBe(
              false,
            );
            expect(result.boot.bootApplications.length).toBeLessThanOrEqual(
              original.boot.bootApplications.length,
            );
          }
        } catch (error) {
          expect(isStileError(error), String(error)).toBe(true);
          seen.refused += 1;
        }
        if (performance.now() - started > 25) {
          const ownMs = cost(() => verifyEventLog({ log: input, quote, crypto }));
          seen.slowestMs = Math.max(seen.slowestMs, ownMs);
        }
      }
      expect(seen.otherDigests).toBe(0);
      // Much of a log is data of events whose digest is of something else, so not all is refused.
      expect(seen.refused).toBeGreaterThan(ROUNDS / 3);
      expect(seen.slowestMs).toBeLessThan(50);
    },
  );
});
