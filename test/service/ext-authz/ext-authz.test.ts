/**
 * `edge.extAuthz` by its protocol: what a client of gRPC gets for good and for bad calls. The messages are checked
 * against Envoy's own in messages.test.ts and by grpc-go in test/interop; the real Envoy is in test/deploy.
 */
import { once } from "node:events";
import { statSync } from "node:fs";
import {
  type ClientHttp2Session,
  connect,
  constants,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
} from "node:http2";
import { connect as connectTcp } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { DevelopmentOverrides } from "../../../service/dev/development.ts";
import { createUnaryServer } from "../../../service/edge/ext-authz/grpc.ts";
import { readMessage } from "../../../service/edge/ext-authz/protobuf.ts";
import { concatBytes } from "../../../wire/index.ts";
import { freePort } from "../../support/free-port.ts";
import { codeOfAsync } from "../../support/reject.ts";
import { startTestSidecar, type TestSidecar } from "../../support/sidecar.ts";
import { checkRequest } from "./check-request.ts";

const PATH = "/envoy.service.auth.v3.Authorization/Check";
const socketPath = join(tmpdir(), `stile-ext-authz-${process.pid}.sock`);
let target: TestSidecar;
let session: ClientHttp2Session;

beforeAll(async () => {
  target = await startTestSidecar({ edge: { extAuthz: { listen: `unix:${socketPath}` } } });
  session = connect("http://stile", { createConnection: () => connectTcp(socketPath) });
});
afterAll(async () => {
  session.destroy();
  await target.stop();
});

interface Outcome {
  readonly http: number;
  readonly grpc: number;
  readonly message: Uint8Array | undefined;
}

async function call(
  body: Uint8Array,
  headers: OutgoingHttpHeaders = {},
  over: ClientHttp2Session = session,
): Promise<Outcome> {
  const head = {
    ":method": "POST",
    ":path": PATH,
    "content-type": "application/grpc",
    te: "trailers",
  };
  const stream = over.request({ ...head, ...headers }, { endStream: false });
  const chunks: Buffer[] = [];
  stream.on("data", (chunk: Buffer) => chunks.push(chunk));
  stream.on("error", () => undefined);
  const closed = once(stream, "close");
  let trailers: IncomingHttpHeaders = {};
  stream.once("trailers", (told: IncomingHttpHeaders) => (trailers = told));
  const answered = once(stream, "response") as Promise<[IncomingHttpHeaders]>;
  stream.end(body);
  const [answer] = await answered;
  await closed;
  const bytes = Buffer.concat(chunks);
  return {
    http: Number(answer[":status"]),
    grpc: Number(trailers["grpc-status"] ?? answer["grpc-status"]),
    message: bytes.length === 0 ? undefined : bytes.subarray(5),
  };
}

function frame(message: Uint8Array, flag = 0): Uint8Array {
  const prefix = Buffer.from([flag, 0, 0, 0, 0]);
  prefix.writeUInt32BE(message.length, 1);
  return concatBytes([prefix, message]);
}

/** What a CheckResponse says, as its readers name it. */
interface Response {
  readonly code: number;
  readonly status?: number;
  readonly headers: Record<string, string>;
  readonly removed: readonly string[];
  readonly added: Record<string, string>;
  readonly body?: string;
}

const NONE = new Uint8Array();
const utf8 = (bytes: Uint8Array | undefined): string => Buffer.from(bytes ?? NONE).toString();

function headersIn(options: readonly Uint8Array[]): Record<string, string> {
  return Object.fromEntries(
    options.map((option) => {
      const pair = readMessage(readMessage(option, "o", { 1: "h" }).one(1) ?? NONE, "h", {
        1: "key",
        2: "value",
      });
      return [utf8(pair.one(1)), utf8(pair.one(2))];
    }),
  );
}

