/** The forwarder between raw TLS clients or curl and upstreams that behave, fail, hang and lie. */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { parseUpstream } from "../../tls/index.ts";
import { connectTls } from "../support/tls-edge.ts";
import {
  bodyOf,
  closeAfterTest,
  edgeBefore,
  edgeBeforeRaw,
  edgeCertificates,
  edgeTo,
  listenOn,
  talk,
} from "../support/tls-edges.ts";
import { waitFor } from "../support/wait-for.ts";

/** What is about connections that clients share: the fast path has none (test/tls/splice). */
const general = { fastPath: false } as const;
const run = promisify(execFile);
const HOST = "Host: a.example\r\n";
const GET = `GET / HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`;
const headersOf = (request: IncomingMessage, response: ServerResponse): void => {
  response.end(JSON.stringify(request.rawHeaders));
};

describe("headers", () => {
  test.each([
    "Forwarded",
    "X-Forwarded-For",
    "x-forwarded-proto",
    "X-Forwarded-Host",
    "X-Forwarded-Client-Cert",
    "X-Real-IP",
    "X-Original-URL",
    "X-Client-Cert",
    "X-Client-Cert-Chain",
    "X-SSL-Client-S-Dn",
    "SSL-Client-Cert",
    "True-Client-IP",
    "CF-Connecting-IP",
    "Client-Cert",
    "Client-Cert-Chain",
    "Proxy",
    "WL-Proxy-Client-IP",
    "X-Envoy-External-Address",
    "X-Forwarded",
    "X-HTTP-Host-Override",
    "X-Originating-IP",
    "X.Real.IP",
    "X!Forwarded~For",
    "X-HTTP.Method-Override",
    "Stile-Admission",
    "STILE-anything",
    "Connection",
    "Keep-Alive",
    "Proxy-Connection",
    "Proxy-Authorization",
    "TE",
    "Trailer",
    "HTTP2-Settings",
    "Upgrade",
    "Expect",
    "X-Listed",
    "X-Removed",
  ])("does not let a client set %s at the upstream", async (name) => {
    const edge = await edgeBefore(headersOf, {
      extra: {
        removeRequestHeaders: ["x-removed"],
        requestHeaders: [["Stile-Admission", "token"]],
        responseHeaders: [],
      },
    });
    const values: Record<string, string> = {
      Connection: "close, x-more",
      Upgrade: "websocket",
      Expect: "100-continue",
    };
    const value = values[name] ?? "spoofed";
    const lines = `${name}: ${value}\r\nX-Kept: 1\r\nConnection: close, X-Listed\r\n`;
    const answer = await talk(edge, `GET / HTTP/1.1\r\n${HOST}${lines}\r\n`);
    expect(answer).toMatch(/^HTTP\/1.1 200 /);
    expect(answer).not.toContain("spoofed");
    expect(
      JSON.parse(bodyOf(answer).replaceAll(/^[0-9a-f]+\r\n|\r\n0?\r?\n?/gm, "")),
    ).toStrictEqual([
      "Host",
      "a.example",
      "X-Kept",
      "1",
      "X-Forwarded-For",
      "127.0.0.1",
      "X-Forwarded-Proto",
      "https",
      "X-Forwarded-Host",
      "a.example",
      "Stile-Admission",
      "token",
      "Connection",
      "keep-alive",
    ]);
  });

  test("keeps duplicates and spelling of an answer, adds its own, drops hop-by-hop", async () => {
    const edge = await edgeBefore(
      (_request, response) => {
        response.sendDate = false;
        response.writeHead(203, "Was Asked", [
          "Set-Cookie",
          "a=1",
          "set-cookie",
          "b=2",
          "X-CaSe",
          "é",
          "Connection",
          "x-hop, keep-alive, content-length",
          "X-Hop",
          "1",
          "Keep-Alive",
          "timeout=9",
          "Stile-Admission",
          "upstream's",
          "Content-Length",
          "2",
        ]);
        response.end(Buffer.from("ok"));
      },
      {
        extra: {
          removeRequestHeaders: [],
          requestHeaders: [],
          responseHeaders: [["Set-Cookie", "c=3"]],
        },
      },
    );
    const answer = await talk(edge, GET);
    expect(answer.replace(/Date: .*\r\n/, "")).toBe(
      "HTTP/1.1 203 Was Asked\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nX-CaSe: \u00e9\r\n" +
        "Content-Length: 2\r\nSet-Cookie: c=3\r\nConnection: close\r\n\r\nok",
    );
  });

  test.each([
    ["HEAD", "HEAD", 200, { "content-length": "7" }],
    ["204", "GET", 204, {}],
    ["304", "GET", 304, { etag: '"x"' }],
  ] as const)("passes %s without a body", async (_name, method, status, headers) => {
    const edge = await edgeBefore((_request, response) =>
      response.writeHead(status, headers).end(),
    );
    const answer = await talk(edge, GET.replace("GET", method));
    expect(answer).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    for (const [name, value] of Object.entries(headers))
      expect(answer).toContain(`${name}: ${value}`);
    expect(answer).not.toMatch(/transfer-encoding/i);
    expect(bodyOf(answer)).toBe("");
  });

  test.each([
    ["POST without a body", "POST / HTTP/1.1\r\n", "0"],
    ["DELETE without a body", "DELETE / HTTP/1.1\r\n", "undefined"],
    ["POST of length 0", "POST / HTTP/1.1\r\nContent-Length: 0\r\n", "0"],
  ])("frames %s as such", async (_name, start, length) => {
    const edge = await edgeBefore(({ headers }, response) => {
      response.end(`${headers["transfer-encoding"]} ${headers["content-length"]}`);
    });
    const answer = await talk(edge, `${start}${HOST}Connection: close\r\n\r\n`);
    expect(answer).toContain(`undefined ${length}`);
  });
});

