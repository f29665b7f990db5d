/** A listener and a forwarder on loopback with a raw upstream behind them, and raw clients for both. */
import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
} from "node:http";
import { type AddressInfo, connect as connectTcp, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex, Readable } from "node:stream";
import { connect, type ConnectionOptions, type TLSSocket } from "node:tls";
import { developmentCertificates } from "../../service/dev/certificates.ts";
import {
  closeSoon,
  type CertificateFiles,
  type CertificateSource,
  type ChallengeCertificates,
  checkRequestHead,
  createForwarder,
  createListener,
  createUpstreams,
  DEFAULT_LISTENER_LIMITS,
  type FastPath,
  type FastPathOptions,
  fileCertificates,
  type Forwarder,
  type ForwarderOptions,
  type FrontOptions,
  type Listener,
  type ListenerLimits,
  parseUpstream,
  type TicketKeySource,
  type TlsEvent,
  type Upstreams,
  type UpstreamSettings,
  type UpstreamsOptions,
  writeUpgradeHead,
} from "../../tls/index.ts";
import { isStileError } from "../../wire/index.ts";

export type Extra = Parameters<Forwarder["forward"]>[2];
export const noExtra: Extra = {
  removeRequestHeaders: [],
  requestHeaders: [],
  responseHeaders: [],
};

export interface TestCertificates {
  readonly dir: string;
  readonly ca: string;
  readonly certificateFile: string;
  readonly keyFile: string;
  readonly further?: readonly CertificateFiles[];
  readonly isAwaited?: boolean;
  readonly remove: () => void;
}

export async function testCertificates(): Promise<TestCertificates> {
  const dir = mkdtempSync(join(tmpdir(), "stile-tls-"));
  const files = await developmentCertificates(dir, Date.now());
  return {
    ...files,
    dir,
    ca: readFileSync(files.caFile, "utf8"),
    remove: () => rmSync(dir, { recursive: true }),
  };
}

export interface TestUpstream {
  readonly server: Server;
  readonly port: number;
  readonly close: () => Promise<void>;
}

