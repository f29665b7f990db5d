/** Keys of type 0xDA7A as a sidecar makes them: at its first start, and at a rotation. Safe primes take their time. */
import { expect, it, onTestFinished } from "vitest";
import { parseIssuerDirectory } from "../../tokens/index.ts";
import { startTestSidecar } from "../support/sidecar.ts";

const TYPE = 0xda7a;
const LIMIT_MS = 600_000;

it(
  "makes a key before it listens, and its successor while it serves",
  { timeout: LIMIT_MS },
  async () => {
    const target = await startTestSidecar({
      issuer: {
        tokenTypes: [TYPE],
        publicMetadata: { expirationPrecisionSeconds: 86_400, maxLifetimeSeconds: 172_800 },
      },
    });
    onTestFinished(() => target.stop());
    const keysListed = async (): Promise<number> => {
      const { body } = await target.get("/.well-known/private-token-issuer-directory");
      const { tokenKeys } = parseIssuerDirectory(body);
      return tokenKeys.filter(({ tokenType }) => tokenType === TYPE).length;
    };
    expect(await keysListed()).toBe(1);
    expect((await target.get("/")).headers["www-authenticate"]).toMatch(
      /^PrivateToken challenge="2n/,
    );
    const rotated = fetch(`${target.sidecar.operatorAddress}/keys/rotate`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ tokenType: TYPE }),
    });
    let slowestMs = 0;
    const done = rotated.then(() => true);
    for (let isDone = false; !isDone;) {
      const startedMs = performance.now();
      expect((await target.get("/")).status).toBe(401);
      slowestMs = Math.max(slowestMs, performance.now() - startedMs);
      isDone = await Promise.race([done, Promise.resolve(false)]);
    }
    expect((await rotated).status).toBeLessThan(300);
    expect(await keysListed()).toBe(2);
    // The search is on a thread: requests go on meanwhile.
    expect(slowestMs).toBeLessThan(1_000);
  },
);
