/**
 * Crash safety of redemption: the sidecar is killed at random moments while 2,000 redemptions are in
 * flight. After each restart, no token that was answered "admitted" is admitted to another request, a
 * request that carries an Idempotency-Key gets its answer when it is repeated, and tokens that were never
 * sent are good.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { exchange } from "../../service/agent/exchange.ts";
import { parseWwwAuthenticate } from "../../tokens/index.ts";
import { type ChildSidecar, startChildSidecar } from "../support/child-sidecar.ts";
import { freePort } from "../support/free-port.ts";
import { type Mint, openMint } from "../support/mint.ts";
import { pipelineRaw, rawGet, type RawTarget } from "../support/raw-client.ts";

const ROUNDS = Number(process.env["KILL_ROUNDS"] ?? "3");
const CONNECTIONS = 100;
const PER_CONNECTION = 20;
/** Never sent before the kill. */
const UNSENT = 20;

/** Small, seeded and good enough to choose moments. */
function createRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

/** The moment is chosen by progress, so that a slow machine is not killed before it began. */
async function whenAnswered(progress: { answered: number }, count: number): Promise<void> {
  const deadline = Date.now() + 15_000;
  while (progress.answered < count && Date.now() < deadline) await delay(1);
}

describe("kill -9 while tokens are redeemed", () => {
  const dir = mkdtempSync(join(tmpdir(), "stile-kill-"));
  let child: ChildSidecar;
  let target: RawTarget;
  let mint: Mint;
  let challenge: Uint8Array;

  beforeAll(async () => {
    const port = await freePort();
    child = await startChildSidecar(dir, port);
    const ca = readFileSync(join(dir, "dev", "tls", "ca.pem"), "utf8");
    target = { port, ca, host: `localhost:${port}` };
    mint = await openMint(join(dir, "dev"));
    const answer = await exchange({
      url: `https://${target.host}/`,
      method: "GET",
      headers: {},
      ca,
    });
    challenge = parseWwwAuthenticate(answer.headers["www-authenticate"] ?? "")[0]!.challenge;
  });

  afterAll(async () => {
    await child.end("SIGKILL");
    rmSync(dir, { recursive: true, force: true });
  });

  const get = (authorization: string): string => rawGet(target, "/", { authorization });

  /** The status of each request, in order; 0 where no answer came. */
  async function redeem(
    requests: readonly string[],
    perConnection: number,
    progress = { answered: 0 },
  ): Promise<number[]> {
    const groups: (readonly string[])[] = [];
    for (let i = 0; i < requests.length; i += perConnection)
      groups.push(requests.slice(i, i + perConnection));
    const onAnswer = (): void => void (progress.answered += 1);
    const answers = await Promise.all(groups.map((group) => pipelineRaw(target, group, onAnswer)));
    return groups.flatMap((group, g) => group.map((_, i) => answers[g]?.[i] ?? 0));
  }

  /** Every other connection names its requests, so that it may repeat them after a crash. */
  const isNamed = (index: number): boolean => Math.floor(index / PER_CONNECTION) % 2 === 1;

  function requestsFor(tokens: readonly string[], round: number): string[] {
    return tokens.map((authorization, i) =>
      rawGet(target, "/", {
        authorization,
        ...(isNamed(i) ? { "idempotency-key": `round-${round}-request-${i}` } : {}),
      }),
    );
  }

  it(
    `admits no token twice and loses none, ${ROUNDS} rounds`,
    { timeout: 20_000 * ROUNDS },
    async () => {
      const random = createRandom(20_261_123);
      const seen = { admitted: 0, unanswered: 0, rescued: 0 };
      for (let round = 0; round < ROUNDS; round += 1) {
        const tokens = Array.from({ length: CONNECTIONS * PER_CONNECTION + UNSENT }, () =>
          mint.authorization(challenge),
        );
        const sent = tokens.slice(UNSENT);
        const requests = requestsFor(sent, round);
        const unsent = tokens.slice(0, UNSENT).map((authorization) => get(authorization));
        const progress = { answered: 0 };
        const answering = redeem(requests, PER_CONNECTION, progress);
        // One round in four is killed while the first tokens are being spent.
        const share = round % 4 === 0 ? 0 : random() * 0.9;
        await whenAnswered(progress, Math.floor(share * sent.length));
        await delay(random() * 50);
        await child.end("SIGKILL");
        const before = await answering;
        child = await startChildSidecar(dir, target.port);
        const after = await redeem(requests, PER_CONNECTION);
        const again = await redeem(sent.map(get), PER_CONNECTION);
        before.forEach((status, i) => {
          if (status === 200) seen.admitted += 1;
          else {
            expect(status, "refused or unanswered").toBe(0);
            seen.unanswered += 1;
            if (after[i] === 200) seen.rescued += 1;
          }
          if (isNamed(i)) expect(after[i], "a repeated request").toBe(200);
          else if (status === 200) expect(after[i], "admitted before the kill").toBe(401);
          else expect([200, 401]).toContain(after[i]);
          expect(again[i], "admitted as another request").toBe(401);
        });
        expect(await redeem(unsent, 1), "tokens that were never sent").toEqual(
          unsent.map(() => 200),
        );
      }
      console.log(`kill -9: ${JSON.stringify({ rounds: ROUNDS, ...seen })}`);
      expect(seen.admitted).toBeGreaterThan(100 * ROUNDS);
      expect(seen.unanswered).toBeGreaterThan(100 * ROUNDS);
    },
  );
});