describe("failures", () => {
  test("rejects with 502 where nothing listens, with and without a body", async () => {
    const closed = createServer();
    const port = await listenOn(closed);
    await new Promise((resolve) => closed.close(resolve));
    const edge = await edgeTo(`http://127.0.0.1:${port}`);
    expect(await talk(edge, GET)).toMatch(/^HTTP\/1.1 502 /);
    // The connection goes on behind a body that nobody wanted.
    const post = `POST / HTTP/1.1\r\n${HOST}Content-Length: 65536\r\n\r\n${"b".repeat(65_536)}`;
    expect((await talk(edge, post + GET)).match(/HTTP\/1.1 502 /g)).toHaveLength(2);
    expect(edge.codes).toStrictEqual(Array(3).fill("TLS_UPSTREAM_UNREACHABLE"));
  });

  test.each([
    ["closes at once", ""],
    ["speaks something else", "SSH-2.0-x\r\n"],
    ["sends half a head", "HTTP/1.1 200 OK\r\nConte"],
    [
      "answers with two lengths",
      "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    ],
    ["sends a status of no class", "HTTP/1.1 600 x\r\nContent-Length: 0\r\n\r\n"],
    ["switches to nothing", "HTTP/1.1 101 x\r\n\r\n"],
    ["switches protocols unasked", "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n"],
  ])("rejects with 502 an upstream that %s", async (_name, text) => {
    const edge = await edgeBeforeRaw((socket) => socket.once("data", () => socket.end(text)));
    expect(await talk(edge, GET)).toMatch(/^HTTP\/1.1 502 /);
    expect(edge.codes).toStrictEqual(["TLS_UPSTREAM_UNREACHABLE"]);
  });

  test("rejects with 504 an upstream that does not answer", async () => {
    const edge = await edgeBeforeRaw(() => undefined, { forwarder: { idleTimeoutMs: 100 } });
    expect(await talk(edge, GET)).toMatch(/^HTTP\/1.1 504 /);
    expect(edge.codes).toStrictEqual(["TLS_UPSTREAM_TIMEOUT"]);
  });

  test("cuts, without blaming the upstream, a client that does not send its body", async () => {
    const edge = await edgeBeforeRaw(() => undefined, { forwarder: { idleTimeoutMs: 100 } });
    expect(await talk(edge, `POST / HTTP/1.1\r\n${HOST}Content-Length: 4\r\n\r\nb`)).toBe("");
    expect(edge.codes).toStrictEqual([]);
  });

  test.each([
    ["dies", (socket: Socket) => void socket.destroy()],
    ["goes silent", () => undefined],
  ])("cuts the client where the upstream %s within its body", async (_name, fail) => {
    const edge = await edgeBeforeRaw(
      (socket) =>
        socket.once("data", () => {
          socket.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart");
          setTimeout(() => fail(socket), 30);
        }),
      { forwarder: { idleTimeoutMs: 150 } },
    );
    const answer = await talk(edge, GET);
    expect(answer).toMatch(/^HTTP\/1.1 200 OK\r\nContent-Length: 100\r\n/);
    expect(bodyOf(answer)).toBe("part");
    await waitFor(() => expect(edge.codes).toHaveLength(1));
  });

  test("ends the upstream request when the client goes away", async () => {
    let ended = false;
    let reached = false;
    const edge = await edgeBeforeRaw((socket) => {
      socket.on("data", () => (reached = true)).once("close", () => (ended = true));
    });
    const socket = await connectTls(edge.port, edgeCertificates().ca);
    socket.write(GET);
    await waitFor(() => expect(reached).toBe(true));
    socket.destroy();
    await waitFor(() => expect(ended).toBe(true));
    expect(edge.codes).toStrictEqual([]);
  });
});

describe("upstream connections", () => {
  const OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
  /** Answers once on its first connection and closes it when the second request comes. */
  const staleOnce = (socket: Socket, count: number): void => {
    let requests = 0;
    socket.on("data", () => {
      requests += 1;
      if (count === 1 && requests === 2) socket.destroy();
      else socket.write(OK);
    });
  };

  test("are kept and used again", async () => {
    const ports = new Set<number | undefined>();
    const edge = await edgeBefore((request, response) => {
      ports.add(request.socket.remotePort);
      response.end("ok");
    }, general);
    for (let i = 0; i < 5; i += 1) await talk(edge, GET);
    expect(ports.size).toBe(1);
  });

  test("retries GET once on a fresh connection where a kept one was closed", async () => {
    const edge = await edgeBeforeRaw(staleOnce, general);
    expect(await talk(edge, GET)).toMatch(/ok$/);
    expect(await talk(edge, GET)).toMatch(/ok$/);
    expect(edge.codes).toStrictEqual([]);
  });

  test("never retries GET on a new connection", async () => {
    let connections = 0;
    const edge = await edgeBeforeRaw((socket) => {
      connections += 1;
      socket.once("data", () => socket.destroy());
    });
    expect(await talk(edge, GET)).toMatch(/^HTTP\/1.1 502 /);
    expect(connections).toBe(1);
  });

  test.each([
    ["POST", `POST / HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`],
    ["GET with a body", `GET / HTTP/1.1\r\n${HOST}Connection: close\r\nContent-Length: 1\r\n\r\nx`],
    ["DELETE", `DELETE / HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`],
  ])("never retries %s", async (_name, text) => {
    const edge = await edgeBeforeRaw(staleOnce, general);
    expect(await talk(edge, GET)).toMatch(/ok$/);
    expect(await talk(edge, text)).toMatch(/^HTTP\/1.1 502 /);
    expect(edge.codes).toStrictEqual(["TLS_UPSTREAM_UNREACHABLE"]);
  });

  test("go to a Unix socket", async () => {
    const path = join(edgeCertificates().dir, "upstream.sock");
    const server = createHttpServer((_request, response) => response.end("by unix"));
    await new Promise<void>((resolve) => server.listen(path, resolve));
    closeAfterTest(
      () =>
        new Promise((resolve) => {
          server.close(() => resolve());
          server.closeAllConnections();
        }),
    );
    const edge = await edgeTo(`unix:${path}`);
    expect(await talk(edge, GET)).toContain("by unix");
  });

  test("parseUpstream reads its three forms and rejects others", () => {
    expect(parseUpstream("http://127.0.0.1:3000")).toStrictEqual({
      kind: "tcp",
      host: "127.0.0.1",
      port: 3000,
    });
    expect(parseUpstream("http://[::1]")).toStrictEqual({ kind: "tcp", host: "::1", port: 80 });
    expect(parseUpstream("https://a")).toStrictEqual({ kind: "tls", host: "a", port: 443 });
    expect(parseUpstream("unix:/run/a.sock")).toStrictEqual({ kind: "unix", path: "/run/a.sock" });
    for (const text of [
      "",
      "https://a/b",
      "http://a/b",
      "http://a?b",
      "http://a#b",
      "http://u:p@a",
      "unix:a",
      "ftp://a",
      "127.0.0.1:3000",
      "http://a:99999",
    ]) {
      expect(() => parseUpstream(text)).toThrow(RangeError);
    }
  });
});

describe("curl", () => {
  test("gets answers, uploads and keeps its connection", async () => {
    const edge = await edgeBefore((request, response) => void request.pipe(response));
    const url = `https://localhost:${edge.port}`;
    const args = ["-sS", "--cacert", join(edgeCertificates().dir, "ca.pem"), "--resolve"];
    const resolve = `localhost:${edge.port}:127.0.0.1`;
    const { stdout } = await run("curl", [
      ...args,
      resolve,
      "-w",
      " %{http_code} %{http_version} %{num_connects};",
      "--data-binary",
      "curl's own body",
      `${url}/a`,
      `${url}/b`,
    ]);
    expect(stdout).toBe("curl's own body 200 2 1;curl's own body 200 2 0;");
    const large = await run("sh", [
      "-c",
      `head -c 3000000 /dev/zero | tr '\\0' x | curl -T - ${[...args, resolve, url].join(" ")} | sha256sum`,
    ]);
    const expected = createHash("sha256").update("x".repeat(3_000_000)).digest("hex");
    expect(large.stdout).toContain(expected);
  });
});
