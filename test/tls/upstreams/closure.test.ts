/** Real TLS upstreams that end their answers, and connections that are cut instead (RFC 9112 §9.8). */
import { readFileSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { createServer as createTlsServer, type TLSSocket } from "node:tls";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createUpstreamTls } from "../../../tls/index.ts";
import { isCut, watchClosure } from "../../../tls/upstreams/closure.ts";
import { openH2, requestH2 } from "../../support/h2-client.ts";
import { type IssuedFiles, type OpensslCa, opensslCa } from "../../support/openssl-ca.ts";
import {
  connectPlain,
  connectTls,
  readAll,
  type TestEdge,
  upstreamsTo,
} from "../../support/tls-edge.ts";
import {
  closeAfterTest,
  edgeBeforeRaw,
  edgeCertificates,
  edgeTo,
  listenOn,
  talk,
} from "../../support/tls-edges.ts";
import { EXAMPLE_KEY } from "../../support/websocket-example.ts";

type Ending = (secure: TLSSocket, raw: Socket) => void;
type Version = "TLSv1.2" | "TLSv1.3";

const GET = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
const UNTIL_CLOSE = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
const LARGE = "x".repeat(300_000);
/** Of a record that says it is 100 bytes long. */
const PART_OF_RECORD = Uint8Array.of(23, 3, 3, 0, 100, 1, 2, 3);

const close: Ending = (secure) => secure.end();
const cut: Ending = (_secure, raw) => raw.destroy();
const cutWithin: Ending = (_secure, raw) => raw.write(PART_OF_RECORD, () => raw.destroy());
const reset: Ending = (_secure, raw) => raw.resetAndDestroy();
const ENDINGS: readonly (readonly [name: string, end: Ending, isWhole: boolean])[] = [
  ["a close_notify", close, true],
  ["a FIN alone", cut, false],
  ["a FIN within a record", cutWithin, false],
  ["a RST", reset, false],
];
const CASES = (["TLSv1.2", "TLSv1.3"] as const).flatMap((version) =>
  [true, false].flatMap((fastPath) =>
    ENDINGS.map(([name, end, isWhole]) => ({ version, fastPath, name, end, isWhole })),
  ),
);

let ca: OpensslCa;
let server: IssuedFiles;
beforeAll(() => {
  ca = opensslCa();
  server = ca.issue({ name: "app", subjectAltName: "DNS:app.example" });
});
afterAll(() => ca.remove());

interface Upstream {
  readonly edge: TestEdge;
  /** The answer is out, and its connection ended or cut. */
  readonly isOver: Promise<void>;
}

async function edgeBeforeTls(
  answer: string,
  end: Ending,
  { fastPath, version }: { readonly fastPath: boolean; readonly version: Version },
): Promise<Upstream> {
  const raws = new Set<Socket>();
  let over = (): void => undefined;
  const isOver = new Promise<void>((resolve) => (over = resolve));
  const tlsServer = createTlsServer({
    cert: readFileSync(server.certificateFile),
    key: readFileSync(server.keyFile),
    maxVersion: version,
  });
  const tcp = createServer((raw) => {
    raws.add(raw.on("error", () => undefined));
    tlsServer.once("secureConnection", (secure) => {
      secure.on("error", () => undefined);
      secure.once("data", () =>
        secure.write(answer, () => {
          end(secure, raw);
          over();
        }),
      );
    });
    tlsServer.emit("connection", raw);
  });
  closeAfterTest(() => {
    for (const raw of raws) raw.destroy();
    return new Promise((resolve) => tcp.close(() => resolve()));
  });
  const port = await listenOn(tcp);
  const tls = createUpstreamTls({
    host: "127.0.0.1",
    serverName: "app.example",
    caFile: ca.caFile,
    clock: () => 0,
    observe: () => undefined,
  });
  const upstreams = upstreamsTo([`https://127.0.0.1:${port}`], { settings: { tls } });
  return { edge: await edgeTo("", { upstreams, fastPath }), isOver };
}

