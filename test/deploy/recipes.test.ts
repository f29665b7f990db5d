/**
 * The recipes of deploy/ with the real proxies: a sidecar, an application behind, and Debian's nginx, HAProxy
 * and Caddy before both. Proxies that are not installed are skipped.
 */
import { createPublicKey, type KeyObject } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import type { IncomingHttpHeaders } from "node:http";
import { connect as connectHttp2 } from "node:http2";
import { Agent } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { exchange, type ExchangeAnswer } from "../../service/agent/exchange.ts";
import { parseWwwAuthenticate } from "../../tokens/index.ts";
import { freePort } from "../support/free-port.ts";
import { forgeClearances, openClearanceKey } from "../support/clearance-forger.ts";
import { openRaw, rawGet } from "../support/raw-client.ts";
import { writeClearanceKey, writeRecipeFiles } from "../support/recipe-files.ts";
import {
  hasProxy,
  type ProxyName,
  type RecipeProxy,
  startRecipe,
} from "../support/recipe-proxy.ts";
import { type RecordedApp, type Seen, startRecordedApp } from "../support/recorded-app.ts";
import { startTestSidecar, type TestSidecar } from "../support/sidecar.ts";
import { readAll, readUntil } from "../support/tls-edge.ts";

const NAMES: readonly ProxyName[] = ["nginx", "haproxy", "caddy", "envoy", "envoy-grpc", "traefik"];
const installed = NAMES.filter((name) => hasProxy(name));
/** These verify clearances by themselves. */
const VERIFIERS: ReadonlySet<ProxyName> = new Set(["haproxy", "envoy"]);
const COOKIE = "__Host-stile";

const dir = mkdtempSync(join(tmpdir(), "stile-deploy-"));
const ports = new Map<ProxyName, number>();
const proxies: RecipeProxy[] = [];
let key: Promise<KeyObject> | undefined;
let app: RecordedApp;
let seen: Seen[];
let target: TestSidecar;

beforeAll(async () => {
  app = await startRecordedApp();
  seen = app.seen;
  for (const name of installed) ports.set(name, await freePort());
  const extAuthzPort = await freePort();
  target = await startTestSidecar({
    listen: { trustedProxies: ["127.0.0.1"] },
    edge: {
      hosts: ["localhost", ...[...ports.values()].map((port) => `localhost:${port}`)],
      authorize: { headers: "forwarded" },
      extAuthz: { listen: `127.0.0.1:${extAuthzPort}` },
    },
    upstreamUrl: `http://127.0.0.1:${app.port}`,
  });
  writeRecipeFiles(dir, target);
  expect(await writeClearanceKey(dir)).toEqual([0, "changed\n"]);
  const shared = {
    dir,
    sidecarPort: target.port,
    upstreamPort: app.port,
    issuer: target.url,
    extAuthzPort,
  };
  await Promise.all(
    [...ports].map(async ([name, port]) => {
      proxies.push(await startRecipe(name, { ...shared, port }));
    }),
  );
});
afterAll(async () => {
  for (const proxy of proxies) await proxy.stop();
  await target.stop();
  await app.close();
  rmSync(dir, { recursive: true });
});

function hostOf(name: ProxyName): string {
  return `localhost:${ports.get(name)}`;
}

function get(
  name: ProxyName,
  path: string,
  headers: Record<string, string> = {},
): Promise<ExchangeAnswer> {
  const url = `https://${hostOf(name)}${path}`;
  return exchange({ url, method: "GET", headers, ca: target.ca });
}

/** Everything that the proxy answers on a connection, until it has said so much or ends. */
async function raw(
  name: ProxyName,
  path: string,
  headers: Record<string, string>,
): Promise<string> {
  const at = { port: ports.get(name) ?? 0, ca: target.ca, host: hostOf(name) };
  const socket = await openRaw(at);
  const answer =
    headers["connection"] === "close" ? readAll(socket) : readUntil(socket, "\r\n\r\n");
  socket.write(rawGet(at, path, headers));
  const text = await answer;
  socket.destroy();
  return text;
}

