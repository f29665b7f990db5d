/** The edge over HTTP/2: what clients are asked, what admits them, and what the upstream learns of it. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import type { ClientHttp2Session, OutgoingHttpHeaders } from "node:http2";
import type { TLSSocket } from "node:tls";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  attest,
  type AttestTransport,
  createDpopProof,
  openDevice,
} from "../../attest/agent/index.ts";
import { openManufacturerCa, startSwtpm } from "../../swtpm/index.ts";
import { createTokenClient } from "../../tokens/client/index.ts";
import { formatAuthorization, parseWwwAuthenticate } from "../../tokens/index.ts";
import { type H2Answer, openH2, requestH2 } from "../support/h2-client.ts";
import { startTestSidecar, type TestSidecar } from "../support/sidecar.ts";
import { connectTls } from "../support/tls-edge.ts";

const LISTED = "https://app.example";
let target: TestSidecar;
let session: ClientHttp2Session;

beforeAll(async () => {
  target = await startTestSidecar({
    edge: {
      cors: { origins: [LISTED] },
      rules: [
        { name: "deletes", action: "block", methods: ["DELETE"] },
        { name: "open", action: "open", paths: ["/open"] },
        { name: "blocked", action: "block", paths: ["/blocked"] },
      ],
    },
  });
  session = await openH2(target.port, target.ca);
});
afterAll(async () => {
  session.destroy();
  await target.stop();
});

const ask = (
  path: string,
  headers: OutgoingHttpHeaders = {},
  body?: string | Buffer,
): Promise<H2Answer> => requestH2(session, { ":path": path, ...headers }, body);

const received = ({ body }: H2Answer): Record<string, string> =>
  (JSON.parse(body) as { headers: Record<string, string> }).headers;

const clearanceOf = (answer: H2Answer): string =>
  (answer.headers["set-cookie"]?.[0] ?? "").split(";")[0] ?? "";

it("is not offered where tls.http2 is off", async () => {
  const off = await startTestSidecar({ tls: { http2: false } });
  try {
    const socket = await connectTls(off.port, off.ca, { ALPNProtocols: ["h2", "http/1.1"] });
    expect(socket.alpnProtocol).toBe("http/1.1");
    socket.destroy();
  } finally {
    await off.stop();
  }
});

describe("a client without a token", () => {
  it("is challenged, reads a page where it asks for one, and does not reach the upstream", async () => {
    const before = target.upstream.hits();
    const answer = await ask("/");
    expect(answer.status).toBe(401);
    const [challenge] = parseWwwAuthenticate(String(answer.headers["www-authenticate"]));
    expect(challenge?.tokenChallenge.originInfo).toBe(target.host);
    expect(answer.headers["content-type"]).toBe("application/problem+json");
    const page = await ask("/", { accept: "text/html" });
    expect(page.headers["content-type"]).toBe("text/html; charset=utf-8");
    expect((await ask("/", { ":method": "HEAD" })).body).toBe("");
    expect((await ask("/", { ":method": "POST" }, Buffer.alloc(200_000))).status).toBe(401);
    expect((await ask("/", { ":authority": "other.example" })).status).toBe(421);
    expect(target.upstream.hits()).toBe(before);
  });

  it("is judged by the rules, and its preflights are answered", async () => {
    expect((await ask("/open/a")).status).toBe(200);
    expect((await ask("/blocked")).status).toBe(403);
    expect((await ask("/open/%2e%2e/blocked")).status).toBe(400);
    const before = target.upstream.hits();
    expect((await ask("/open/a", { ":method": "DELETE" })).status).toBe(403);
    // It would leave as DELETE.
    expect((await ask("/open/a", { ":method": "delete" })).status).toBe(400);
    expect(target.upstream.hits()).toBe(before);
    const preflight = await ask("/", {
      ":method": "OPTIONS",
      origin: LISTED,
      "access-control-request-method": "PUT",
    });
    expect(preflight.status).toBe(204);
    expect(preflight.headers["access-control-allow-origin"]).toBe(LISTED);
    expect((await ask("/", { origin: LISTED })).headers["access-control-allow-origin"]).toBe(
      LISTED,
    );
  });
});

describe("a client with a token", () => {
  it("is admitted, and then by its clearance, which may come in crumbs", async () => {
    const first = await ask("/", { authorization: await target.mint(), cookie: "theme=dark" });
    expect(first.status).toBe(200);
    expect(received(first)).toMatchObject({ "stile-admission": "token", cookie: "theme=dark" });
    expect(received(first)["authorization"]).toBeUndefined();
    const cookie = ["a=1", clearanceOf(first), "b=2"];
    const second = await ask("/", { cookie });
    expect(received(second)).toMatchObject({ "stile-admission": "clearance", cookie: "a=1; b=2" });
    expect((await ask("/", { cookie: ["a=1", `${clearanceOf(first)}x`] })).status).toBe(401);
  });

  it("is answered again on another stream of its connection, and on no other connection", async () => {
    const authorization = await target.mint();
    const before = target.upstream.hits();
    const both = [ask("/", { authorization }), ask("/", { authorization })];
    expect((await Promise.all(both)).map(({ status }) => status)).toStrictEqual([200, 200]);
    expect((await ask("/", { authorization })).status).toBe(200);
    const other = await openH2(target.port, target.ca);
    expect((await requestH2(other, { authorization })).status).toBe(401);
    other.destroy();
    expect((await target.get("/", { authorization })).status).toBe(401);
    expect(target.upstream.hits()).toBe(before + 3);
  });
});

describe("a WebSocket", () => {
  it("is challenged, and opened for an admitted client", async () => {
    const connect = async (headers: OutgoingHttpHeaders): Promise<unknown> => {
      const stream = session.request(
        { ":method": "CONNECT", ":protocol": "websocket", ":path": "/", ...headers },
        { endStream: false },
      );
      stream.on("error", () => undefined);
      const [received] = (await once(stream, "response")) as [unknown];
      stream.close();
      return received;
    };
    const before = target.upstream.hits();
    expect(await connect({})).toMatchObject({
      ":status": 401,
      "www-authenticate": expect.stringContaining("PrivateToken"),
    });
    expect(target.upstream.hits()).toBe(before);
    // The demo upstream opens none, and answers.
    const authorization = await target.mint();
    expect(await connect({ authorization })).toMatchObject({ ":status": 200 });
    expect(target.upstream.hits()).toBe(before + 1);
  });
});

describe("Stile's own endpoints", () => {
  it("answer, and refuse what they cannot read", async () => {
    expect((await ask("/.well-known/private-token-issuer-directory")).status).toBe(200);
    expect((await ask("/.stile/none")).status).toBe(404);
    const json = { ":method": "POST", "content-type": "application/json" };
    const token = (await target.mint()).replace(/^PrivateToken token="?([^"]*)"?$/, "$1");
    const body = JSON.stringify({ token: token.replace(/=+$/, ""), host: target.host });
    expect((await ask("/.stile/redeem", json, body)).status).toBe(200);
    expect((await ask("/.stile/redeem", json, body)).status).toBe(401);
    expect((await ask("/.stile/redeem", json, "{")).status).toBe(400);
    expect((await ask("/.stile/redeem", json)).status).toBe(400);
    expect((await ask("/.stile/redeem", json, Buffer.alloc(600_000, "x"))).status).toBe(413);
  });

  it("are left in the middle of a body without a trace", async () => {
    const stream = session.request({
      ":method": "POST",
      ":path": "/.stile/redeem",
      "content-type": "application/json",
    });
    stream.on("error", () => undefined);
    stream.write('{"token":');
    await new Promise((resolve) => session.ping(resolve));
    stream.close(8);
    await new Promise((resolve) => session.ping(resolve));
    expect((await ask("/.stile/none")).status).toBe(404);
    expect(target.lines.filter((text) => text.includes("failed"))).toStrictEqual([]);
  });

  it("attest a TPM, bound to this connection, and issue it a token that admits", async () => {
    const ca = await openManufacturerCa({ clock: Date.now, folder: `${target.dir}/manufacturer` });
    const tpm = await startSwtpm({ ca, ekAlgorithms: ["ecc"] });
    const device = await openDevice({ tcti: tpm.tcti, ekAlgorithm: "ecc" });
    try {
      const socket = session.socket as unknown as TLSSocket;
      const exporter = Uint8Array.from(
        socket.exportKeyingMaterial(32, "EXPORTER-Channel-Binding", Buffer.alloc(0)),
      );
      const transport = (bound: Uint8Array): AttestTransport => ({
        tlsExporter: () => bound,
        postJson: async (path, body) => {
          const headers = { ":method": "POST", "content-type": "application/json" };
          const answer = await ask(path, headers, JSON.stringify(body));
          if (answer.status !== 200) throw new Error(`refused: ${answer.status}`);
          return JSON.parse(answer.body);
        },
      });
      const random = (length: number): Uint8Array => Uint8Array.from(randomBytes(length));
      await expect(
        attest({ device, transport: transport(new Uint8Array(32)), clock: Date.now }),
      ).rejects.toThrow("refused");
      const { attestationResult: accessToken } = await attest({
        device,
        transport: transport(exporter),
        clock: Date.now,
      });
      const challenged = await ask("/");
      const [challenge] = parseWwwAuthenticate(String(challenged.headers["www-authenticate"]));
      if (challenge?.tokenKey === undefined) throw new Error("not challenged");
      const { challenge: bytes, tokenKey } = challenge;
      const pending = await createTokenClient().request({ challenge: bytes, tokenKey, count: 1 });
      const uri = `${target.url}/token-request`;
      const proof = { method: "POST", uri, accessToken, clock: Date.now, random };
      const issued = await ask(
        "/token-request",
        {
          ":method": "POST",
          "content-type": pending.mediaType,
          authorization: `DPoP ${accessToken}`,
          dpop: await createDpopProof({ device, ...proof }),
        },
        Buffer.from(pending.body),
      );
      const [token = new Uint8Array()] = await pending.finalize({
        status: issued.status,
        mediaType: String(issued.headers["content-type"]),
        body: issued.bytes,
      });
      const admitted = await ask("/", { authorization: formatAuthorization(token) });
      expect(received(admitted)["stile-admission"]).toBe("token");
    } finally {
      await device.close();
      await tpm.stop();
    }
  });
});