/** Whole: with the last chunk, which is how a client of HTTP/1.1 knows. */
const isWholeAnswer = (answer: string): boolean => answer.endsWith("\r\n0\r\n\r\n");

describe.each(CASES)(
  "$version, fastPath $fastPath: an answer until the close, ended by $name",
  ({ end, isWhole, ...options }) => {
    test("is whole or cut over HTTP/1.1", async () => {
      const { edge } = await edgeBeforeTls(`${UNTIL_CLOSE}hello`, end, options);
      const answer = await talk(edge, GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
      expect(answer).toMatch(/^HTTP\/1.1 (200|502) /);
      expect(isWholeAnswer(answer)).toBe(isWhole);
      if (isWhole) expect(answer).toContain("hello");
    });

    test("is whole or cut for a client that reads late", async () => {
      const { edge, isOver } = await edgeBeforeTls(UNTIL_CLOSE + LARGE, end, options);
      const socket = await connectTls(edge.port, edgeCertificates().ca);
      socket.pause();
      socket.write(GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
      await isOver;
      const answer = await readAll(socket.resume());
      expect(isWholeAnswer(answer)).toBe(isWhole);
      if (isWhole) expect(answer.replaceAll(/[^x]/g, "")).toHaveLength(LARGE.length);
    });

    test("is whole or reset over HTTP/2", async () => {
      const { edge } = await edgeBeforeTls(`${UNTIL_CLOSE}hello`, end, options);
      const session = await openH2(edge.port, edgeCertificates().ca);
      const told = await requestH2(session, { ":authority": "a.example" }).then(
        ({ body, status }) => status === 200 && body === "hello",
        () => false,
      );
      session.destroy();
      expect(told).toBe(isWhole);
    });
  },
);

describe.each([true, false])("with fastPath %s, a connection that is cut", (fastPath) => {
  const options = { fastPath, version: "TLSv1.3" } as const;

  test.each([
    ["a length", GET, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello"],
    [
      "chunks",
      GET,
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
      "hello",
    ],
    ["no body", GET, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", "204 No Content"],
    ["no body, to HEAD", GET.replace("GET", "HEAD"), UNTIL_CLOSE, "200 OK"],
  ])("harms no answer with %s, which is whole by then", async (_, request, answer, shown) => {
    const { edge } = await edgeBeforeTls(answer, cut, options);
    const told = await talk(edge, request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
    expect(told).toMatch(/^HTTP\/1.1 20[04] /);
    expect(told).toContain(shown);
    expect(edge.codes).toEqual([]);
  });

  test("is told of an upstream without TLS, too, where it was reset", async () => {
    const edge = await edgeBeforeRaw(
      (raw) =>
        raw.once("data", () => raw.write(`${UNTIL_CLOSE}hello`, () => raw.resetAndDestroy())),
      { fastPath },
    );
    const told = await talk(edge, GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
    expect(isWholeAnswer(told)).toBe(false);
  });

  test("is told to a client whose WebSocket handshake was answered otherwise", async () => {
    const upgrade =
      "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n" +
      `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${EXAMPLE_KEY}\r\n\r\n`;
    for (const [end, isEnded] of [
      [close, true],
      [cut, false],
    ] as const) {
      const { edge } = await edgeBeforeTls(UNTIL_CLOSE + LARGE, end, options);
      const raw = await connectPlain(edge.port);
      const socket = await connectTls(edge.port, edgeCertificates().ca, { socket: raw });
      watchClosure(socket, raw);
      socket.on("error", () => undefined);
      socket.write(upgrade);
      const answer = await readAll(socket);
      expect(answer).toMatch(/^HTTP\/1.1 200 /);
      if (isEnded) expect(answer).toContain(LARGE);
      expect(isCut(socket) || socket.errored !== null).toBe(!isEnded);
    }
  });
});
