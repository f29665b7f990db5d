/**
 * Requests and answers that carry their number in every part, so that whatever is put to the wrong one shows: an
 * upstream that looks at each request, and clients of HTTP/1.1 and HTTP/2 that look at each answer. What does not
 * come whole is nobody's fault here; what comes must be right.
 */
import { createHash } from "node:crypto";
import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
import { connect as connectHttp2 } from "node:http2";
import type { Duplex } from "node:stream";
import type { TLSSocket } from "node:tls";
import { type Random, pick } from "./fuzz.ts";
import type { FastDecision, RequestHead } from "../../tls/index.ts";
import { connectTls, noExtra } from "./tls-edge.ts";

/** How the upstream answers. */
const KINDS = [
  "sized",
  "chunked",
  "until-close",
  "early",
  "slow",
  "interim",
  "empty",
  "broken",
] as const;
type Kind = (typeof KINDS)[number];
const METHODS = ["GET", "GET", "POST", "PUT", "HEAD"] as const;
const MAX_BYTES = 40_000;
/** RFC 6455 §1.3. */
const WEBSOCKET_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

export interface Marked {
  /** What was found to be another's. */
  readonly faults: string[];
  /** Whole answers by how they came. */
  readonly whole: Record<string, number>;
  /** Requests that were to be forwarded, and of which nobody has said what became of them. */
  readonly untold: Set<object>;
  next: number;
}

export const createMarked = (): Marked => ({ faults: [], whole: {}, untold: new Set(), next: 0 });

interface Request {
  readonly id: number;
  readonly method: (typeof METHODS)[number];
  readonly kind: Kind;
  readonly body: string;
  /** Without a length. */
  readonly isOpen: boolean;
}

function contentOf(id: number, bytes: number): string {
  return `${id}|`.repeat(Math.ceil(bytes / 2)).slice(0, bytes);
}

function makeRequest(marked: Marked, random: Random): Request {
  marked.next += 1;
  const id = marked.next;
  const method = pick(random, METHODS);
  const hasBody = method === "POST" || method === "PUT";
  const body = hasBody ? contentOf(id, random(3) === 0 ? random(MAX_BYTES) : random(100)) : "";
  return { id, method, kind: pick(random, KINDS), body, isOpen: hasBody && random(2) === 0 };
}

/** @param held gets the requests of the kind `held`, to be answered by the test */
export function markedUpstream(
  marked: Marked,
  random: Random,
  held: ServerResponse[],
): RequestListener {
  return (request, response) => {
    const [, id = "", kind = ""] = (request.url ?? "").split("/");
    checkHead(marked, request, id);
    if (kind === "held") {
      held.push(response);
      return;
    }
    let body = "";
    request.setEncoding("latin1").on("data", (text: string) => (body += text));
    request.once("end", () => {
      const length = Number(request.headers["x-length"]);
      if (body !== contentOf(Number(id), length)) {
        const isCut = contentOf(Number(id), length).startsWith(body);
        const framing = request.headers["transfer-encoding"] ?? "sized";
        const how = isCut ? `cut at ${body.length} of ${length}` : "another's";
        marked.faults.push(`body of request ${id}, ${kind}, ${framing}: ${how}`);
      }
      if (kind !== "early") answer(response, id, kind as Kind, random);
    });
    request.on("error", () => undefined);
    if (kind === "early") answer(response, id, kind, random);
  };
}

/** For the server's event: a tunnel that gives back what it gets. */
export function markedTunnels(
  marked: Marked,
  random: Random,
): (request: IncomingMessage, socket: Duplex, head: Buffer) => void {
  return (request, socket, head) => {
    checkHead(marked, request, (request.url ?? "").split("/")[1] ?? "");
    const accept = createHash("sha1")
      .update(`${String(request.headers["sec-websocket-key"])}${WEBSOCKET_GUID}`)
      .digest("base64");
    const fields = `Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n`;
    socket.on("error", () => undefined).write(`HTTP/1.1 101 x\r\n${fields}\r\n`);
    socket.write(head);
    socket.pipe(socket);
    if (random(4) === 0) setTimeout(() => socket.destroy(), random(20));
  };
}

function checkHead(marked: Marked, { headers, method }: IncomingMessage, id: string): void {
  const isOne = headers["x-id"] === id && headers["x-method"] === method;
  if (!isOne) marked.faults.push(`head of request ${id}: ${String(headers["x-id"])}`);
}

function answer(response: ServerResponse, id: string, kind: Kind, random: Random): void {
  const bytes = random(2) === 0 ? random(200) : random(MAX_BYTES);
  const content = contentOf(Number(id), bytes);
  response.setHeader("X-Id", id).setHeader("X-Length", bytes);
  if (kind === "empty") response.writeHead(pick(random, [204, 304])).end();
  else if (kind === "until-close") {
    response.useChunkedEncodingByDefault = false;
    response.setHeader("Connection", "close").end(content);
  } else if (kind === "chunked") {
    const at = random(bytes + 1);
    response.write(content.slice(0, at));
    setImmediate(() => response.end(content.slice(at)));
  } else if (kind === "slow") setTimeout(() => sized(response, content), random(30));
  else if (kind === "broken") {
    response.setHeader("Content-Length", bytes + 1);
    response.write(content, () => response.destroy());
  } else {
    if (kind === "interim") response.writeProcessing();
    sized(response, content);
  }
}

