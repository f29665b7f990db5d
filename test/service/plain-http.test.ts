/** The listener for plain HTTP: redirects to hosts of this service only, challenges that are pending, and limits. */
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createPendingChallenges, type PendingChallenges } from "../../service/acme/challenges.ts";
import { type PlainListener, startPlainListener } from "../../service/http/plain-listener.ts";
import { connectPlain, readAll } from "../support/tls-edge.ts";

let dir: string;
let pending: PendingChallenges;
const answers: string[] = [];
let listener: PlainListener;

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "stile-plain-"));
  pending = await createPendingChallenges(dir, Date.now);
  listener = await startPlainListener(
    {
      hosts: ["Shop.example", "api.example:8443"],
      keyAuthorization: pending.keyAuthorization,
      observe: (answer) => answers.push(answer),
      onRefused: () => undefined,
      limits: { maxConnections: 100, maxConnectionsPerAddress: 100 },
      isSharedAddress: () => false,
      requestMs: 300,
      drainMs: 1,
    },
    { host: "127.0.0.1", port: 0 },
  );
});
afterAll(async () => {
  await listener.close();
  rmSync(dir, { recursive: true });
});

async function raw(text: string): Promise<string> {
  const socket = await connectPlain(listener.port);
  const all = readAll(socket);
  socket.write(Buffer.from(text, "latin1"));
  return all;
}
const get = (target: string, host: string, method = "GET"): Promise<string> =>
  raw(`${method} ${target} HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
const statusOf = (answer: string): string => answer.split(" ")[1] ?? "none";
const locationOf = (answer: string): string | undefined =>
  /^location: (?<url>.*)\r$/im.exec(answer)?.groups?.["url"];

describe("plain HTTP", () => {
  it("sends clients to https at the same host, path and query, and ends the connection", async () => {
    const answer = await get("/a//b?c=%2f&d", "shop.EXAMPLE");
    expect(answer).toMatch(/^HTTP\/1.1 308 /);
    expect(answer).toMatch(/^connection: close\r$/im);
    expect(locationOf(answer)).toBe("https://shop.example/a//b?c=%2f&d");
    expect(locationOf(await get("/", "api.example"))).toBe("https://api.example:8443/");
    expect(locationOf(await get("/", "api.example:80"))).toBe("https://api.example:8443/");
    expect(locationOf(await get("/x", "shop.example", "POST"))).toBe("https://shop.example/x");
  });

  it("is so to curl, which follows by the same method", async () => {
    const at = `shop.example:${listener.port}`;
    const quiet = ["-sS", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", "-d", "body"];
    const resolve = ["--resolve", `${at}:127.0.0.1`, `http://${at}/form?x=1`];
    const { stdout } = await promisify(execFile)("curl", [...quiet, ...resolve]);
    expect(stdout).toBe("308 https://shop.example/form?x=1");
  });

  it("rejects hosts that are not served: it redirects to nobody else", async () => {
    for (const host of [
      "evil.example",
      "shop.example.evil.example",
      "evil.shop.example",
      "[::1]",
    ]) {
      const answer = await get("/", host);
      expect([statusOf(answer), locationOf(answer)]).toEqual(["421", undefined]);
    }
  });

  it("rejects heads from which a redirect could lead elsewhere", async () => {
    const bad = [
      "GET http://evil.example/ HTTP/1.1\r\nHost: shop.example\r\n\r\n",
      "GET //evil.example HTTP/1.1\r\nHost: shop.example@evil.example\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: shop.example\r\nHost: evil.example\r\n\r\n",
      "GET /\\evil.example HTTP/1.1\r\nHost: shop.example\r\n\r\n",
      "GET /a\x01b HTTP/1.1\r\nHost: shop.example\r\n\r\n",
      "GET @evil.example/ HTTP/1.1\r\nHost: shop.example\r\n\r\n",
      "OPTIONS * HTTP/1.1\r\nHost: shop.example\r\n\r\n",
      "GET / HTTP/1.1\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
      "\x16\x03\x01\x00\x05hello",
    ];
    for (const head of bad) {
      const answer = await raw(head);
      expect([statusOf(answer), locationOf(answer)], head).toEqual(["400", undefined]);
    }
    // Two slashes are a path of the same host, for the URL names the host before it.
    const url = new URL(locationOf(await get("//evil.example/x", "shop.example")) ?? "");
    expect([url.host, url.pathname]).toEqual(["shop.example", "//evil.example/x"]);
  });

  it("answers pending challenges at their own name alone, with the key authorization and nothing else", async () => {
    const token = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";
    const path = `/.well-known/acme-challenge/${token}`;
    const stop = await pending.answer({
      type: "http-01",
      name: "new.example",
      token,
      keyAuthorization: `${token}.thumbprint`,
    });
    const answer = await get(path, `new.example:${listener.port}`);
    expect(answer).toMatch(/^HTTP\/1.1 200 [^]*\r\n\r\nevaGxfAD[\w-]+\.thumbprint$/);
    expect(answer).toMatch(/^content-type: application\/octet-stream\r$/im);
    for (const [target, host] of [
      [path, "shop.example"],
      [`${path}x`, "new.example"],
      [`${path}/`, "new.example"],
      [`${path}?`, "new.example"],
      ["/.well-known/acme-challenge/", "new.example"],
      [`/.well-known/acme-challenge/new.example%20${token}`, "new.example"],
    ] as const) {
      expect(statusOf(await get(target, host)), target).toBe("404");
    }
    await stop();
    expect(statusOf(await get(path, "new.example"))).toBe("404");
  });

  it("bounds heads, time and answers to a connection", async () => {
    expect(statusOf(await get(`/${"a".repeat(9_000)}`, "shop.example"))).toBe("431");
    const two = "GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n".repeat(2);
    expect((await raw(two)).match(/^HTTP/gm)).toHaveLength(1);
    const expecting = "POST / HTTP/1.1\r\nHost: shop.example\r\nExpect: 100-continue\r\n";
    const answer = await raw(`${expecting}Content-Length: 10\r\n\r\n`);
    expect(answer).not.toContain("100 Continue");
    expect(new Set(answers)).toEqual(
      new Set(["redirect", "challenge", "unknown-challenge", "unknown-host", "bad"]),
    );
  });

  it("cuts a client that sends nothing, half a head, or a trickle", async () => {
    const silent = readAll(await connectPlain(listener.port));
    const half = raw("GET / HTTP/1.1\r\nHost: sh");
    const socket = await connectPlain(listener.port);
    const trickled = readAll(socket);
    socket.write("GET / HTTP/1.1\r\nHost: shop.example\r\nx: ");
    const trickle = setInterval(() => socket.write("x"), 50);
    expect(await silent).toBe("");
    expect(statusOf(await half)).toMatch(/^(?:408|none)$/);
    expect(statusOf(await trickled)).toMatch(/^(?:408|none)$/);
    clearInterval(trickle);
  });
});
