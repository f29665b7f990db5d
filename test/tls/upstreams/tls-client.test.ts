/** TLS towards upstreams: a real nginx that asks for certificates, and servers that must be refused, untouched. */
import { randomBytes } from "node:crypto";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server, type ServerOptions } from "node:https";
import { createServer as createTcpServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createServer as createTlsServer } from "node:tls";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createUpstreamTls, type Upstreams, type UpstreamTls } from "../../../tls/index.ts";
import { nginxUpstream } from "../../support/nginx-upstream.ts";
import { type IssuedFiles, type OpensslCa, opensslCa } from "../../support/openssl-ca.ts";
import { hasProgram } from "../../support/proxy-process.ts";
import { codeOf } from "../../support/reject.ts";
import { connectTls, readAll, readUntil, upstreamsTo } from "../../support/tls-edge.ts";
import {
  bodyOf,
  closeAfterTest,
  edgeCertificates,
  edgeTo,
  listenOn,
  talk,
} from "../../support/tls-edges.ts";
import { EXAMPLE_ACCEPT, EXAMPLE_KEY } from "../../support/websocket-example.ts";

const GET = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
const PATHS = [
  ["the fast path", true],
  ["the general path", false],
] as const;
type TlsOptions = Parameters<typeof createUpstreamTls>[0];

let dir: string;
let ca: OpensslCa;
let other: OpensslCa;
let client: IssuedFiles;
let server: IssuedFiles;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "stile-upstream-tls-"));
  ca = opensslCa();
  other = opensslCa("another root");
  client = ca.issue({ name: "the edge", extendedKeyUsage: "clientAuth" });
  server = ca.issue({ name: "app", subjectAltName: "DNS:app.example" });
});
afterAll(() => {
  for (const one of [ca, other]) one.remove();
  rmSync(dir, { recursive: true });
});

function tlsWith(options: Partial<TlsOptions> = {}): UpstreamTls {
  return createUpstreamTls({
    host: "127.0.0.1",
    serverName: "app.example",
    caFile: ca.caFile,
    clock: () => 0,
    observe: () => undefined,
    ...options,
  });
}

const upstreamAt = (port: number, tls: UpstreamTls): Upstreams =>
  upstreamsTo([`https://127.0.0.1:${port}`], { settings: { tls } });

/** The content of a chunked body. */
function unchunked(body: string): string {
  const pieces: string[] = [];
  for (let at = 0; ;) {
    const end = body.indexOf("\r\n", at);
    const size = parseInt(body.slice(at, end), 16);
    if (!(size > 0)) return pieces.join("");
    pieces.push(body.slice(end + 2, end + 2 + size));
    at = end + 4 + size;
  }
}

/** Counts what gets through to HTTP. */
async function countingServer(
  files: IssuedFiles,
  options: ServerOptions = {},
): Promise<{ readonly port: number; readonly hits: () => number }> {
  let hits = 0;
  const https: Server = createServer(
    { cert: readFileSync(files.certificateFile), key: readFileSync(files.keyFile), ...options },
    (_request, response) => {
      hits += 1;
      response.end("app");
    },
  );
  https.on("tlsClientError", (_error, socket) => socket.destroy());
  closeAfterTest(async () => {
    https.closeAllConnections();
    await new Promise((resolve) => https.close(resolve));
  });
  return { port: await listenOn(https), hits: () => hits };
}

describe.skipIf(!hasProgram("nginx"))("an nginx that verifies its clients", () => {
  const says =
    "$ssl_protocol|$ssl_client_verify|$ssl_client_s_dn|$ssl_server_name|$ssl_session_reused";
  const nginx = (protocols: string): Promise<number> =>
    nginxUpstream({
      listen: "ssl",
      says,
      server: `ssl_certificate ${server.certificateFile}; ssl_certificate_key ${server.keyFile};
ssl_client_certificate ${ca.caFile}; ssl_verify_client on; ssl_protocols ${protocols}; ssl_session_cache shared:a:1m;`,
    });

  test.each(PATHS)("is served by %s, with resumption for an hour", async (_name, fastPath) => {
    let nowMs = 0;
    const tls = tlsWith({ ...client, clock: () => nowMs });
    const upstreams = upstreamAt(await nginx("TLSv1.2 TLSv1.3"), tls);
    const edge = await edgeTo("", { upstreams, fastPath });
    const read = async (): Promise<string> => bodyOf(await talk(edge, GET));
    const full = "TLSv1.3|SUCCESS|CN=the edge|app.example|.";
    expect(await read()).toContain(full);
    // The general path keeps the connection; the fast path's client has left with its own.
    if (fastPath) expect(await read()).toContain("|r");
    nowMs = 3_599_999;
    if (fastPath) expect(await read()).toContain("|r");
    nowMs = 3_600_000;
    if (fastPath) expect(await read()).toContain(full);
  });

  test("is spoken to in TLS 1.2, and answers 400 where no certificate is shown", async () => {
    const port = await nginx("TLSv1.2");
    const shown = await edgeTo("", { upstreams: upstreamAt(port, tlsWith(client)) });
    expect(await talk(shown, GET)).toContain("TLSv1.2|SUCCESS");
    const hidden = await edgeTo("", { upstreams: upstreamAt(port, tlsWith()) });
    expect(await talk(hidden, GET)).toContain("No required SSL certificate was sent");
  });
});

