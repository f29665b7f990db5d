/**
 * Crash safety of redemption: the sidecar is killed at random moments while 2,000 redemptions are in
 * flight. After each restart, no token that was answered "admitted" is admitted again, whatever was not
 * answered is admitted at most once, and tokens that were never sent are good.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { exchange } from "../../service/agent/exchange.ts";
import { parseWwwAuthenticate } from "../../tokens/index.ts";
import { type ChildSidecar, freePort, startChildSidecar } from "../support/child-sidecar.ts";
import { type Mint, openMint } from "../support/mint.ts";
import { pipelineRaw, rawGet, type RawTarget } from "../support/raw-client.ts";

const ROUNDS = Number(process.env["KILL_ROUNDS"] ?? "4");
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

  /** The status of each token, in order; 0 where no answer came. */
  async function redeem(tokens: readonly string[], perConnection: number): Promise<number[]> {
    const groups: (readonly string[])[] = [];
    for (let i = 0; i < tokens.length; i += perConnection)
      groups.push(tokens.slice(i, i + perConnection));
    const answers = await Promise.all(groups.map((group) => pipelineRaw(target, group.map(get))));
    return groups.flatMap((group, g) => group.map((_, i) => answers[g]?.[i] ?? 0));
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
        const unsent = tokens.slice(0, UNSENT);
        const answering = redeem(sent, PER_CONNECTION);
        await delay(100 + random() * 1_200);
        await child.end("SIGKILL");
        const before = await answering;
        child = await startChildSidecar(dir, target.port);
        const after = await redeem(sent, PER_CONNECTION);
        const again = await redeem(sent, PER_CONNECTION);
        before.forEach((status, i) => {
          if (status === 200) {
            seen.admitted += 1;
            expect(after[i], "admitted before the kill, and again").toBe(401);
          } else {
            expect(status, "refused or unanswered").toBe(0);
            seen.unanswered += 1;
            if (after[i] === 200) seen.rescued += 1;
            expect([200, 401]).toContain(after[i]);
          }
          expect(again[i], "admitted a second time").toBe(401);
        });
        expect(await redeem(unsent, 1), "tokens that were never sent").toEqual(
          unsent.map(() => 200),
        );
      }
      console.log(`kill -9: ${JSON.stringify({ rounds: ROUNDS, ...seen })}`);
      expect(seen.admitted).toBeGreaterThan(0);
      expect(seen.unanswered).toBeGreaterThan(0);
    },
  );
});