/** An Authorization header with a token for what this proxy's client is challenged with. */
async function mint(name: ProxyName): Promise<string> {
  return target.mintFor(await get(name, "/"));
}

/** Requests one behind the other on a connection of their own; fails where there was another one. */
async function onOneConnection<T>(
  name: ProxyName,
  use: (ask: (headers: Record<string, string>) => Promise<number>) => Promise<T>,
): Promise<T> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  let connections = 0;
  const { createConnection } = agent;
  agent.createConnection = function counted(...args) {
    connections += 1;
    return createConnection.apply(this, args);
  };
  const url = `https://${hostOf(name)}/`;
  try {
    const result = await use(async (headers) => {
      return (await exchange({ url, method: "GET", headers, ca: target.ca, agent })).status;
    });
    expect(connections).toBe(1);
    return result;
  } finally {
    agent.destroy();
  }
}

function clearanceIn({ headers }: ExchangeAnswer): string | undefined {
  return headers["set-cookie"]?.find((line) => line.startsWith(`${COOKIE}=`))?.split(";")[0];
}

function textOf(answer: ExchangeAnswer): string {
  return Buffer.from(answer.body).toString();
}

/** What the application saw of a request that is to reach it. */
async function reached(answer: Promise<ExchangeAnswer>): Promise<Seen> {
  const before = seen.length;
  expect((await answer).status).toBe(200);
  expect(seen.length).toBe(before + 1);
  const last = seen.at(-1);
  if (last === undefined) throw new Error("the application saw nothing");
  return last;
}

async function spends(): Promise<string> {
  const text = await target.sidecar.metrics.registry.metrics();
  return /stile_spends_total\{outcome="fresh"\} (\d+)/.exec(text)?.[1] ?? "0";
}

