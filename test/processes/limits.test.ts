/** Limits that are configured for the service, at several workers: all of them together let in no more than that. */
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect as connectTcp } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { describe, expect, it, onTestFinished } from "vitest";
import { exchange } from "../../service/agent/exchange.ts";
import { startDemoUpstream } from "../../service/dev/demo-upstream.ts";
import type { DevelopmentOverrides } from "../../service/dev/development.ts";
import { openKeeper, openWorker, prepareService } from "../support/keeper-and-workers.ts";

const WORKERS = 2;

interface Service {
  readonly ports: readonly number[];
  readonly ca: string;
  readonly host: string;
}

async function startService(overrides: DevelopmentOverrides): Promise<Service> {
  const dir = mkdtempSync(join(tmpdir(), "stile-limits-"));
  onTestFinished(() => rmSync(dir, { recursive: true }));
  const upstream = await startDemoUpstream();
  onTestFinished(() => upstream.stop());
  const { caFile, config, port } = await prepareService(dir, upstream.url, overrides);
  const several = { ...config, processes: { ...config.processes, workers: WORKERS } };
  await openKeeper(several);
  const ports: number[] = [];
  for (let id = 1; id <= WORKERS; id += 1) ports.push(await openWorker(several, id, 0));
  return { ports, ca: readFileSync(caFile, "utf8"), host: `localhost:${port}` };
}

/** Whether a TLS connection from this address comes about; it stays open until the test ends. */
async function isLetIn({ ca }: Service, port: number, localAddress: string): Promise<boolean> {
  const raw = connectTcp({ port, host: "127.0.0.1", localAddress });
  const socket = connectTls({ socket: raw, servername: "localhost", ca });
  onTestFinished(() => void socket.destroy());
  return Promise.race([
    once(socket, "secureConnect").then(() => true),
    once(socket, "close").then(() => false),
  ]).catch(() => false);
}

describe("two workers", () => {
  it("let one address have what is configured, together, and answer others", async () => {
    const service = await startService({ tls: { maxConnectionsPerAddress: 12 } });
    let open = 0;
    for (const port of service.ports) {
      for (let i = 0; i < 12; i += 1) open += Number(await isLetIn(service, port, "127.0.0.2"));
    }
    expect(open).toBe(12);
    for (const port of service.ports) expect(await isLetIn(service, port, "127.0.0.3")).toBe(true);
  });

  it("let as many unproven requests in as is configured, together, before each challenges", async () => {
    // A burst of 60, of which little is forgotten within the test.
    const { ca, host, ports } = await startService({
      edge: {
        mode: "adaptive",
        adaptive: {
          unadmitted: { above: 0.1, below: 0.09 },
          slow: { afterMs: 600_000, above: 1_000, below: 100 },
          failures: { above: 1_000, below: 100 },
          windowSeconds: 600,
          challengeSeconds: 1,
          calmSeconds: 1,
        },
      },
    });
    const statusAt = async (port: number): Promise<number> => {
      const url = `https://localhost:${port}/`;
      return (await exchange({ url, method: "GET", headers: { host }, ca })).status;
    };
    let asked = 0;
    let letIn = 0;
    for (const port of ports) {
      // It starts with challenges; asking counts, and it must be calm for a second.
      await expect
        .poll(() => ((asked += 1), statusAt(port)), { timeout: 20_000, interval: 1_500 })
        .toBe(200);
      letIn += 1;
      while ((await statusAt(port)) === 200 && letIn < 1_000) letIn += 1;
    }
    // What was asked before counts as well; a worker alone with all of the thresholds lets 60 in.
    expect(letIn + asked).toBeGreaterThan(50);
    expect(letIn).toBeLessThan(80);
  });
});
