/** The device agent at an origin that is its own issuer and asks for tokens that only the issuer verifies. */
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Agent, openAgent } from "../../service/agent/agent.ts";
import { openManufacturerCa, startSwtpm, type Swtpm } from "../../swtpm/index.ts";
import { parseToken } from "../../tokens/index.ts";
import { startTestSidecar, type TestSidecar } from "../support/sidecar.ts";

const now = (): number => Date.now();

describe.each([
  [1, [1, 2]],
  [5, [5, 1, 2]],
  [2, [2, 5, 1]],
] as const)("an agent where type %i is preferred", (type, tokenTypes) => {
  let target: TestSidecar;
  let tpm: Swtpm;
  let agent: Agent;

  beforeAll(async () => {
    target = await startTestSidecar({
      attester: { allowance: { tokens: 10, windowSeconds: 86_400 } },
      edge: { redemptionContext: "none", clearanceSeconds: 0 },
      issuer: { tokenTypes: [...tokenTypes] },
    });
    const ca = await openManufacturerCa({ clock: now, folder: join(target.dir, "manufacturer") });
    tpm = await startSwtpm({ ca, ekAlgorithms: ["ecc"] });
    agent = await openAgent({
      attester: target.url,
      ca: target.ca,
      tcti: tpm.tcti,
      ekAlgorithm: "ecc",
      walletDir: join(target.dir, "wallet"),
      clock: now,
      random: (length) => Uint8Array.from(randomBytes(length)),
    });
  });

  afterAll(async () => {
    await agent.close();
    await tpm.stop();
    await target.stop();
  });

  it("gets a batch in one request, and is admitted once with each token of it", async () => {
    const url = `${target.url}/`;
    const challenge = await agent.challengeOf(url);
    for (let left = 9; left >= 0; left -= 1) {
      const { status, token } = await agent.fetch(url);
      expect([status, parseToken(token!).tokenType, agent.count(challenge)]).toEqual([
        200,
        type,
        left,
      ]);
    }
    expect(target.upstream.hits()).toBe(10);
    const metrics = await target.sidecar.metrics.registry.metrics();
    expect(metrics).toMatch(/^stile_token_requests_total\{[^}]*\} 1$/m);
  });
});
