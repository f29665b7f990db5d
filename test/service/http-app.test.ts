/** When Stile's own endpoints shed load. */
import { afterEach, expect, test } from "vitest";
import { createTrustedProxies } from "../../service/edge/trusted-proxies.ts";
import { createHttpApp } from "../../service/http/app.ts";
import { createLog } from "../../service/log.ts";
import { createMetrics } from "../../service/metrics.ts";

const closers: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

/** One whole measurement of the loop, in which it turns again after each of these blocks. */
async function statusAfter(blocksMs: readonly number[]): Promise<number> {
  const app = await createHttpApp({
    log: createLog("silent"),
    metrics: createMetrics(),
    requestsPerMinute: 1_000,
    proxies: createTrustedProxies([]),
    version: "0",
  });
  closers.push(() => app.close());
  app.get("/", () => ({}));
  await app.ready();
  for (const ms of blocksMs) {
    const until = performance.now() + ms;
    while (performance.now() < until);
    await new Promise((resolve) => setTimeout(resolve, 11));
  }
  return (await app.inject("/")).statusCode;
}

test("a start that blocks the loop is no load", async () => {
  expect(await statusAfter([1_100])).toBe(200);
});

test("a loop that takes more than a second for a turn is", async () => {
  expect(await statusAfter([0, 2_500])).toBe(503);
});