describe.each(NAMES)("%s, with its recipe", (name) => {
  const isHere = installed.includes(name);

  it.skipIf(!isHere)("challenges who comes without a token, in one whole line", async () => {
    const before = seen.length;
    const text = await raw(name, "/a?b=c", { accept: "*/*", connection: "close" });
    expect(text).toMatch(/^HTTP\/1\.1 401 /);
    const lines = [...text.matchAll(/^www-authenticate: (.*)$/gim)].map((match) => match[1] ?? "");
    expect(lines).toHaveLength(1);
    const [challenge] = parseWwwAuthenticate(lines[0] ?? "");
    expect(challenge?.tokenKey?.length).toBeGreaterThan(256);
    expect(challenge?.tokenChallenge.originInfo).toContain(hostOf(name));
    expect(text).toContain("urn:stile:problem:");
    expect(text).not.toMatch(/^set-cookie/im);
    expect(seen.length).toBe(before);
  });

  it.skipIf(!isHere)("shows a person's browser the page, whose files it serves", async () => {
    const accept = "text/html,application/xhtml+xml";
    const answer = await get(name, "/", { accept });
    expect([answer.status, answer.headers["content-type"]]).toEqual([
      401,
      "text/html; charset=utf-8",
    ]);
    expect(answer.headers["content-security-policy"]).toContain("nonce-");
    const script = /src="(?<path>\/\.stile\/[^"]+)"/.exec(textOf(answer))?.groups?.["path"] ?? "";
    expect((await get(name, script)).headers["content-type"]).toContain("javascript");
  });

  it.skipIf(!isHere)(
    "admits a token once, gives the clearance, and asks for no other",
    async () => {
      const authorization = await mint(name);
      const admitted = await get(name, "/x%2Fy?q=%20", { authorization });
      expect([admitted.status, textOf(admitted)]).toEqual([200, "the application"]);
      expect(seen.at(-1)).toMatchObject({ url: "/x%2Fy?q=%20" });
      expect(seen.at(-1)?.headers["stile-admission"]).toBe("token");
      const cookie = clearanceIn(admitted) ?? "";
      expect(cookie).toMatch(/^__Host-stile=ey/);
      expect(admitted.headers["set-cookie"]).toContain("app=1");
      const spent = await spends();
      const cleared = get(name, "/", { cookie: `a=1; ${cookie}; b=2` });
      const { headers } = await reached(cleared);
      expect(headers["stile-admission"]).toBe("clearance");
      expect(headers.cookie).toBe("a=1; b=2");
      expect(clearanceIn(await cleared)).toBeUndefined();
      expect(await spends()).toBe(spent);
      const again = await get(name, "/", { authorization });
      expect(again.status).toBe(401);
      expect(parseWwwAuthenticate(again.headers["www-authenticate"] ?? "")).toHaveLength(1);
    },
  );

  it.skipIf(!isHere)("gives the clearance with an answer that is an error, too", async () => {
    const missing = await get(name, "/missing", { authorization: await mint(name) });
    expect([missing.status, clearanceIn(missing)?.slice(0, 14)]).toEqual([404, `${COOKIE}=e`]);
  });

  it.skipIf(!isHere)(
    "keeps from the application what a client says in a proxy's name",
    async () => {
      const lies = {
        "stile-admission": "open",
        "stile-other": "1",
        "x-forwarded-for": "203.0.113.5",
        "x-forwarded-host": "evil.example",
        "x-forwarded-proto": "gopher",
        "x-forwarded-uri": "/admin",
        "x-forwarded-method": "DELETE",
        "x-original-url": "/admin",
        "x-original-uri": "/admin",
        "x-rewrite-url": "/admin",
        "x-real-ip": "203.0.113.5",
        forwarded: "for=203.0.113.5",
      };
      const authorization = await mint(name);
      const first = get(name, "/", { ...lies, authorization });
      const cookie = clearanceIn(await first) ?? "";
      const both = [seen.at(-1), await reached(get(name, "/", { ...lies, cookie }))];
      for (const { headers } of both.filter((request) => request !== undefined)) {
        const said = JSON.stringify(headers);
        for (const lie of ["203.0.113.5", "evil.example", "gopher", "/admin", "DELETE", "open"]) {
          expect(said).not.toContain(lie);
        }
        expect(headers).toMatchObject({
          // Envoy says its own address for a client on loopback.
          "x-forwarded-for": name === "envoy" ? expect.any(String) : "127.0.0.1",
          "x-forwarded-host": hostOf(name),
          "x-forwarded-proto": "https",
        });
        expect(said).not.toMatch(/PrivateToken|__Host-stile/);
      }
      const basic = await reached(get(name, "/", { cookie, authorization: "Basic YTpi" }));
      expect(basic.headers).toMatchObject({ authorization: "Basic YTpi" });
      expect(basic.headers.cookie ?? "").toBe("");
    },
  );

  it.skipIf(!isHere)("does not let a client name our headers as its connection's own", async () => {
    const cookie = clearanceIn(await get(name, "/", { authorization: await mint(name) })) ?? "";
    const before = seen.length;
    const answer = await get(name, "/", { cookie, connection: "close, Stile-Admission" });
    if (answer.status === 200) {
      expect(seen.at(-1)?.headers).toMatchObject({ "stile-admission": "clearance" });
    } else {
      expect([answer.status, seen.length]).toEqual([400, before]);
    }
  });

  it.skipIf(!isHere)("opens a WebSocket for whom it lets in, and for nobody else", async () => {
    const cookie = clearanceIn(await get(name, "/", { authorization: await mint(name) })) ?? "";
    const before = seen.length;
    const upgrade = {
      connection: "Upgrade",
      upgrade: "websocket",
      "sec-websocket-version": "13",
      "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
    };
    expect(await raw(name, "/socket", upgrade)).toMatch(/^HTTP\/1\.1 401 /);
    expect(seen.length).toBe(before);
    expect(await raw(name, "/socket", { ...upgrade, cookie })).toMatch(/^HTTP\/1\.1 101 /);
    expect(seen.at(-1)).toMatchObject({
      url: "/socket",
      headers: { "stile-admission": "clearance" },
    });
  });

  it.skipIf(!isHere)("asks Stile's question for nobody else", async () => {
    for (const path of [
      "/.stile/authorize",
      "/__stile_authorize",
      "/.stile/authorize/x",
      "/.stile/%61uthorize",
      "/.stile//authorize",
      "/x/../.stile/authorize",
    ]) {
      const before = seen.length;
      const answer = await get(name, path, { "x-forwarded-host": hostOf(name) });
      expect([401, 404]).toContain(answer.status);
      expect(answer.headers["stile-admission"]).toBeUndefined();
      expect(seen.length).toBe(before);
    }
  });

  it.skipIf(!isHere)(
    "rejects a clearance that is forged, unsigned, over or not for it",
    async () => {
      const good = clearanceIn(await get(name, "/", { authorization: await mint(name) })) ?? "";
      key ??= openClearanceKey(target.dir);
      const { bad, sound } = forgeClearances(good.slice(COOKIE.length + 1), await key, Date.now());
      for (const [what, jwt] of Object.entries(bad)) {
        const before = seen.length;
        const answer = await get(name, "/", { cookie: `${COOKIE}=${jwt}` });
        expect([answer.status, seen.length], what).toEqual([401, before]);
      }
      for (const cookie of [good, `${COOKIE}=${sound}`]) {
        expect((await get(name, "/", { cookie })).status).toBe(200);
      }
    },
  );

  it.skipIf(!isHere)("rejects them also on the connection of one that holds", async () => {
    const good = clearanceIn(await get(name, "/", { authorization: await mint(name) })) ?? "";
    key ??= openClearanceKey(target.dir);
    const { bad, sound } = forgeClearances(good.slice(COOKIE.length + 1), await key, Date.now());
    await onOneConnection(name, async (ask) => {
      expect(await ask({ cookie: good })).toBe(200);
      for (const [what, jwt] of Object.entries(bad)) {
        const before = seen.length;
        expect([await ask({ cookie: `${COOKIE}=${jwt}` }), seen.length], what).toEqual([
          401,
          before,
        ]);
        expect(await ask({ cookie: good }), what).toBe(200);
      }
      expect(await ask({})).toBe(401);
      const cookie = `${COOKIE}=${sound}`;
      expect(await ask({ cookie })).toBe(200);
      expect(await ask({ cookie, host: "localhost" })).toBeGreaterThanOrEqual(401);
    });
  });

  it.skipIf(!isHere)("speaks HTTP/2, with cookies in pieces", async () => {
    const cookie = clearanceIn(await get(name, "/", { authorization: await mint(name) })) ?? "";
    const session = connectHttp2(`https://${hostOf(name)}`, { ca: target.ca });
    const ask = async (headers: Record<string, string | string[]>): Promise<unknown> => {
      const stream = session.request(headers).resume();
      const [answer] = (await once(stream, "response")) as [IncomingHttpHeaders];
      return answer[":status"];
    };
    expect(await ask({ ":path": "/h2" })).toBe(401);
    expect(await ask({ ":path": "/h2", cookie: ["a=1", cookie, "b=2"] })).toBe(200);
    expect(seen.at(-1)).toMatchObject({ url: "/h2", headers: { cookie: "a=1; b=2" } });
    session.destroy();
  });
});

