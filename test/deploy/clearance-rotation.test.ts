/**
 * HAProxy, which verifies clearances with two keys from files, while the key is rotated and revoked: with the recipe of
 * deploy/, and `stile clearance-key` before each reload. Skipped where HAProxy is not installed.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { Agent } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { exchange, type ExchangeAnswer } from "../../service/agent/exchange.ts";
import { freePort } from "../support/free-port.ts";
import { childrenOf } from "../support/process-tree.ts";
import { writeClearanceKey, writeRecipeFiles } from "../support/recipe-files.ts";
import { hasProxy, type RecipeProxy, startRecipe } from "../support/recipe-proxy.ts";
import { type RecordedApp, startRecordedApp } from "../support/recorded-app.ts";
import { startTestSidecar, type TestSidecar } from "../support/sidecar.ts";

const DAY = 86_400_000;
const COOKIE = "__Host-stile";
const PATIENCE = { timeout: 30_000, interval: 50 };

describe.skipIf(!hasProxy("haproxy"))("HAProxy", { timeout: 120_000 }, () => {
  const dir = mkdtempSync(join(tmpdir(), "stile-deploy-rotation-"));
  let app: RecordedApp;
  let target: TestSidecar;
  let proxy: RecipeProxy;
  let host = "";

  beforeAll(async () => {
    app = await startRecordedApp();
    const port = await freePort();
    host = `localhost:${port}`;
    target = await startTestSidecar({
      listen: { trustedProxies: ["127.0.0.1"] },
      edge: { hosts: ["localhost", host] },
      upstreamUrl: `http://127.0.0.1:${app.port}`,
    });
    writeRecipeFiles(dir, target);
    expect(await writeClearanceKey(dir)).toEqual([0, "changed\n"]);
    const ports = { port, sidecarPort: target.port, upstreamPort: app.port };
    proxy = await startRecipe("haproxy", { dir, issuer: target.url, reloads: true, ...ports });
  });
  afterAll(async () => {
    await proxy.stop();
    await target.stop();
    await app.close();
    rmSync(dir, { recursive: true });
  });

  function get(headers: Record<string, string>, agent?: Agent): Promise<ExchangeAnswer> {
    const asked = { url: `https://${host}/`, method: "GET", headers, ca: target.ca } as const;
    return exchange({ ...asked, ...(agent === undefined ? {} : { agent }) });
  }

  async function newCookie(): Promise<string> {
    const admitted = await get({ authorization: await target.mintFor(await get({})) });
    expect(admitted.status).toBe(200);
    const lines = admitted.headers["set-cookie"] ?? [];
    return lines.find((line) => line.startsWith(COOKIE))?.split(";")[0] ?? "";
  }

  /** Its files have been read by the process that takes connections then: a signal meanwhile would be lost. */
  async function reload(): Promise<void> {
    const before = new Set(childrenOf(proxy.pid));
    process.kill(proxy.pid, "SIGUSR2");
    const hasNew = (): boolean => childrenOf(proxy.pid).some((pid) => !before.has(pid));
    await expect.poll(hasNew, PATIENCE).toBe(true);
  }

  function kidOf(cookie: string): string {
    const [header = ""] = cookie.slice(COOKIE.length + 1).split(".");
    return (JSON.parse(Buffer.from(header, "base64url").toString()) as { kid: string }).kid;
  }

  /** Whether HAProxy lets it in, without asking Stile. */
  async function isTakenBy(cookie: string): Promise<boolean> {
    const asked = async (): Promise<string> => {
      const text = await target.sidecar.metrics.registry.metrics();
      return /stile_admissions_total\{by="clearance"\} (\d+)/.exec(text)?.[1] ?? "0";
    };
    const before = await asked();
    const { status } = await get({ cookie });
    expect([200, 401]).toContain(status);
    return status === 200 && (await asked()) === before;
  }

  const takes = (...cookies: readonly string[]): Promise<boolean[]> =>
    Promise.all(cookies.map((cookie) => isTakenBy(cookie)));

  it("takes the clearances of both keys throughout a rotation, and none of a revoked key", async () => {
    const first = await newCookie();
    expect(await isTakenBy(first)).toBe(true);
    expect((await writeClearanceKey(dir, "rotate"))[0]).toBe(0);
    expect(await writeClearanceKey(dir)).toEqual([0, "changed\n"]);
    await reload();
    target.clock.offsetMs += DAY;
    const second = await newCookie();
    expect(kidOf(second)).not.toBe(kidOf(first));
    // It had the key a day before.
    await expect.poll(() => takes(first, second), PATIENCE).toEqual([true, true]);
    expect(await writeClearanceKey(dir)).toEqual([0, "changed\n"]);
    await reload();
    await expect.poll(() => takes(first, second), PATIENCE).toEqual([true, true]);
    expect(await writeClearanceKey(dir)).toEqual([0, "unchanged\n"]);

    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    expect((await get({ cookie: second }, agent)).status).toBe(200);
    expect((await writeClearanceKey(dir, "revoke", kidOf(second)))[0]).toBe(0);
    // HAProxy is not told: that is what the reload is for.
    expect(await isTakenBy(second)).toBe(true);
    expect(await writeClearanceKey(dir)).toEqual([0, "changed\n"]);
    await reload();
    const status = async (of?: Agent): Promise<number> =>
      (await get({ cookie: second }, of)).status;
    await expect.poll(() => Promise.all([status(), status()]), PATIENCE).toEqual([401, 401]);
    // The connection on which it held is not spared.
    await expect.poll(() => status(agent), PATIENCE).toBe(401);
    agent.destroy();
    const third = await newCookie();
    await expect.poll(() => takes(first, third), PATIENCE).toEqual([true, true]);
  });
});
