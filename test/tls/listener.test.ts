/** The listener against Node's and OpenSSL's own clients: versions, groups, reload, time limits, drain. */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import type { ServerResponse } from "node:http";
import { join } from "node:path";
import { TLSSocket } from "node:tls";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { developmentCertificates } from "../../service/dev/certificates.ts";
import {
  createListener,
  DEFAULT_LISTENER_LIMITS,
  fileCertificates,
  type ListenerLimits,
  tlsExporter,
} from "../../tls/index.ts";
import { codeOf } from "../support/reject.ts";
import {
  connectPlain,
  connectTls,
  exchangeRaw,
  readAll,
  readUntil,
  startEdge,
  startUpstream,
  type TestCertificates,
  testCertificates,
  type TestEdge,
  type TestUpstream,
} from "../support/tls-edge.ts";
import { EXAMPLE_KEY } from "../support/websocket-example.ts";
import { waitFor } from "../support/wait-for.ts";

const run = promisify(execFile);
const GET = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
let certificates: TestCertificates;
let upstream: TestUpstream;
const edges: TestEdge[] = [];
/** Answers that the upstream holds back. */
const held: ServerResponse[] = [];

beforeAll(async () => {
  certificates = await testCertificates();
  upstream = await startUpstream((request, response) => {
    if (request.url === "/held") held.push(response);
    else request.resume().once("end", () => response.end("ok"));
  });
});
afterEach(async () => {
  for (const edge of edges.splice(0)) await edge.close();
  held.length = 0;
});
afterAll(async () => {
  await upstream.close();
  certificates.remove();
});

async function start(
  limits: Partial<ListenerLimits> = {},
  files: TestCertificates = certificates,
  fastPath = true,
): Promise<TestEdge> {
  const target = `http://127.0.0.1:${upstream.port}`;
  const edge = await startEdge({ certificates: files, upstream: target, limits, fastPath });
  edges.push(edge);
  return edge;
}

/** What a client of another TLS version is told. */
async function refusal(port: number, options: Parameters<typeof connectTls>[2]): Promise<string> {
  return connectTls(port, certificates.ca, options).then(
    () => "connected",
    (error: NodeJS.ErrnoException) => error.code ?? String(error),
  );
}

function groupOf(socket: TLSSocket): unknown {
  const info = socket.getEphemeralKeyInfo();
  return info !== null && "name" in info ? info.name : undefined;
}

describe("the handshake", () => {
  test.each([
    ["Node's default", undefined, "X25519MLKEM768"],
    ["X25519 first, ML-KEM offered", "X25519:X25519MLKEM768", "X25519MLKEM768"],
    ["X25519 only", "X25519", "X25519"],
    ["P-256 only", "P-256", "prime256v1"],
  ])("agrees on a group with a client of %s", async (_name, ecdhCurve, group) => {
    const { port } = await start();
    const options = ecdhCurve === undefined ? {} : { ecdhCurve };
    const socket = await connectTls(port, certificates.ca, options);
    expect(groupOf(socket)).toBe(group);
    expect(socket.getProtocol()).toBe("TLSv1.3");
    socket.destroy();
  });

  test("rejects TLS 1.2, other groups and other protocols", async () => {
    const { port, events } = await start();
    expect(await refusal(port, { maxVersion: "TLSv1.2" })).toBe(
      "ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION",
    );
    expect(await refusal(port, { ecdhCurve: "P-384" })).toMatch(/HANDSHAKE_FAILURE/);
    expect(await refusal(port, { ALPNProtocols: ["h3"] })).toMatch(/NO_APPLICATION_PROTOCOL/);
    expect(events).toStrictEqual(["handshake-failed", "handshake-failed", "handshake-failed"]);
  });

  test("is TLS 1.3 to openssl s_client, which cannot get 1.2", async () => {
    const { port } = await start();
    const args = ["s_client", "-connect", `127.0.0.1:${port}`, "-CAfile"];
    const caFile = join(certificates.dir, "ca.pem");
    const ok = await run("sh", [
      "-c",
      `echo Q | openssl ${args.join(" ")} ${caFile} -alpn http/1.1`,
    ]);
    expect(ok.stdout).toContain("New, TLSv1.3, Cipher is TLS_AES_256_GCM_SHA384");
    expect(ok.stdout).toContain("Verify return code: 0 (ok)");
    expect(ok.stdout).toContain("ALPN protocol: http/1.1");
    const old = run("openssl", [...args, caFile, "-tls1_2"]);
    await expect(old).rejects.toThrow(/alert protocol version/);
  });

  test("gives both ends the same exporter, and each connection its own", async () => {
    const source = fileCertificates({
      ...certificates,
      pollMs: 60_000,
      clock: Date.now,
      observe: () => undefined,
    });
    const listener = createListener({
      certificates: source,
      unknownName: "refuse",
      limits: DEFAULT_LISTENER_LIMITS,
      handler: ({ socket }, response) => {
        if (socket instanceof TLSSocket) response.end(Buffer.from(tlsExporter(socket)));
      },
      upgrade: (_request, socket) => void socket.destroy(),
      observe: () => undefined,
    });
    const { port } = await listener.listen({ host: "127.0.0.1", port: 0 });
    const exporters: string[] = [];
    for (let i = 0; i < 2; i += 1) {
      const socket = await connectTls(port, certificates.ca);
      // RFC 9266 §2, as the client's own stack computes it.
      const own = socket.exportKeyingMaterial(32, "EXPORTER-Channel-Binding", Buffer.alloc(0));
      const answer = readAll(socket);
      socket.write(GET.replace("1.1\r\n", "1.1\r\nConnection: close\r\n"));
      expect((await answer).slice(-32)).toBe(own.toString("latin1"));
      exporters.push(own.toString("hex"));
    }
    expect(exporters[0]).not.toBe(exporters[1]);
    source.close();
    await listener.drain(0);
  });
});