describe("a clearance that was admitted", () => {
  /** Envoy allows for a second between clocks. */
  const patience = { timeout: 12_000, interval: 100 };

  async function admitted(name: ProxyName): Promise<string> {
    const good = clearanceIn(await get(name, "/", { authorization: await mint(name) })) ?? "";
    key ??= openClearanceKey(target.dir);
    const { short } = forgeClearances(good.slice(COOKIE.length + 1), await key, Date.now());
    const cookie = `${COOKIE}=${short}`;
    for (let i = 0; i < 2; i += 1) expect((await get(name, "/", { cookie })).status).toBe(200);
    return cookie;
  }

  it.skipIf(installed.length === 0)("is for its host alone, and ends", async () => {
    const checkEnd = async (name: ProxyName): Promise<void> => {
      const cookie = await admitted(name);
      const elsewhere = await get(name, "/", { cookie, host: "localhost" });
      expect(elsewhere.status, name).toBeGreaterThanOrEqual(401);
      // On a connection that knows it, and then on others.
      await onOneConnection(name, async (ask) => {
        expect(await ask({ cookie }), name).toBe(200);
        await expect.poll(() => ask({ cookie }), patience).toBe(401);
      });
      expect((await get(name, "/", { cookie })).status, name).toBe(401);
    };
    await Promise.all(installed.map((name) => checkEnd(name)));
  });
});

