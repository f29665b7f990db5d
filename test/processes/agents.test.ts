/** Agents that sign, at several workers: what one has let in, no other lets in again. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { exchange, type ExchangeAnswer } from "../../service/agent/exchange.ts";
import { startDemoUpstream } from "../../service/dev/demo-upstream.ts";
import { openKeeper, openWorker, prepareService } from "../support/keeper-and-workers.ts";
import { problemIn } from "../support/sidecar.ts";
import { newAgentKeys, signedHeaders } from "../support/signing-agent.ts";

const WORKERS = 3;
const keys = newAgentKeys("crawler");

interface Service {
  /** Signed for this path, with a nonce of its own. */
  readonly sign: (path: string) => Record<string, string>;
  readonly ask: (
    worker: number,
    path: string,
    headers: Record<string, string>,
  ) => Promise<ExchangeAnswer>;
  readonly hits: () => number;
  readonly endKeeper: () => Promise<void>;
}

async function startService(): Promise<Service> {
  const dir = mkdtempSync(join(tmpdir(), "stile-agents-"));
  onTestFinished(() => rmSync(dir, { recursive: true }));
  const upstream = await startDemoUpstream();
  onTestFinished(() => upstream.stop());
  const jwksFile = join(dir, "crawler.json");
  writeFileSync(jwksFile, keys.jwks);
  const agent = { name: "crawler", jwksFile, components: ["@method"], maxAgeSeconds: 300 };
  const { caFile, config, port } = await prepareService(dir, upstream.url, {
    edge: {
      agents: [{ ...agent, nonce: "optional" }],
      rules: [
        { name: "crawlers", action: "open", agents: ["crawler"], paths: ["/signed"] },
        { name: "rest", action: "open", paths: ["/signed/for-all"] },
      ],
    },
  });
  const processes = { ...config.processes, workers: WORKERS, keeperWaitSeconds: 1 };
  const keeper = await openKeeper({ ...config, processes });
  const ports: number[] = [];
  for (let id = 1; id <= WORKERS; id += 1) {
    ports.push(await openWorker({ ...config, processes }, id, 0));
  }
  const ca = readFileSync(caFile, "utf8");
  const host = `localhost:${port}`;
  return {
    sign: (path) =>
      signedHeaders({ host, path, key: keys.privateKey, kid: "crawler", createdMs: Date.now() }),
    ask: (worker, path, headers) =>
      exchange({
        url: `https://localhost:${ports[worker]}${path}`,
        method: "GET",
        headers: { ...headers, host },
        ca,
      }),
    hits: upstream.hits,
    endKeeper: () => keeper.leave(0),
  };
}

it("lets each signature in once, whichever workers it comes to, and however closely", async () => {
  const { ask, hits, sign } = await startService();
  const first = sign("/signed");
  expect((await ask(0, "/signed", first)).status).toBe(200);
  for (const worker of [1, 2, 0]) {
    const again = await ask(worker, "/signed", first);
    expect(again.status).toBe(401);
    expect(problemIn(again).type).toBe("urn:stile:problem:service-signature-replayed");
  }
  for (let i = 0; i < 10; i += 1) {
    const headers = sign("/signed");
    const at = Array.from({ length: 2 * WORKERS }, (_, n) => ask(n % WORKERS, "/signed", headers));
    const statuses = (await Promise.all(at)).map(({ status }) => status);
    expect(statuses.toSorted((a, b) => a - b)).toEqual([200, ...Array<number>(5).fill(401)]);
  }
  expect(hits()).toBe(11);
});

it("rejects what is signed while nobody can tell whether it was used, and no other request", async () => {
  const { ask, endKeeper, sign } = await startService();
  // Of the connection that is used again below, and so that every part was asked once.
  expect((await ask(0, "/signed", sign("/signed"))).status).toBe(200);
  await endKeeper();
  const refused = await ask(0, "/signed", sign("/signed"));
  expect(refused.status).toBe(503);
  expect(problemIn(refused).type).toBe("urn:stile:problem:service-overloaded");
  const forAll = await ask(0, "/signed/for-all", sign("/signed/for-all"));
  expect(forAll.status).toBe(200);
  expect(Buffer.from(forAll.body).toString()).toContain('"stile-admission": "open"');
});