describe("certificates", () => {
  const fingerprint = async (port: number, ca: string): Promise<string> => {
    const socket = await connectTls(port, ca, { rejectUnauthorized: false });
    const { raw } = socket.getPeerCertificate();
    socket.destroy();
    return createHash("sha256").update(raw).digest("hex");
  };

  test("reload keeps TLS 1.3 and the groups; a broken file keeps the old certificate", async () => {
    const files = await testCertificates();
    const edge = await start({}, files);
    const before = await fingerprint(edge.port, files.ca);
    const open = await connectTls(edge.port, files.ca);

    writeFileSync(files.certificateFile, "-----BEGIN CERTIFICATE-----\nAAAA\n");
    await waitFor(() => expect(edge.events).toContain("certificate-reload-failed"));
    expect(await fingerprint(edge.port, files.ca)).toBe(before);

    const next = await testCertificates();
    // First the certificate alone, as a renewal that is caught half-way: it does not match the key.
    writeFileSync(files.certificateFile, readFileSync(next.certificateFile));
    await waitFor(() => {
      expect(edge.events.filter((event) => event === "certificate-reload-failed")).toHaveLength(2);
    });
    expect(await fingerprint(edge.port, files.ca)).toBe(before);
    expect(edge.events).not.toContain("certificate-reloaded");

    writeFileSync(files.keyFile, readFileSync(next.keyFile));
    await waitFor(() => expect(edge.events).toContain("certificate-reloaded"));
    expect(await fingerprint(edge.port, files.ca)).not.toBe(before);
    // Without the whole option set, setSecureContext would have let all of these in.
    expect(await refusal(edge.port, { ca: next.ca, maxVersion: "TLSv1.2" })).toMatch(/PROTOCOL/);
    expect(await refusal(edge.port, { ca: next.ca, ecdhCurve: "P-384" })).toMatch(/HANDSHAKE/);
    const first = await connectTls(edge.port, next.ca, { ecdhCurve: "X25519:X25519MLKEM768" });
    expect(groupOf(first)).toBe("X25519MLKEM768");
    first.destroy();

    // Connections of before live on.
    open.write(GET);
    expect(await readUntil(open, "ok")).toMatch(/^HTTP\/1.1 200 /);
    open.destroy();
    files.remove();
    next.remove();
  });

  test("rejects unusable files at the start", async () => {
    const other = await testCertificates();
    const broken = join(other.dir, "broken.pem");
    writeFileSync(broken, `${readFileSync(other.certificateFile, "utf8").slice(0, 400)}\n`);
    const intermediates = join(other.dir, "intermediates.pem");
    const leaf = readFileSync(other.certificateFile, "utf8").split(
      /(?<=-----END CERTIFICATE-----\n)/,
    );
    const junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    writeFileSync(intermediates, `${leaf[0]}${junk}`);
    const open = (certificateFile: string, keyFile: string): string =>
      codeOf(() =>
        fileCertificates({
          certificateFile,
          keyFile,
          pollMs: 1_000,
          clock: Date.now,
          observe: () => undefined,
        }),
      );
    for (const [certificateFile, keyFile] of [
      [join(other.dir, "missing.pem"), other.keyFile],
      [other.certificateFile, join(other.dir, "missing.key")],
      [broken, other.keyFile],
      [intermediates, other.keyFile],
      [certificates.certificateFile, other.keyFile],
      [other.certificateFile, other.certificateFile],
    ] as const) {
      expect(open(certificateFile, keyFile)).toBe("TLS_CERTIFICATE_INVALID");
    }
    other.remove();
  });

  test("development certificates are of the kind that the start accepts", async () => {
    const again = await developmentCertificates(certificates.dir, Date.now());
    expect(readFileSync(again.caFile, "utf8")).toBe(certificates.ca);
  });
});