describe("rejects with 502, and no request arrives, where an upstream", () => {
  const OLD = { from: "20200101000000Z", to: "20200201000000Z" };
  const named = (subjectAltName: string): IssuedFiles => ca.issue({ name: "app", subjectAltName });
  test.each<[string, () => IssuedFiles, Partial<TlsOptions>, ServerOptions]>([
    ["is of another CA", () => server, { caFile: "other" }, {}],
    ["is of a CA that only Node's list could know", () => server, { caFile: "" }, {}],
    ["has another name", () => server, { serverName: "other.example" }, {}],
    ["has a name that only its subject says", () => ca.issue({ name: "app.example" }), {}, {}],
    ["is an address that its certificate does not have", () => server, { serverName: "" }, {}],
    [
      "has ended",
      () => ca.issue({ name: "app", subjectAltName: "DNS:app.example", ...OLD }),
      {},
      {},
    ],
    [
      "has a certificate for clients",
      () => {
        const subjectAltName = "DNS:app.example";
        return ca.issue({ name: "app", subjectAltName, extendedKeyUsage: "clientAuth" });
      },
      {},
      {},
    ],
    [
      "speaks TLS 1.1",
      () => named("DNS:app.example"),
      {},
      { minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers: "DEFAULT@SECLEVEL=0" },
    ],
  ])("%s", async (_name, issue, { caFile, serverName }, options) => {
    const { hits, port } = await countingServer(issue(), options);
    const tls = createUpstreamTls({
      host: "127.0.0.1",
      ...(serverName === "" ? {} : { serverName: serverName ?? "app.example" }),
      ...(caFile === "" ? {} : { caFile: caFile === "other" ? other.caFile : ca.caFile }),
      clock: () => 0,
      observe: () => undefined,
    });
    for (const fastPath of [true, false]) {
      const edge = await edgeTo("", { upstreams: upstreamAt(port, tls), fastPath });
      const post = GET.replace("GET", "POST").replace("\r\n\r\n", "\r\nContent-Length: 1\r\n\r\nx");
      for (const text of [GET, post]) expect(await talk(edge, text)).toMatch(/^HTTP\/1.1 502 /);
      expect(edge.codes).toStrictEqual(Array(2).fill("TLS_UPSTREAM_UNREACHABLE"));
    }
    expect(hits()).toBe(0);
  });
});

test.each(PATHS)(
  "rejects with 504 one that does not shake hands in time, on %s",
  async (_n, fastPath) => {
    const silent = createTcpServer((socket) => socket.on("error", () => undefined).resume());
    closeAfterTest(() => new Promise((resolve) => silent.close(() => resolve())));
    const { hits, port } = await countingServer(server);
    const urls = [await listenOn(silent), port].map((at) => `https://127.0.0.1:${at}`);
    const settings = { tls: tlsWith(), connectTimeoutMs: 100 };
    const alone = await edgeTo("", {
      upstreams: upstreamsTo(urls.slice(0, 1), { settings }),
      fastPath,
    });
    expect(await talk(alone, GET)).toMatch(/^HTTP\/1.1 504 /);
    expect(alone.codes).toStrictEqual(["TLS_UPSTREAM_TIMEOUT"]);
    // Nothing was sent: where there is another, it is asked.
    const both = await edgeTo("", { upstreams: upstreamsTo(urls, { settings }), fastPath });
    expect(await talk(both, GET.replace("GET", "DELETE"))).toMatch(/^HTTP\/1.1 200 /);
    expect(hits()).toBe(1);
  },
);

test.each(PATHS)("8 MiB go there and back, over %s", async (_path, fastPath) => {
  const cert = readFileSync(server.certificateFile);
  const echo = createServer({ cert, key: readFileSync(server.keyFile) }, (request, response) => {
    request.pipe(response);
  });
  closeAfterTest(async () => {
    echo.closeAllConnections();
    await new Promise((resolve) => echo.close(resolve));
  });
  const upstreams = upstreamAt(await listenOn(echo), tlsWith());
  const edge = await edgeTo("", { upstreams, fastPath });
  const body = randomBytes(2 ** 23).toString("latin1");
  const length = `\r\nContent-Length: ${body.length}\r\n\r\n`;
  const head = GET.replace("GET", "POST").replace("\r\n\r\n", length);
  expect(unchunked(bodyOf(await talk(edge, head + body))) === body).toBe(true);
});

