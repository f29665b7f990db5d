/** Active checks: what takes an upstream out, what brings it back, and what they look like to it. */
import { createServer, type IncomingMessage } from "node:http";
import { setTimeout as wait } from "node:timers/promises";
import { expect, test } from "vitest";
import type { HealthCheckOptions, Upstreams } from "../../../tls/index.ts";
import { upstreamsTo } from "../../support/tls-edge.ts";
import { closeAfterTest, edgeTo, listenOn, talk } from "../../support/tls-edges.ts";

const GET = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
const CHECK: HealthCheckOptions = {
  path: "/health?from=edge",
  host: "app.example",
  intervalMs: 10,
  timeoutMs: 100,
  healthy: 2,
  unhealthy: 3,
  expectedStatus: 204,
};

interface Checked {
  /** What the checks get; 0: no answer. */
  status: number;
  /** What the next ones get. */
  script: number[];
  readonly url: string;
  readonly checks: IncomingMessage[];
}

async function checkedServer(): Promise<Checked> {
  const server = createServer((request, response) => {
    if (request.url === "/") {
      response.end("app");
      return;
    }
    checked.checks.push(request);
    const status = checked.script.shift() ?? checked.status;
    if (status > 0) response.writeHead(status).end();
  });
  const port = await listenOn(server);
  const checked: Checked = { status: 204, script: [], url: `http://127.0.0.1:${port}`, checks: [] };
  closeAfterTest(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  return checked;
}

function checkedUpstreams(servers: readonly Checked[]): {
  readonly upstreams: Upstreams;
  readonly events: string[];
} {
  const events: string[] = [];
  const upstreams = upstreamsTo(
    servers.map(({ url }) => url),
    { healthCheck: CHECK, observe: (event, name) => void events.push(`${event} ${name}`) },
  );
  return { upstreams, events };
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await wait(5);
}

test("take an upstream out that answers otherwise or not at all, and bring it back", async () => {
  const servers = [await checkedServer(), await checkedServer()] as const;
  const { events, upstreams } = checkedUpstreams(servers);
  const edge = await edgeTo("", { upstreams });
  await until(() => servers[0].checks.length > 0);
  const [check] = servers[0].checks;
  expect(check?.method).toBe("GET");
  expect(check?.url).toBe(CHECK.path);
  expect(check?.headers).toStrictEqual({
    host: CHECK.host,
    "user-agent": "stile-health-check",
    connection: "close",
  });
  servers[0].status = 500;
  await until(() => events.length === 1);
  servers[1].status = 0;
  await until(() => events.length === 2);
  expect(events).toStrictEqual(["unhealthy 0", "unhealthy 1"]);
  expect(await talk(edge, GET)).toMatch(/^HTTP\/1.1 503 /);
  expect(edge.codes).toStrictEqual(["TLS_UPSTREAM_UNHEALTHY"]);
  servers[1].status = 204;
  await until(() => events.length === 3);
  expect(events[2]).toBe("healthy 1");
  expect(await talk(edge, GET)).toContain("app");
  expect(upstreams.all.map(({ outcomes }) => outcomes.answered)).toStrictEqual([0, 1]);
});

test("count the only upstream too, and end with their upstreams", async () => {
  const server = await checkedServer();
  server.status = 404;
  const { events, upstreams } = checkedUpstreams([server]);
  await until(() => events.length === 1);
  // Not one bad check, but three in a row.
  expect(server.checks).toHaveLength(CHECK.unhealthy);
  upstreams.close();
  const count = server.checks.length;
  await wait(60);
  expect(server.checks).toHaveLength(count);
});

test("need their number in a row, not in all", async () => {
  const server = await checkedServer();
  const { events, upstreams } = checkedUpstreams([server]);
  server.script = [500, 500, 204, 500, 204, 500, 500, 204];
  await until(() => server.script.length === 0);
  upstreams.close();
  expect(server.checks.length).toBeGreaterThan(7);
  expect(events).toStrictEqual([]);
});