function sized(response: ServerResponse, content: string): void {
  response.setHeader("Content-Length", content.length).end(content);
}

/** Decides as an edge may: forwards most, answers some itself, leaves some to node:http, now or a little later. */
export async function decideAtRandom(
  head: RequestHead,
  { untold }: Marked,
  random: Random,
): Promise<FastDecision> {
  const { fields, method } = head;
  if (random(2) === 0) await new Promise((resolve) => setTimeout(resolve, random(5)));
  const way = random(8);
  if (way === 0) return { kind: "other" };
  if (way > 2) {
    untold.add(head);
    const onOutcome = (): void => void untold.delete(head);
    return { kind: "forward", extra: { ...noExtra, onOutcome } };
  }
  const body = contentOf(Number(fields.get("x-id")), random(1_000));
  const headers = [
    ["X-Id", fields.get("x-id") ?? ""],
    ["X-Length", String(body.length)],
  ] as const;
  const isLast = method !== "GET" && random(4) === 0;
  return { kind: "answer", answer: { status: 401, reason: "x", headers, body, isLast } };
}

/** Refusals of the edge carry no number; where they stand is theirs alone to say. */
function checkAnswer(
  marked: Marked,
  { id, kind, method }: Request,
  version: string,
  answered: { status: number; id: string | undefined; length: string | undefined; body: string },
): void {
  const isOurs = answered.id === undefined && answered.status >= 400;
  if (!isOurs) {
    const isBare = method === "HEAD" || answered.status === 204 || answered.status === 304;
    const expected = isBare ? "" : contentOf(id, Number(answered.length));
    // Nobody can tell where this kind ends.
    const isWhole =
      answered.body ===
      (kind === "until-close" ? expected.slice(0, answered.body.length) : expected);
    if (answered.id !== String(id) || !isWhole) {
      marked.faults.push(
        `${version}: answer to request ${id}: ${answered.id}, ${answered.body.length} bytes`,
      );
    }
  }
  const name = `${version} ${isOurs ? "refused" : "answered"}`;
  marked.whole[name] = (marked.whole[name] ?? 0) + 1;
}

/** One connection of HTTP/1.1 with some requests, several at once where they fit. Ends with the connection, or before. */
export async function askHttp1(
  port: number,
  ca: string,
  marked: Marked,
  random: Random,
): Promise<void> {
  const socket = await connectTls(port, ca, { servername: "localhost" }).catch(() => undefined);
  if (socket === undefined) return;
  for (let round = random(4); round >= 0 && !socket.destroyed; round -= 1) {
    const requests = Array.from({ length: 1 + random(3) }, () => makeRequest(marked, random));
    writeInPieces(socket, requests.map(textOf).join(""), random);
    if (!(await readAnswers(socket, marked, requests))) break;
  }
  if (random(2) === 0) socket.end();
  else socket.destroy();
}

function textOf({ body, id, isOpen, kind, method }: Request): string {
  const head = `${method} /${id}/${kind} HTTP/1.1\r\nHost: a.example\r\nX-Id: ${id}\r\nX-Method: ${method}\r\n`;
  const length = `X-Length: ${body.length}\r\n`;
  if (!isOpen) {
    const framing = body === "" ? "" : `Content-Length: ${body.length}\r\n`;
    return `${head}${length}${framing}\r\n${body}`;
  }
  const chunk = body === "" ? "" : `${body.length.toString(16)}\r\n${body}\r\n`;
  return `${head}${length}Transfer-Encoding: chunked\r\n\r\n${chunk}0\r\n\r\n`;
}

function writeInPieces(socket: TLSSocket, text: string, random: Random): void {
  const at = random(2) === 0 ? text.length : random(text.length);
  socket.write(text.slice(0, at));
  if (at < text.length) setImmediate(() => socket.write(text.slice(at)));
}

/** @returns whether all are answered, and the connection stays */
function readAnswers(
  socket: TLSSocket,
  marked: Marked,
  requests: readonly Request[],
): Promise<boolean> {
  return new Promise((resolve) => {
    let held = "";
    let answered = 0;
    const done = (isOpen: boolean): void => {
      socket.off("data", onData).off("close", onClose);
      resolve(isOpen);
    };
    const onClose = (): void => done(false);
    const onData = (chunk: Buffer): void => {
      held += chunk.toString("latin1");
      for (;;) {
        const request = requests[answered];
        if (request === undefined) {
          if (held !== "") marked.faults.push(`h1: unasked: ${held.slice(0, 40)}`);
          return done(true);
        }
        const read = readAnswer(held, request.method);
        if (read === undefined) return;
        held = held.slice(read.end);
        answered += 1;
        checkAnswer(marked, request, "h1", read);
        if (read.isLast) return done(false);
      }
    };
    socket.on("data", onData).once("close", onClose);
  });
}