function responseIn({ grpc, http, message }: Outcome): Response {
  expect([http, grpc]).toEqual([200, 0]);
  const response = readMessage(message ?? NONE, "r", { 1: "status", 2: "denied", 3: "ok" });
  // int32 code = 1, one byte for each code there is.
  const code = response.one(1)?.[1] ?? 0;
  const [denied, ok] = [response.one(2), response.one(3)];
  expect(denied === undefined).not.toBe(ok === undefined);
  if (denied !== undefined) {
    const fields = readMessage(denied, "d", { 1: "status", 2: "headers", 3: "body" });
    const [, low = 0, high = 0] = fields.one(1) ?? NONE;
    const status = (low & 127) + high * 128;
    const headers = headersIn(fields.all(2));
    return { code, status, headers, removed: [], added: {}, body: utf8(fields.one(3)) };
  }
  const fields = readMessage(ok ?? NONE, "o", { 2: "headers", 5: "remove", 6: "add" });
  return {
    code,
    headers: headersIn(fields.all(2)),
    removed: fields.all(5).map(utf8),
    added: headersIn(fields.all(6)),
  };
}

async function ask(
  headers: Record<string, string>,
  { address = "203.0.113.9", host = target.host }: { address?: string; host?: string } = {},
): Promise<Response> {
  return responseIn(await call(frame(checkRequest({ address, headers, host, method: "GET" }))));
}

describe("a question by gRPC", () => {
  it("is answered with the challenge, once with the admission, and then with the clearance's", async () => {
    const challenged = await ask({ accept: "*/*" });
    expect(challenged).toMatchObject({ code: 16, status: 401 });
    expect(challenged.body).toContain("urn:stile:problem:service-token-required");
    const asked = challenged.headers["www-authenticate"] ?? "";
    const authorization = await target.mintFor({
      status: 401,
      headers: { "www-authenticate": asked },
    });
    const admitted = await ask({ authorization, cookie: "a=1" });
    expect(admitted).toMatchObject({ code: 0, removed: ["authorization"] });
    expect(admitted.headers).toEqual({
      "stile-admission": "token",
      "x-forwarded-for": "203.0.113.9",
      "x-forwarded-host": target.host,
      "x-forwarded-proto": "https",
      cookie: "a=1",
    });
    const clearance = admitted.added["set-cookie"]?.split(";")[0] ?? "";
    expect(clearance).toMatch(/^__Host-stile=ey/);
    const spent = await ask({ authorization });
    expect(spent).toMatchObject({ code: 16, status: 401 });
    expect(spent.body).toContain("token-already-spent");
    const cleared = await ask({ cookie: clearance });
    expect(cleared).toMatchObject({ code: 0, removed: ["cookie"], added: {} });
    expect(cleared.headers["stile-admission"]).toBe("clearance");
  });

  it("takes out what a client says in a proxy's name, in any spelling", async () => {
    const lies = [
      "Stile-Admission",
      "stile_admission",
      "X-Forwarded-User",
      "X_Forwarded_For",
      "Forwarded",
    ];
    const more = [
      "X-Real-IP",
      "X-Original-URL",
      "X-Forwarded-Host",
      "X-Client-Cert",
      "SSL_CLIENT_VERIFY",
    ];
    const said = Object.fromEntries([...lies, ...more, "X-Own"].map((name) => [name, "lie"]));
    const { headers, removed } = await ask({ ...said, authorization: await target.mint() });
    expect(Object.values(headers)).not.toContain("lie");
    const left = Object.keys(said).map((name) => name.toLowerCase());
    expect(left.filter((name) => !removed.includes(name) && headers[name] === undefined)).toEqual([
      "x-own",
    ]);
  });

  it("shows a person's browser the page", async () => {
    const { body, headers } = await ask({ accept: "text/html", "sec-fetch-mode": "navigate" });
    expect(body).toContain("<!doctype html>");
    expect(headers["content-security-policy"]).toContain("nonce-");
  });

  it("rejects hosts of others, clients without an address, and two credentials", async () => {
    expect(await ask({}, { host: "evil.example" })).toMatchObject({ code: 7, status: 421 });
    expect(await ask({}, { address: "/run/client.sock" })).toMatchObject({ code: 7, status: 400 });
    const authorization = `${await target.mint()}, ${await target.mint()}`;
    expect(await ask({ authorization })).toMatchObject({ code: 16, status: 401 });
  });

  it("is for whoever may open the socket", () => {
    expect(statSync(socketPath).mode & 0o777).toBe(0o660);
  });
});