export async function startUpstream(handler: RequestListener): Promise<TestUpstream> {
  const server = createServer(handler);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
  const { port } = server.address() as AddressInfo;
  const close = (): Promise<void> =>
    new Promise((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
  return { server, port, close };
}

export interface EdgeOptions {
  readonly certificates: TestCertificates;
  readonly upstream: string;
  /** Instead of that one. */
  readonly upstreams?: Upstreams;
  readonly limits?: Partial<ListenerLimits>;
  readonly forwarder?: Partial<ForwarderOptions>;
  readonly extra?: Extra;
  /** On unless it is said. */
  readonly fastPath?: boolean;
  /** Of the fast path; it forwards unless it is said. */
  readonly decide?: FastPathOptions["decide"];
  /** On unless it is said. */
  readonly http2?: boolean;
  /** `refuse` unless it is said. */
  readonly unknownName?: "refuse" | "first";
  readonly ticketKeys?: TicketKeySource;
  readonly front?: FrontOptions;
  readonly challenges?: ChallengeCertificates | undefined;
  /** What the certificates' clock shows. */
  readonly nowMs?: number;
}

export interface TestEdge {
  readonly port: number;
  readonly listener: Listener;
  readonly source: CertificateSource;
  readonly events: TlsEvent[];
  /** Codes of what forwarding refused, in order. */
  readonly codes: string[];
  readonly close: () => Promise<void>;
}

export interface TestUpstreamsOptions extends Partial<Omit<UpstreamsOptions, "upstreams">> {
  readonly settings?: Partial<UpstreamSettings>;
}

/** With names `0`, `1` and so on. */
export function upstreamsTo(
  urls: readonly string[],
  { settings, ...options }: TestUpstreamsOptions = {},
): Upstreams {
  return createUpstreams({
    upstreams: urls.map((url, i) => ({
      name: String(i),
      address: parseUpstream(url),
      weight: 1,
      maxUnderWay: 1_000,
      tls: undefined,
      connectTimeoutMs: 1_000,
      proxyProtocol: "off",
      ...settings,
    })),
    ejection: { failures: 3, baseMs: 1_000, maxMs: 60_000 },
    clock: () => performance.now(),
    random: () => 0,
    observe: () => undefined,
    ...options,
  });
}

/** What service/edge does, without admission: check the head, forward, answer errors. */
export async function startEdge(options: EdgeOptions): Promise<TestEdge> {
  const events: TlsEvent[] = [];
  const codes: string[] = [];
  const observe = (event: TlsEvent): void => void events.push(event);
  const source = fileCertificates({
    ...options.certificates,
    pollMs: 20,
    clock: () => options.nowMs ?? Date.now(),
    observe,
  });
  const upstreams = options.upstreams ?? upstreamsTo([options.upstream]);
  const idleTimeoutMs = options.forwarder?.idleTimeoutMs ?? 5_000;
  const isFast = options.fastPath ?? process.env["STILE_TEST_GENERAL_PATH"] === undefined;
  const forwarder = createForwarder({
    upstreams,
    maxBodyBytes: 2 ** 27,
    maxUnderWay: 1_000,
    firstByteTimeoutMs: idleTimeoutMs,
    idleTimeoutMs,
    keepMs: 4_000,
    forwardedHeader: "x-forwarded",
    isSpliced: isFast,
    ...options.forwarder,
  });
  const extra = options.extra ?? noExtra;
  const note = (error: unknown): string => {
    const code = isStileError(error) ? error.code : String(error);
    codes.push(code);
    return code;
  };
  const listener = createListener({
    certificates: source,
    unknownName: options.unknownName ?? "refuse",
    ...(options.ticketKeys === undefined ? {} : { ticketKeys: options.ticketKeys }),
    challenges: options.challenges,
    limits: { ...DEFAULT_LISTENER_LIMITS, timeoutCheckMs: 20, ...options.limits },
    ...(options.front === undefined ? {} : { front: options.front }),
    handler: (request, response) => {
      handle(forwarder, request, response, extra).catch((error: unknown) =>
        refuse(request, response, note(error)),
      );
    },
    upgrade: (request, socket, head) => {
      upgrade(forwarder, request, socket, head, extra).catch((error: unknown) => {
        const status = statusOf(note(error));
        writeUpgradeHead(socket, {
          status,
          reason: "x",
          headers: ["content-length", "0"],
          connection: [],
        });
        socket.end();
        closeSoon(socket);
      });
    },
    observe,
    ...(options.http2 === false ? {} : { http2: { random: randomBytes } }),
    ...(isFast
      ? { fastPath: fastPathOf(forwarder, options.decide ?? forwarding(extra), note) }
      : {}),
  });
  const { port } = await listener.listen({ host: "127.0.0.1", port: 0 });
  const close = async (): Promise<void> => {
    source.close();
    await listener.drain(0);
    await forwarder.close();
    upstreams.close();
  };
  return { port, listener, source, events, codes, close };
}

function forwarding(extra: Extra): FastPathOptions["decide"] {
  return () => ({ kind: "forward", extra });
}

function fastPathOf(
  forwarder: Forwarder,
  decide: FastPathOptions["decide"],
  note: (error: unknown) => string,
): FastPath {
  return forwarder.fastPath({
    decide,
    refusal: (error) => {
      const body = note(error);
      return { status: statusOf(body), reason: "x", headers: [], body, isLast: false };
    },
    clock: Date.now,
  });
}

async function handle(
  forwarder: Forwarder,
  request: IncomingMessage,
  response: ServerResponse,
  extra: Extra,
): Promise<void> {
  checkRequestHead(request);
  await forwarder.forward(request, response, extra);
}

async function upgrade(
  forwarder: Forwarder,
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  extra: Extra,
): Promise<void> {
  checkRequestHead(request);
  await forwarder.upgrade(request, socket, head, extra);
}

function statusOf(code: string): number {
  const statuses: Record<string, number> = {
    TLS_HEAD_REJECTED: 400,
    TLS_BODY_TOO_LARGE: 413,
    TLS_UPSTREAM_UNREACHABLE: 502,
    TLS_UPSTREAM_TIMEOUT: 504,
    TLS_UPSTREAM_UNHEALTHY: 503,
  };
  return statuses[code] ?? 500;
}

function refuse(request: IncomingMessage, response: ServerResponse, code: string): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  // As service/edge: a small body is thrown away, a larger or a chunked one ends the connection.
  const keep =
    statusOf(code) !== 400 &&
    request.headers.expect === undefined &&
    Number(request.headers["content-length"] ?? Infinity) <= 65_536;
  response.writeHead(statusOf(code), {
    "content-type": "text/plain",
    ...(keep ? {} : { connection: "close" }),
  });
  response.end(code);
}

export function connectTls(
  port: number,
  ca: string,
  options: ConnectionOptions & { readonly localAddress?: string } = {},
): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1", ca, ...options }, () => {
      socket.off("error", reject);
      socket.on("error", () => undefined);
      resolve(socket);
    });
    socket.once("error", reject);
  });
}

export function connectPlain(port: number): Promise<Socket> {
  return new Promise((resolve) => {
    const socket = connectTcp(port, "127.0.0.1", () => resolve(socket));
    socket.on("error", () => undefined);
  });
}

/** Everything that a connection sends until it ends, as Latin-1 text. */
export function readAll(socket: Duplex): Promise<string> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    socket.on("data", (chunk: Buffer) => chunks.push(chunk));
    socket.once("close", () => resolve(Buffer.concat(chunks).toString("latin1")));
  });
}

/** Waits until what a connection has sent contains `text`. */
export function readUntil(socket: Readable, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let seen = "";
    const onData = (chunk: Buffer): void => {
      seen += chunk.toString("latin1");
      if (!seen.includes(text)) return;
      socket.off("data", onData);
      resolve(seen);
    };
    socket.on("data", onData);
    socket.once("close", () => reject(new Error(`closed after: ${seen}`)));
  });
}

/** Sends raw bytes on a connection of its own; the answer is everything until its end. */
export async function exchangeRaw(port: number, ca: string, text: string): Promise<string> {
  const socket = await connectTls(port, ca);
  const answer = readAll(socket);
  socket.write(Buffer.from(text, "latin1"));
  return answer;
}