/** Undefined where it is not whole yet. */
function readAnswer(
  text: string,
  method: string,
):
  | {
      status: number;
      id: string | undefined;
      length: string | undefined;
      body: string;
      end: number;
      isLast: boolean;
    }
  | undefined {
  const headEnd = text.indexOf("\r\n\r\n") + 4;
  if (headEnd < 4) return undefined;
  const head = text.slice(0, headEnd);
  const field = (name: string): string | undefined =>
    new RegExp(`\r\n${name}: (.*)\r\n`, "i").exec(head)?.[1];
  const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(head)?.[1]);
  const base = {
    status,
    id: field("X-Id"),
    length: field("X-Length"),
    isLast: field("Connection") === "close",
  };
  if (method === "HEAD" || status === 204 || status === 304)
    return { ...base, body: "", end: headEnd };
  if (field("Transfer-Encoding") === undefined) {
    const end = headEnd + Number(field("Content-Length"));
    return text.length < end ? undefined : { ...base, body: text.slice(headEnd, end), end };
  }
  let body = "";
  for (let at = headEnd; ;) {
    const lineEnd = text.indexOf("\r\n", at);
    if (lineEnd < 0) return undefined;
    const size = Number.parseInt(text.slice(at, lineEnd), 16);
    at = lineEnd + 2 + size + 2;
    if (text.length < at) return undefined;
    if (size === 0) return { ...base, body, end: at };
    body += text.slice(lineEnd + 2, at - 2);
  }
}

/** A tunnel over HTTP/1.1: whatever comes back was sent. Ends with it, or before. */
export async function askTunnel(
  port: number,
  ca: string,
  marked: Marked,
  random: Random,
): Promise<void> {
  const socket = await connectTls(port, ca, { servername: "localhost" }).catch(() => undefined);
  if (socket === undefined) return;
  marked.next += 1;
  const id = marked.next;
  const head = `GET /${id}/tunnel HTTP/1.1\r\nHost: a.example\r\nX-Id: ${id}\r\nX-Method: GET\r\n`;
  const handshake = `Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: ${"A".repeat(22)}==\r\n\r\n`;
  const sent = contentOf(id, random(MAX_BYTES));
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  let held = "";
  socket.on("data", (chunk: Buffer) => {
    held += chunk.toString("latin1");
    const read = bodyBehind(held, " 101 ");
    if (read !== undefined && !sent.startsWith(read)) marked.faults.push(`tunnel ${id}`);
    if (read === sent) {
      marked.whole["tunnel"] = (marked.whole["tunnel"] ?? 0) + 1;
      if (random(2) === 0) socket.end();
      else socket.destroy();
    }
  });
  socket.write(head + handshake + sent);
  await closed;
}

/** Undefined before the head is whole, and for another status. */
function bodyBehind(text: string, status: string): string | undefined {
  const headEnd = text.indexOf("\r\n\r\n");
  return headEnd > 0 && text.slice(0, headEnd).includes(status)
    ? text.slice(headEnd + 4)
    : undefined;
}

/** One connection of HTTP/2 with some requests at once. Ends with the connection, or before. */
export async function askHttp2(
  port: number,
  ca: string,
  marked: Marked,
  random: Random,
): Promise<void> {
  const session = connectHttp2(`https://localhost:${port}`, { ca }).on("error", () => undefined);
  const requests = Array.from({ length: 1 + random(8) }, () => makeRequest(marked, random));
  const asked = requests.map((request) => {
    const { body, id, isOpen, kind, method } = request;
    const stream = session.request(
      {
        ":method": method,
        ":path": `/${id}/${kind}`,
        ":authority": "a.example",
        "x-id": id,
        "x-method": method,
        "x-length": body.length,
        ...(isOpen || body === "" ? {} : { "content-length": body.length }),
      },
      { endStream: body === "" && !isOpen },
    );
    stream.on("error", () => undefined);
    if (body !== "" || isOpen) stream.end(body, "latin1");
    if (random(10) === 0) setTimeout(() => stream.close(8), random(20));
    let status = 0;
    let fields: Record<string, unknown> = {};
    stream.once("response", (headers) => {
      status = Number(headers[":status"]);
      fields = headers;
    });
    let content = "";
    let isWhole = false;
    stream.setEncoding("latin1").on("data", (text: string) => (content += text));
    stream.once("end", () => (isWhole = true));
    return new Promise<void>((resolve) => {
      stream.once("close", () => {
        const text = (name: string): string | undefined => fields[name] as string | undefined;
        if (isWhole && stream.rstCode === 0 && status > 0) {
          checkAnswer(marked, request, "h2", {
            status,
            id: text("x-id"),
            length: text("x-length"),
            body: content,
          });
        }
        resolve();
      });
    });
  });
  await Promise.all(asked);
  if (random(2) === 0) session.close();
  else session.destroy();
}
