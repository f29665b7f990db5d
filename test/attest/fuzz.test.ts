/**
 * Every parser and verifier of attest/ under mutated input (checklist G1, G3, G5): whatever the bytes, the
 * answer is a StileError, or a result that the signature covers; in bounded time and memory; and the text
 * of a refusal holds nothing of the input. The mutations are seeded, the keys are new in each run; a failure
 * prints its input. FUZZ_CASES is the number of cases, 50,000 without it.
 */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterAll, describe, expect, it } from "vitest";
import { isStileError } from "../../wire/index.ts";
import { createRandom } from "../support/fuzz.ts";
import { ekTargets } from "./support/fuzz/ek-targets.ts";
import { logTargets } from "./support/fuzz/log-targets.ts";
import { evidenceTargets } from "./support/fuzz/evidence-targets.ts";
import { messageTargets } from "./support/fuzz/message-targets.ts";
import type { FuzzCase, FuzzTarget } from "./support/fuzz/target.ts";
import { tpmTargets } from "./support/fuzz/tpm-targets.ts";
import { webAuthnTargets } from "./support/fuzz/webauthn-targets.ts";

const CASES = Number(process.env["FUZZ_CASES"] ?? "50000");
const MAX_CASE_MS = 50;
const MAX_GROWTH_MIB = 48;

const targets: readonly FuzzTarget[] = [
  ...tpmTargets(),
  ...(await ekTargets()),
  ...logTargets(),
  ...(await webAuthnTargets()),
  ...evidenceTargets(),
  ...(await messageTargets()),
];
const shares = targets.reduce((sum, { share }) => sum + share, 0);
const casesOf = ({ share }: FuzzTarget): number => Math.ceil((CASES * share) / shares);

/** Runs of hexadecimal or base64 that no word of ours has. */
const SECRET_LIKE = /[0-9a-f]{16}|[A-Za-z0-9+/_=-]{40}/;

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;
function settledMiB(): number {
  collectGarbage();
  const { heapUsed, external } = process.memoryUsage();
  return (heapUsed + external) / 2 ** 20;
}

interface Seen {
  accepted: number;
  slowestMs: number;
  readonly refusals: Map<string, number>;
}

/** Milliseconds, and what is wrong with the answer. */
async function judge(one: FuzzCase, seen: Seen): Promise<string | undefined> {
  const started = performance.now();
  let fault: string | undefined;
  try {
    const result = await one.run();
    seen.slowestMs = Math.max(seen.slowestMs, performance.now() - started);
    seen.accepted += 1;
    fault = one.fault?.(result);
  } catch (error) {
    seen.slowestMs = Math.max(seen.slowestMs, performance.now() - started);
    if (!isStileError(error)) return `not a StileError: ${String(error)}`;
    seen.refusals.set(error.code, (seen.refusals.get(error.code) ?? 0) + 1);
    if (SECRET_LIKE.test(error.message)) fault = `a message with data: ${error.message}`;
  }
  return fault;
}

/** CPU time, the least of three runs: what the input costs, and not what else the machine does. */
async function costMs(one: FuzzCase): Promise<number> {
  let least = Infinity;
  for (let run = 0; run < 3; run += 1) {
    const before = process.cpuUsage();
    await Promise.resolve()
      .then(one.run)
      .catch(() => undefined);
    const { system, user } = process.cpuUsage(before);
    least = Math.min(least, (system + user) / 1_000);
  }
  return least;
}

async function fuzz(target: FuzzTarget, cases: number): Promise<Seen> {
  const random = createRandom(20_261_123);
  const total: Seen = { accepted: 0, slowestMs: 0, refusals: new Map() };
  for (let index = 0; index < cases; index += 1) {
    const one = target.next(random);
    const seen = { ...total, slowestMs: 0 };
    const fault = await judge(one, seen);
    if (fault !== undefined) expect.unreachable(`case ${index}: ${fault}\n${one.input}`);
    let ms = seen.slowestMs;
    if (ms > MAX_CASE_MS) ms = await costMs(one);
    if (ms > MAX_CASE_MS) expect.unreachable(`case ${index}: ${ms} ms\n${one.input}`);
    total.accepted = seen.accepted;
    total.slowestMs = Math.max(total.slowestMs, ms);
  }
  return total;
}

describe("mutated input", () => {
  const done = {
    cases: 0,
    accepted: 0,
    slowestMs: 0,
    grownMiB: 0,
    refusals: new Map<string, number>(),
  };
  afterAll(() => {
    const refused = JSON.stringify(Object.fromEntries(done.refusals));
    console.log(
      `fuzz of attest/: ${done.cases} cases of ${targets.length} targets, ${done.accepted} accepted, ` +
        `slowest ${done.slowestMs.toFixed(1)} ms, grown ${done.grownMiB.toFixed(1)} MiB, ${refused}`,
    );
  });

  it("is of as many cases as were asked for, each target under its own name", () => {
    const cases = targets.reduce((sum, target) => sum + casesOf(target), 0);
    expect(cases).toBeGreaterThanOrEqual(CASES);
    expect(new Set(targets.map(({ name }) => name)).size).toBe(targets.length);
  });

  it.each(targets)(
    "G1, G3, G5: $name never raises another error, takes long or is believed",
    { timeout: 7_200_000 },
    async (target) => {
      expect(target.sound.length).toBeGreaterThan(0);
      for (const accept of target.sound) await accept();
      const cases = casesOf(target);
      await fuzz(target, Math.min(cases, 200));
      const beforeMiB = settledMiB();
      const { accepted, slowestMs, refusals } = await fuzz(target, cases);
      const grownMiB = settledMiB() - beforeMiB;
      done.cases += cases;
      done.accepted += accepted;
      done.slowestMs = Math.max(done.slowestMs, slowestMs);
      done.grownMiB = Math.max(done.grownMiB, grownMiB);
      for (const [code, count] of refusals) {
        done.refusals.set(code, (done.refusals.get(code) ?? 0) + count);
      }
      expect(grownMiB).toBeLessThan(MAX_GROWTH_MIB);
      expect(refusals.size).toBeGreaterThan(0);
    },
  );
});
