/** The edge as its clients and its upstream see it: challenge, admission, clearance, refusal. */
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { decodeProtectedHeader, UnsecuredJWT } from "jose";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CLEARANCE_COOKIE } from "../../service/edge/clearance.ts";
import { networkOf, normalHost } from "../../service/edge/host.ts";
import { parseWwwAuthenticate } from "../../tokens/index.ts";
import { openRaw, pipelineRaw, rawGet } from "../support/raw-client.ts";
import { problemIn, startTestSidecar, type TestSidecar } from "../support/sidecar.ts";
import { EXAMPLE_ACCEPT, EXAMPLE_KEY } from "../support/websocket-example.ts";

let target: TestSidecar;
beforeAll(async () => {
  target = await startTestSidecar();
});
afterAll(() => target.stop());

const cookieOf = (headers: { "set-cookie"?: string[] | undefined }): string =>
  headers["set-cookie"]?.[0]?.split(";")[0] ?? "";

const received = (answer: { body: Uint8Array }): Record<string, string> =>
  (JSON.parse(Buffer.from(answer.body).toString()) as { headers: Record<string, string> }).headers;

describe("a client without a token", () => {
  it("is challenged, and the upstream is not reached", async () => {
    const before = target.upstream.hits();
    const answer = await target.get("/anything?q=secret");
    expect(answer.status).toBe(401);
    expect(answer.headers["cache-control"]).toBe("no-store");
    expect(answer.headers["content-type"]).toBe("application/problem+json");
    const [challenge] = parseWwwAuthenticate(answer.headers["www-authenticate"] ?? "");
    expect(challenge?.tokenChallenge).toMatchObject({
      tokenType: 2,
      issuerName: target.host,
      originInfo: target.host,
    });
    expect(challenge?.tokenKey).toHaveLength(342);
    expect(Buffer.from(answer.body).toString()).not.toContain("secret");
    expect(target.upstream.hits()).toBe(before);
  });

  it("gets a page only where it asks for HTML, and no body to HEAD", async () => {
    const page = await target.get("/", { accept: "text/html,*/*" });
    expect(page.headers["content-type"]).toBe("text/html; charset=utf-8");
    expect(page.headers["content-security-policy"]).toContain("default-src 'none'");
    const socket = await openRaw(target);
    socket.end(`HEAD / HTTP/1.1\r\nHost: ${target.host}\r\nConnection: close\r\n\r\n`);
    const answer = Buffer.concat(await socket.toArray()).toString();
    expect(answer).toMatch(/^HTTP\/1\.1 401 /);
    expect(answer.endsWith("\r\n\r\n")).toBe(true);
  });

  it("is challenged with its own other credentials too, and with an unusable token", async () => {
    for (const authorization of [
      "Bearer abc",
      "Basic eDp5",
      "PrivateToken",
      'PrivateToken token="!!"',
      'PrivateToken token="AAI="',
    ]) {
      const answer = await target.get("/", { authorization });
      expect(answer.status, authorization).toBe(401);
      expect(answer.headers["www-authenticate"]).toMatch(/^PrivateToken challenge="/);
    }
  });

  it("is refused an unknown host", async () => {
    const [status] = await pipelineRaw({ ...target, host: "other.example" }, [
      rawGet({ ...target, host: "other.example" }, "/", {}),
    ]);
    expect(status).toBe(421);
  });
});

describe("a client with a token", () => {
  it("has its other credentials passed on, and never the token", async () => {
    const token = await target.mint();
    const answer = await target.get("/hello", { authorization: `Basic YTpi, ${token}` });
    expect(received(answer)["authorization"]).toBe("Basic YTpi");
    const alone = await target.get("/hello", { authorization: `, ${await target.mint()}` });
    expect(alone.status).toBe(200);
    expect(received(alone)["authorization"]).toBeUndefined();
  });

  it("is admitted once; a replay on another connection is refused with a fresh challenge", async () => {
    const authorization = await target.mint();
    const before = target.upstream.hits();
    const answer = await target.get("/hello", { authorization, cookie: "theme=dark" });
    expect(answer.status).toBe(200);
    expect(received(answer)["stile-admission"]).toBe("token");
    expect(received(answer)["authorization"]).toBeUndefined();
    expect(received(answer)["cookie"]).toBe("theme=dark");
    const replay = await target.get("/hello", { authorization });
    expect(replay.status).toBe(401);
    expect(problemIn(replay).type).toBe("urn:stile:problem:token-already-spent");
    expect(parseWwwAuthenticate(replay.headers["www-authenticate"] ?? "")).toHaveLength(1);
    expect(target.upstream.hits()).toBe(before + 1);
  });

  it("is answered again on the same connection, as after a lost answer", async () => {
    const request = rawGet(target, "/", { authorization: await target.mint() });
    expect(await pipelineRaw(target, [request, request])).toEqual([200, 200]);
  });

  it("is answered again with its Idempotency-Key, until the first clearance has ended", async () => {
    const authorization = await target.mint();
    const headers = { authorization, "idempotency-key": "6f8d3c1e" };
    const first = await target.get("/", headers);
    const firstAge = Number(/Max-Age=(\d+)/.exec(first.headers["set-cookie"]?.[0] ?? "")?.[1]);
    target.clock.offsetMs += 600_000;
    const again = await target.get("/", headers);
    expect(again.status).toBe(200);
    const againAge = Number(/Max-Age=(\d+)/.exec(again.headers["set-cookie"]?.[0] ?? "")?.[1]);
    expect(firstAge - againAge).toBeGreaterThanOrEqual(599);
    expect((await target.get("/", { ...headers, "idempotency-key": "other" })).status).toBe(401);
    target.clock.offsetMs += 1_300_000;
    expect((await target.get("/", headers)).status).toBe(401);
  });

  it("is refused with a token of an expired window, and admitted with one of the window before", async () => {
    const windowMs = 14_400_000;
    // The middle of one, so that none ends on the way.
    const nowMs = Date.now() + target.clock.offsetMs;
    target.clock.offsetMs += 1.5 * windowMs - (nowMs % windowMs);
    const old = await target.mint();
    const older = await target.mint();
    target.clock.offsetMs += windowMs;
    expect((await target.get("/", { authorization: old })).status).toBe(200);
    target.clock.offsetMs += windowMs;
    const answer = await target.get("/", { authorization: older });
    expect(answer.status).toBe(401);
    expect(problemIn(answer).type).toBe("urn:stile:problem:token-challenge-mismatch");
  });
});

describe("clearance", () => {
  it("admits without another token, does not reach the upstream, and ends", async () => {
    const first = await target.get("/", { authorization: await target.mint() });
    const cookie = cookieOf(first.headers);
    expect(first.headers["set-cookie"]?.[0]).toMatch(
      /^__Host-stile=[^;]+; Path=\/; Secure; HttpOnly; SameSite=Lax; Max-Age=1[78]\d\d$/,
    );
    const second = await target.get("/", { cookie: `a=1; ${cookie}; b=2` });
    expect(second.status).toBe(200);
    expect(second.headers["set-cookie"]).toBeUndefined();
    expect(received(second)).toMatchObject({ "stile-admission": "clearance", cookie: "a=1; b=2" });
    target.clock.offsetMs += 1_801_000;
    expect((await target.get("/", { cookie })).status).toBe(401);
  });

  it("rejects what it did not sign for this host", async () => {
    const first = await target.get("/", { authorization: await target.mint() });
    const jwt = cookieOf(first.headers).slice(CLEARANCE_COOKIE.length + 1);
    expect(decodeProtectedHeader(jwt)).toMatchObject({ alg: "ES256", typ: "stile-clearance+jwt" });
    const [header = "", payload = "", signature = ""] = jwt.split(".");
    const claims = JSON.parse(Buffer.from(payload, "base64url").toString()) as Record<
      string,
      unknown
    >;
    expect(Object.keys(claims).sort()).toEqual(["aud", "exp", "iat", "iss"]);
    const forged = Buffer.from(JSON.stringify({ ...claims, exp: 9_999_999_999 })).toString(
      "base64url",
    );
    for (const bad of [
      `${header}.${forged}.${signature}`,
      new UnsecuredJWT(claims).encode(),
      `${header}.${payload}.`,
      // Not its last letters: those of one in 256 signatures are these.
      `${header}.${payload}.${signature.startsWith("A") ? "B" : "A"}${signature.slice(1)}`,
      "x".repeat(2_000),
      "",
    ]) {
      const answer = await target.get("/", { cookie: `${CLEARANCE_COOKIE}=${bad}` });
      expect(answer.status, bad.slice(0, 40)).toBe(401);
    }
  });
});

describe("what reaches the upstream", () => {
  it("carries our words about the client and none of the client's", async () => {
    const socket = await openRaw(target);
    const spoofed = [
      "Stile-Admission: clearance",
      "stile-anything: 1",
      "X-Forwarded-For: 1.2.3.4",
      "X-Forwarded-Host: evil",
      "Forwarded: for=1.2.3.4",
      "X-Real-IP: 1.2.3.4",
      "X-Original-URI: /admin",
    ];
    const authorization = await target.mint();
    const head = [
      `GET / HTTP/1.1`,
      `Host: ${target.host}`,
      ...spoofed,
      `Authorization: ${authorization}`,
      "Connection: close",
    ];
    socket.write(`${head.join("\r\n")}\r\n\r\n`);
    const answer = Buffer.concat(await socket.toArray()).toString();
    const headers = received({ body: Buffer.from(answer.slice(answer.indexOf("\r\n\r\n") + 4)) });
    expect(headers).toMatchObject({
      "stile-admission": "token",
      "x-forwarded-for": "127.0.0.1",
      "x-forwarded-proto": "https",
      "x-forwarded-host": target.host,
    });
    for (const name of ["stile-anything", "forwarded", "x-real-ip", "x-original-uri"]) {
      expect(headers[name]).toBeUndefined();
    }
  });

  it("is nothing while the spent store is closed: the edge fails closed", async () => {
    const failing = await startTestSidecar();
    try {
      const authorization = await failing.mint();
      await failing.sidecar.closeSpentStore();
      const answer = await failing.get("/", { authorization });
      expect(answer.status).toBe(503);
      expect(answer.headers["retry-after"]).toBe("1");
      expect(problemIn(answer).type).toBe("urn:stile:problem:token-store-unavailable");
      expect(failing.upstream.hits()).toBe(0);
    } finally {
      await failing.stop();
    }
  });
});

describe("WebSocket", () => {
  it("is upgraded for an admitted client only", async () => {
    let upgrades = 0;
    const upstream = createServer();
    upstream.on("upgrade", (_request, socket) => {
      upgrades += 1;
      socket.write(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
          `Sec-WebSocket-Accept: ${EXAMPLE_ACCEPT}\r\n\r\n`,
      );
      socket.on("data", (chunk: Buffer) => socket.write(chunk));
      socket.on("error", () => undefined);
    });
    upstream.listen(0, "127.0.0.1");
    await once(upstream, "listening");
    const { port } = upstream.address() as AddressInfo;
    const ws = await startTestSidecar({ upstreamUrl: `http://127.0.0.1:${port}` });
    try {
      const upgrade = {
        connection: "Upgrade",
        upgrade: "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": EXAMPLE_KEY,
      };
      const refused = await openRaw(ws);
      refused.write(rawGet(ws, "/ws", upgrade));
      const [first] = (await once(refused, "data")) as [Buffer];
      expect(first.toString()).toMatch(/^HTTP\/1\.1 401 /);
      expect(first.toString()).toContain("www-authenticate: PrivateToken");
      expect(upgrades).toBe(0);
      const socket = await openRaw(ws);
      socket.write(rawGet(ws, "/ws", { ...upgrade, authorization: await ws.mint() }));
      const [head] = (await once(socket, "data")) as [Buffer];
      expect(head.toString()).toMatch(/^HTTP\/1\.1 101 /);
      socket.write("ping");
      const [echo] = (await once(socket, "data")) as [Buffer];
      expect(echo.toString()).toBe("ping");
      socket.destroy();
    } finally {
      await ws.stop();
      upstream.close();
    }
  });
});

describe("names of hosts and networks", () => {
  it("has one spelling each", () => {
    expect(normalHost("Example.ORG:443")).toBe("example.org");
    expect(normalHost("example.org:8443")).toBe("example.org:8443");
    expect(networkOf("192.0.2.77")).toBe("192.0.2.0/24");
    expect(networkOf("::ffff:192.0.2.77")).toBe("192.0.2.0/24");
    expect(networkOf("2001:db8:0:1::5")).toBe("2001:db8:0::/48");
    expect(networkOf("2001:DB8::5%eth0")).toBe("2001:db8:0::/48");
    expect(networkOf("::1")).toBe("0:0:0::/48");
    expect(networkOf("nonsense")).toBeUndefined();
    expect(networkOf(undefined)).toBeUndefined();
  });
});