describe("a call that is not one", () => {
  const good = (): Uint8Array =>
    checkRequest({ address: "::1", headers: {}, host: target.host, method: "GET" });

  it.each([
    ["another method", (): Uint8Array => frame(good()), { ":path": `${PATH}s` }, 12],
    ["another verb", (): Uint8Array => NONE, { ":method": "GET" }, 12],
    ["compression", (): Uint8Array => frame(good(), 1), {}, 12],
    ["no message", (): Uint8Array => NONE, {}, 3],
    ["half a message", (): Uint8Array => frame(good()).subarray(0, -1), {}, 3],
    ["two messages", (): Uint8Array => concatBytes([frame(good()), frame(good())]), {}, 3],
    ["a message that is none", (): Uint8Array => frame(Uint8Array.of(0x0a, 9)), {}, 3],
    ["a message that is too large", (): Uint8Array => frame(new Uint8Array(300_000)), {}, 8],
  ] as const)("is rejected: %s", async (_what, body, headers, grpc) => {
    expect(await call(body(), headers)).toEqual({ http: 200, grpc, message: undefined });
  });

  it("is rejected: another content type", async () => {
    expect(await call(frame(good()), { "content-type": "application/json" })).toMatchObject({
      http: 415,
    });
  });

  it("is rejected: of an address that is not trusted, unread", async () => {
    const calls: unknown[] = [];
    const { close, server } = createUnaryServer({
      path: PATH,
      isTrusted: (address) => address !== "127.0.0.1",
      call: (message) => Promise.resolve(message.subarray(calls.push(message))),
      callTimeoutMs: 5_000,
    });
    const port = await freePort();
    await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
    const other = connect(`http://127.0.0.1:${port}`);
    expect(await call(frame(good()), {}, other)).toMatchObject({ http: 200, grpc: 7 });
    expect(calls).toEqual([]);
    other.destroy();
    await close(0);
  });

  it("is cut where its body does not come, and does not keep the listener from closing", async () => {
    const { close, server } = createUnaryServer({
      path: PATH,
      isTrusted: () => true,
      call: (message) => Promise.resolve(message),
      callTimeoutMs: 50,
    });
    const port = await freePort();
    await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
    const slow = connect(`http://127.0.0.1:${port}`);
    const stream = slow.request({
      ":method": "POST",
      ":path": PATH,
      "content-type": "application/grpc",
    });
    stream.on("error", () => undefined).write(Uint8Array.of(0));
    await once(stream, "close");
    expect(stream.rstCode).toBe(constants.NGHTTP2_CANCEL);
    await close(0);
    slow.destroy();
  });
});

describe("without the spent store", () => {
  it("denies by 503, and still admits by clearance", async () => {
    const admitted = await ask({ authorization: await target.mint() });
    const authorization = await target.mint();
    await target.sidecar.closeSpentStore();
    expect(await ask({ authorization })).toMatchObject({ code: 14, status: 503 });
    const cookie = admitted.added["set-cookie"]?.split(";")[0] ?? "";
    expect(await ask({ cookie })).toMatchObject({ code: 0 });
  });
});

describe("settings that would not hold", () => {
  const tcp = { listen: "127.0.0.1:0" };
  const refused: readonly (readonly [string, DevelopmentOverrides])[] = [
    ["an address that is not of this machine", { edge: { extAuthz: { listen: "0.0.0.0:8444" } } }],
    ["a port without trusted proxies", { edge: { extAuthz: tcp } }],
    [
      "challenges for a connection",
      { edge: { extAuthz: { listen: "unix:/x" }, redemptionContext: "connection" } },
    ],
    ["monitoring", { edge: { extAuthz: { listen: "unix:/x" }, mode: "monitor" } }],
  ];
  it.each(refused)("stop the start: %s", async (_what, overrides) => {
    expect(await codeOfAsync(() => startTestSidecar(overrides))).toBe("SERVICE_CONFIG_INVALID");
  });
});