describe("time limits", () => {
  const elapsed = async (done: Promise<unknown>): Promise<number> => {
    const startMs = performance.now();
    await done;
    return performance.now() - startMs;
  };

  test("cuts a client that does not shake hands", async () => {
    const { port, events } = await start({ handshakeTimeoutMs: 100 });
    const socket = await connectPlain(port);
    // Without, ten seconds.
    expect(await elapsed(readAll(socket))).toBeLessThan(8_000);
    expect(events).toStrictEqual(["handshake-failed"]);
  });

  test.each([
    ["sends nothing", ""],
    ["stops within its head", "GET / HTTP/1.1\r\nHost: a.exam"],
  ])("cuts a client that %s", async (_name, text) => {
    const { port } = await start({ headersTimeoutMs: 100, requestTimeoutMs: 10_000 });
    const socket = await connectTls(port, certificates.ca);
    socket.write(text);
    expect(await readAll(socket)).toMatch(/^(HTTP\/1.1 408 Request Timeout\r\n|$)/);
  });

  test("cuts a client that trickles its body for longer than the request limit", async () => {
    const { port } = await start({ headersTimeoutMs: 100, requestTimeoutMs: 200 });
    const socket = await connectTls(port, certificates.ca);
    socket.write("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000\r\n\r\n");
    const trickle = setInterval(() => socket.write("x"), 20);
    // Without, a quarter of an hour.
    expect(await elapsed(readAll(socket))).toBeLessThan(10_000);
    clearInterval(trickle);
  });

  test("cuts a client that goes silent within its body", async () => {
    const { port } = await start({ idleTimeoutMs: 100 });
    const socket = await connectTls(port, certificates.ca);
    socket.write("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000\r\n\r\nx");
    expect(await readAll(socket)).toBe("");
  });

  test("leaves a client alone that waits for a slow upstream", async () => {
    const { port } = await start({ idleTimeoutMs: 50 });
    const socket = await connectTls(port, certificates.ca);
    const answer = readUntil(socket, "late");
    socket.write(GET.replace("/ ", "/held "));
    await waitFor(() => expect(held).toHaveLength(1));
    await new Promise((resolve) => setTimeout(resolve, 200));
    held[0]?.end("late");
    expect(await answer).toMatch(/^HTTP\/1.1 200 /);
    socket.destroy();
  });

  test("cuts a kept connection that stays unused", async () => {
    const { port } = await start({ keepAliveTimeoutMs: 50 });
    const socket = await connectTls(port, certificates.ca);
    socket.write(GET);
    // Without, 75 seconds, or the five of Node.
    expect(await elapsed(readAll(socket))).toBeLessThan(4_500);
  });

  test("drops connections above the limit and counts them", async () => {
    const { port, events } = await start({ maxConnections: 1 });
    const first = await connectTls(port, certificates.ca);
    const code = await refusal(port, {});
    expect(code).toBe("ECONNRESET");
    expect(events).toContain("connection-dropped");
    first.destroy();
  });
});

describe("drain", () => {
  test("ends answers under way with `connection: close` and idle connections at once", async () => {
    const edge = await start();
    const busy = await connectTls(edge.port, certificates.ca);
    const unused = await connectTls(edge.port, certificates.ca);
    const kept = await connectTls(edge.port, certificates.ca);
    const unshaken = await connectPlain(edge.port);
    kept.write(GET);
    await readUntil(kept, "ok");
    busy.write(GET.replace("/ ", "/held "));
    await waitFor(() => expect(held).toHaveLength(1));

    const answer = readAll(busy);
    const cut = Promise.all([unused, kept, unshaken].map((socket) => readAll(socket)));
    const drained = edge.listener.drain(10_000);
    await cut;
    expect(await refusal(edge.port, {})).toBe("ECONNREFUSED");
    held[0]?.end("whole");
    expect(await answer).toMatch(/^HTTP\/1.1 200 OK\r\n(?:.*\r\n)*connection: close\r\n/i);
    expect(await answer).toMatch(/whole\r\n0\r\n\r\n$|whole$/);
    await drained;
  });

  test("cuts what is left at the deadline", async () => {
    const edge = await start();
    const busy = await connectTls(edge.port, certificates.ca);
    busy.write(GET.replace("/ ", "/held "));
    await waitFor(() => expect(held).toHaveLength(1));
    const answer = readAll(busy);
    await edge.listener.drain(50);
    expect(await answer).toBe("");
  });

  test("answers garbage behind a running answer by cutting the connection", async () => {
    // The fast path reads it once the answer is whole.
    const edge = await start({}, certificates, false);
    const socket = await connectTls(edge.port, certificates.ca);
    socket.write(GET.replace("/ ", "/held "));
    await waitFor(() => expect(held).toHaveLength(1));
    const answer = readAll(socket);
    held[0]?.write("part");
    await readUntil(socket, "part");
    socket.write("garbage\r\n\r\n");
    expect(await answer).not.toContain("400 Bad Request");
    expect(edge.events).toContain("client-error");
  });

  test("survives a client that resets its connection during an upgrade", async () => {
    const edge = await start();
    const raw = await connectPlain(edge.port);
    const socket = await connectTls(edge.port, certificates.ca, { socket: raw });
    socket.write(
      "GET /held HTTP/1.1\r\nHost: a.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n" +
        `Sec-WebSocket-Key: ${EXAMPLE_KEY}\r\n\r\n`,
    );
    await waitFor(() => expect(held).toHaveLength(1));
    raw.resetAndDestroy();
    await waitFor(() => expect(held[0]?.destroyed).toBe(true));
    expect(
      await exchangeRaw(
        edge.port,
        certificates.ca,
        GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"),
      ),
    ).toMatch(/ 200 /);
  });
});
