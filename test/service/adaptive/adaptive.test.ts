/** An edge in the mode adaptive: by its own fast path and by the general one, under load, and with a sick upstream. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import type { EdgeAdaptiveConfig } from "../../../service/config/index.ts";
import { openRaw, pipelineRaw, rawGet } from "../../support/raw-client.ts";
import { startTestSidecar, type TestSidecar } from "../../support/sidecar.ts";

const MINUTE = 60_000;
const SETTINGS: EdgeAdaptiveConfig = {
  unadmitted: { above: 50, below: 10 },
  slow: { afterMs: 100, above: 5, below: 1 },
  failures: { above: 5, below: 1 },
  windowSeconds: 10,
  challengeSeconds: 30,
  calmSeconds: 30,
};

async function metric(target: TestSidecar, line: string): Promise<number> {
  const text = await target.sidecar.metrics.registry.metrics();
  const found = text.split("\n").find((one) => one.startsWith(`${line} `));
  return Number(found?.slice(line.length + 1) ?? 0);
}

/** Lets all be calm for long enough. */
function turnCalm(target: TestSidecar): void {
  target.clock.offsetMs += 10 * MINUTE;
}

const admissionIn = (body: Uint8Array): string | undefined =>
  (JSON.parse(Buffer.from(body).toString()) as { headers: Record<string, string> }).headers[
    "stile-admission"
  ];

type Mood = "well" | "failing" | "late";