describe("stile clearance-key", () => {
  it.skipIf(installed.length === 0)(
    "writes the key of the JWKS, and only where it is another one than the file's",
    async () => {
      const file = join(dir, "clearance.pem");
      const { mtimeMs } = statSync(file);
      expect(await writeClearanceKey(dir)).toEqual([0, "unchanged\n"]);
      expect(statSync(file).mtimeMs).toBe(mtimeMs);
      const written = readFileSync(file, "utf8");
      const { x } = createPublicKey(written).export({ format: "jwk" });
      expect(textOf(await get(installed[0] ?? "nginx", "/.well-known/jwks.json"))).toContain(
        `"${x}"`,
      );
      expect(written).not.toContain("PRIVATE");
      writeFileSync(file, "another");
      expect(await writeClearanceKey(dir)).toEqual([0, "changed\n"]);
      expect(readFileSync(file, "utf8")).toBe(written);
    },
  );
});

describe("without Stile", () => {
  const holders = new Map<ProxyName, { readonly cookie: string; readonly authorization: string }>();
  beforeAll(async () => {
    for (const name of installed) {
      const cookie = clearanceIn(await get(name, "/", { authorization: await mint(name) })) ?? "";
      holders.set(name, { cookie, authorization: await mint(name) });
    }
    await target.sidecar.stop();
    seen.length = 0;
  });

  it("stile clearance-key fails, and leaves the file as it is", async () => {
    const said = vi.spyOn(process.stderr, "write").mockReturnValue(true);
    expect(await writeClearanceKey(dir)).toEqual([1, ""]);
    expect(String(said.mock.calls[0]?.[0])).toContain("no sidecar answers");
    said.mockRestore();
    expect(readFileSync(join(dir, "clearance.pem"), "utf8")).toContain("BEGIN PUBLIC KEY");
  });

  it.skipIf(installed.length === 0)("every recipe fails closed", async () => {
    const checkClosed = async (name: ProxyName): Promise<void> => {
      const { authorization = "", cookie = "" } = holders.get(name) ?? {};
      const tries: Record<string, string>[] = [
        {},
        { authorization },
        { "stile-admission": "token" },
        ...(VERIFIERS.has(name) ? [] : [{ cookie }]),
      ];
      const answers = await Promise.all(tries.map((headers) => get(name, "/", headers)));
      for (const { status } of answers) expect(status, name).toBeGreaterThanOrEqual(500);
      expect((await get(name, "/.stile/authorize")).status, name).toBeGreaterThanOrEqual(404);
    };
    await Promise.all(installed.map((name) => checkClosed(name)));
    expect(seen).toEqual([]);
  });

  it.each([...VERIFIERS])("%s goes on with clearances, where it is installed", async (name) => {
    const { cookie } = holders.get(name) ?? {};
    if (cookie === undefined) return;
    const { headers } = await reached(get(name, "/", { cookie }));
    expect(headers["stile-admission"]).toBe("clearance");
  });
});