test("a WebSocket's directions end one by one over TLS, too", async () => {
  const cert = readFileSync(server.certificateFile);
  const options = { cert, key: readFileSync(server.keyFile), allowHalfOpen: true };
  const tunnel = createTlsServer(options, (socket) => {
    let told = "";
    socket.on("error", () => undefined);
    socket.once("data", () => {
      socket.write(
        "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n" +
          `Sec-WebSocket-Accept: ${EXAMPLE_ACCEPT}\r\n\r\n`,
      );
      socket.on("data", (chunk: Buffer) => (told += chunk.toString()));
      socket.once("end", () => socket.end(`told ${told}`));
    });
  });
  closeAfterTest(() => new Promise((resolve) => tunnel.close(() => resolve())));
  const edge = await edgeTo("", { upstreams: upstreamAt(await listenOn(tunnel), tlsWith()) });
  const socket = await connectTls(edge.port, edgeCertificates().ca);
  socket.allowHalfOpen = true;
  const [upgraded, all] = [readUntil(socket, "\r\n\r\n"), readAll(socket)];
  socket.write(
    GET.replace("close", `upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: ${EXAMPLE_KEY}`),
  );
  expect(await upgraded).toMatch(/^HTTP\/1.1 101 /);
  socket.end("this");
  expect(await all).toContain("told this");
});

test("an address in the subjectAltName is a name, and unsafeSkipVerification takes any", async () => {
  const byAddress = ca.issue({ name: "app", subjectAltName: "IP:127.0.0.1" });
  const { port } = await countingServer(byAddress);
  const at = { host: "127.0.0.1", clock: () => 0, observe: () => undefined };
  const verified = createUpstreamTls({ ...at, caFile: ca.caFile });
  expect(await talk(await edgeTo("", { upstreams: upstreamAt(port, verified) }), GET)).toContain(
    "app",
  );
  const unsafe = createUpstreamTls({
    ...at,
    serverName: "x.example",
    unsafeSkipVerification: true,
  });
  expect(await talk(await edgeTo("", { upstreams: upstreamAt(port, unsafe) }), GET)).toContain(
    "app",
  );
});

describe("the files", () => {
  const file = (name: string): string => join(dir, name);

  test("are taken up when they change; a broken one keeps the old, and is told once", async () => {
    copyFileSync(other.caFile, file("ca.pem"));
    const events: string[] = [];
    const tls = tlsWith({ caFile: file("ca.pem"), observe: (event) => void events.push(event) });
    const { hits, port } = await countingServer(server);
    const edge = await edgeTo("", { upstreams: upstreamAt(port, tls) });
    expect(await talk(edge, GET)).toMatch(/ 502 /);
    copyFileSync(ca.caFile, file("ca.pem"));
    for (let i = 0; i < 2; i += 1) tls.look();
    expect(await talk(edge, GET)).toMatch(/ 200 /);
    for (const broken of ["", "no certificate", ca.pem.replace("M", "?")]) {
      writeFileSync(file("ca.pem"), broken);
      for (let i = 0; i < 2; i += 1) tls.look();
      expect(await talk(edge, GET)).toMatch(/ 200 /);
    }
    expect(events.filter((event) => event === "files-reloaded")).toHaveLength(1);
    // An empty file and one without a certificate are broken in the same way.
    expect(events.filter((event) => event === "files-failed")).toHaveLength(2);
    // A session of the CA before is not resumed: it would not be verified again.
    copyFileSync(other.caFile, file("ca.pem"));
    tls.look();
    expect(await talk(edge, GET)).toMatch(/ 502 /);
    expect(hits()).toBe(4);
  });

  test.each(PATHS)(
    "end the keeping of connections that were made under others, on %s",
    async (_path, fastPath) => {
      copyFileSync(ca.caFile, file("kept-ca.pem"));
      const tls = tlsWith({ caFile: file("kept-ca.pem") });
      const { hits, port } = await countingServer(server);
      const edge = await edgeTo("", { upstreams: upstreamAt(port, tls), fastPath });
      const socket = await connectTls(edge.port, edgeCertificates().ca);
      for (const expected of ["app", "app", "TLS_UPSTREAM_UNREACHABLE"]) {
        const answer = readUntil(socket, expected);
        socket.write(GET.replace("close", "keep-alive"));
        await answer;
        if (hits() < 2) continue;
        copyFileSync(other.caFile, file("kept-ca.pem"));
        tls.look();
      }
      socket.destroy();
      expect(hits()).toBe(2);
    },
  );

  test("rejects as TLS_UPSTREAM_FILES_INVALID what cannot be used at start", () => {
    const foreign = ca.issue({ name: "another" });
    writeFileSync(file("empty.pem"), "");
    for (const options of [
      { caFile: file("absent.pem") },
      { caFile: file("empty.pem") },
      { certificateFile: client.certificateFile, keyFile: foreign.keyFile },
      { certificateFile: client.certificateFile, keyFile: file("absent.key") },
      { certificateFile: client.keyFile, keyFile: client.keyFile },
    ]) {
      expect(codeOf(() => tlsWith(options))).toBe("TLS_UPSTREAM_FILES_INVALID");
    }
  });
});