/** An upstream that answers with the headers that it got, in one of its moods, and counts. */
async function moodyUpstream(): Promise<{
  url: string;
  mood: Mood;
  hits: number;
  stop: () => void;
}> {
  const server = createServer((request, response) => {
    upstream.hits += 1;
    request.resume();
    response.statusCode = upstream.mood === "failing" ? 503 : 200;
    const body = JSON.stringify({ headers: request.headers });
    setTimeout(() => response.end(body), upstream.mood === "late" ? 150 : 0);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const upstream = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    mood: "well" as Mood,
    hits: 0,
    stop: () => {
      server.closeAllConnections();
      server.close();
    },
  };
  return upstream;
}

describe.each([true, false])("an adaptive edge, with fastPath %s", (fastPath) => {
  let upstream: Awaited<ReturnType<typeof moodyUpstream>>;
  let target: TestSidecar;
  let cookie = "";
  const hostLabel = (): string => `host="${target.host}"`;

  /** Each on a connection of its own, all at once. */
  async function ask(times: number): Promise<number[]> {
    const one = (): Promise<number[]> => pipelineRaw(target, [rawGet(target, "/", {})]);
    return (await Promise.all(Array.from({ length: times }, one))).flat();
  }

  beforeAll(async () => {
    upstream = await moodyUpstream();
    const rules = [{ name: "admin", action: "block", paths: ["/admin"] }] as const;
    const edge = { mode: "adaptive", adaptive: SETTINGS, rules, fastPath } as const;
    target = await startTestSidecar({ upstreamUrl: upstream.url, edge });
  });
  afterAll(async () => {
    await target.stop();
    upstream.stop();
  });

  it("challenges at its start, since nothing was measured yet", async () => {
    expect((await target.get("/")).status).toBe(401);
    expect(upstream.hits).toBe(0);
    expect(await metric(target, `stile_adaptive_challenging{${hostLabel()}}`)).toBe(1);
  });

  it("forwards and says so once it was calm, takes tokens all the same, and blocks what is blocked", async () => {
    const authorization = await target.mint();
    turnCalm(target);
    const open = await target.get("/x");
    expect([open.status, admissionIn(open.body)]).toEqual([200, "adaptive-open"]);
    expect(open.headers["set-cookie"]).toBeUndefined();
    const wrong = await target.get("/x", { authorization: 'PrivateToken token="AAI="' });
    expect([wrong.status, admissionIn(wrong.body)]).toEqual([200, "adaptive-open"]);
    const paid = await target.get("/x", { authorization });
    expect([paid.status, admissionIn(paid.body)]).toEqual([200, "token"]);
    cookie = String(paid.headers["set-cookie"]).split(";")[0] ?? "";
    expect(admissionIn((await target.get("/x", { cookie })).body)).toBe("clearance");
    expect((await target.get("/admin")).status).toBe(403);
    expect(await metric(target, `stile_adaptive_challenging{${hostLabel()}}`)).toBe(0);
  });

  it("challenges under load, however much is admitted beside it, and opens when it is over", async () => {
    expect((await target.get("/")).status).toBe(200);
    upstream.hits = 0;
    // However long the requests take: on a busy machine they would be fewer in the time.
    target.clock.standsAtMs = Date.now() + target.clock.offsetMs;
    const bare = rawGet(target, "/", {});
    const cleared = rawGet(target, "/", { Cookie: cookie });
    const statuses: number[] = [];
    for (let i = 0; i < 25; i += 1) {
      const pairs = Array.from({ length: 40 }, () => [cleared, bare]);
      statuses.push(...(await pipelineRaw(target, pairs.flat())));
    }
    expect(statuses.length).toBe(2_000);
    expect(statuses.filter((status, i) => i % 2 === 0 && status !== 200)).toEqual([]);
    const passed = statuses.filter((status, i) => i % 2 === 1 && status === 200).length;
    expect(statuses.filter((status) => status === 401).length).toBe(1_000 - passed);
    expect(passed).toBeGreaterThan(480);
    expect(passed).toBeLessThan(520);
    target.clock.standsAtMs = undefined;
    expect(upstream.hits).toBe(1_000 + passed);
    expect((await target.get("/")).status).toBe(401);
    const transitions = `stile_adaptive_transitions_total{${hostLabel()},why="unadmitted"}`;
    expect(await metric(target, transitions)).toBe(1);
    const [said, ...more] = target.lines.filter((line) => line.includes('"edge.challenging"'));
    expect(JSON.parse(said ?? "")).toEqual({
      level: "warn",
      event: "edge.challenging",
      host: target.host,
      why: "unadmitted",
    });
    expect(more).toEqual([]);
    turnCalm(target);
    expect((await target.get("/")).status).toBe(200);
  });

  it.each([
    ["failing", "failures"],
    ["late", "slow"],
  ] as const)("challenges while the upstream is %s", async (mood, why) => {
    turnCalm(target);
    // On a busy machine they would be late themselves.
    target.clock.standsAtMs = Date.now() + target.clock.offsetMs;
    expect((await ask(100)).every((status) => status === 200)).toBe(true);
    target.clock.standsAtMs = undefined;
    upstream.mood = mood;
    await ask(80);
    expect(await ask(5)).toEqual([401, 401, 401, 401, 401]);
    expect(
      await metric(target, `stile_adaptive_transitions_total{${hostLabel()},why="${why}"}`),
    ).toBe(1);
    upstream.mood = "well";
    turnCalm(target);
    expect(await ask(1)).toEqual([200]);
  });

  it("does not blame the upstream for clients that leave, or that are slow to send", async () => {
    turnCalm(target);
    expect(await ask(1)).toEqual([200]);
    upstream.mood = "late";
    upstream.hits = 0;
    // However long the connections take: on a busy machine they would be late themselves.
    target.clock.standsAtMs = Date.now() + target.clock.offsetMs;
    const leaving = await Promise.all(Array.from({ length: 80 }, () => openRaw(target)));
    for (const socket of leaving) socket.write(rawGet(target, "/", {}));
    await vi.waitUntil(() => upstream.hits === 80, { interval: 5, timeout: 10_000 });
    for (const socket of leaving) socket.destroy();
    upstream.mood = "well";
    const slow = await Promise.all(Array.from({ length: 60 }, () => openRaw(target)));
    for (const socket of slow) {
      socket.write(`POST / HTTP/1.1\r\nHost: ${target.host}\r\nContent-Length: 2\r\n\r\nx`);
    }
    await vi.waitUntil(() => upstream.hits === 140, { interval: 5, timeout: 10_000 });
    target.clock.standsAtMs += 1_000;
    for (const socket of slow) socket.write("y");
    expect(await ask(1)).toEqual([200]);
    for (const socket of slow) socket.destroy();
    turnCalm(target);
    target.clock.standsAtMs = undefined;
  });

  it("challenges with the store of spent tokens down, too, as soon as the load says so", async () => {
    const flood = Array.from({ length: 800 }, () => rawGet(target, "/", {}));
    turnCalm(target);
    await pipelineRaw(target, flood);
    const authorization = await target.mint();
    turnCalm(target);
    await target.sidecar.closeSpentStore();
    expect((await target.get("/", { authorization })).status).toBe(200);
    await pipelineRaw(target, flood);
    expect((await target.get("/", { authorization })).status).toBe(503);
  });
});

describe("the settings of an adaptive edge", () => {
  it.each([
    ["a mode without its section", { mode: "adaptive" }, "missing setting edge.adaptive"],
    ["a section without the mode", { adaptive: SETTINGS }, "edge.adaptive is not for"],
    [
      "thresholds that are not two",
      { mode: "adaptive", adaptive: { ...SETTINGS, failures: { above: 5, below: 5 } } },
      "edge.adaptive.failures.below must be below edge.adaptive.failures.above",
    ],
    [
      "the questions of another proxy",
      { mode: "adaptive", adaptive: SETTINGS, authorize: { headers: "original" } },
      "edge.authorize.headers must be off",
    ],
  ] as const)("rejects %s", async (_, edge, message) => {
    const listen = { trustedProxies: ["127.0.0.0/8"] };
    await expect(startTestSidecar({ listen, edge })).rejects.toMatchObject({
      code: "SERVICE_CONFIG_INVALID",
      message: expect.stringContaining(message) as string,
    });
  });
});
