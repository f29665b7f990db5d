/**
 * Stile's own endpoints, as a worker answers them: it passes the request on to the keeper, with whose it is, and the
 * answer back. While a keeper is replaced requests wait; one that a keeper took with it is tried again only where it
 * cannot have had an effect.
 */
import {
  Agent,
  type IncomingMessage,
  request as httpRequest,
  type ServerResponse,
} from "node:http";
import { pipeline } from "node:stream/promises";
import { isStileError, StileError } from "../../wire/index.ts";
import { refuse } from "../edge/refusal.ts";
import { MAX_BODY_BYTES } from "../http/app.ts";
import type { OwnEndpoints } from "../http/own-handler.ts";
import { peerOf } from "../http/peer.ts";
import { errorFields, type Log } from "../log.ts";
import { problemOf } from "../problems.ts";
import type { KeeperLink } from "./keeper-link.ts";
import { encodePeer, PEER_HEADER } from "./told-peer.ts";

export interface OwnEndpointsOptions {
  /** Of the keeper's Unix socket for requests. */
  readonly path: string;
  /** Hexadecimal. */
  readonly key: string;
  readonly link: Pick<KeeperLink, "enter" | "whenUp">;
  readonly log: Log;
}

/** Of a connection, and what the answer's framing is made anew from. */
const NOT_PASSED: ReadonlySet<string> = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "expect",
  "content-length",
  PEER_HEADER,
]);
const REPEATABLE: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS"]);
/** Of the system: the request did not reach a keeper. */
const NOT_SENT: ReadonlySet<string> = new Set(["ECONNREFUSED", "ENOENT"]);
const MAX_TRIES = 5;

export function createOwnEndpoints(options: OwnEndpointsOptions): {
  readonly handle: OwnEndpoints;
  readonly close: () => void;
} {
  const agent = new Agent({ keepAlive: true });

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await readBody(request, response);
    for (let tries = 1; ; tries += 1) {
      await options.link.whenUp();
      const leave = options.link.enter();
      try {
        await passOn(options, agent, { request, response, body });
        return;
      } catch (error) {
        if (response.headersSent || tries === MAX_TRIES || !mayRepeat(request, error)) throw error;
      } finally {
        leave();
      }
    }
  }

  return {
    handle: (request, response) => {
      handle(request, response).catch((error: unknown) => {
        if (!isStileError(error)) options.log.write("warn", "keeper.failed", errorFields(error));
        const known = isStileError(error) ? error : lost(error);
        refuse(request, response, problemOf(known), {});
      });
    },
    close: () => agent.destroy(),
  };
}

interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly body: Uint8Array;
}

async function passOn(
  { key, path }: OwnEndpointsOptions,
  agent: Agent,
  { body, request, response }: Exchange,
): Promise<void> {
  const { method = "GET", socket, url = "/" } = request;
  const headers = passedOn(request.rawHeaders);
  headers.push(PEER_HEADER, encodePeer(key, peerOf(socket)));
  // Framed as it came: no body is not an empty one.
  const hasBody = body.length > 0 || request.headers["content-length"] !== undefined;
  if (hasBody) headers.push("content-length", String(body.length));
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    const passed = httpRequest({ socketPath: path, agent, method, path: url, headers });
    passed.once("error", reject);
    passed.once("response", resolve);
    response.once("close", () => response.writableFinished || passed.destroy());
    passed.end(body);
  });
  response.statusCode = answer.statusCode ?? 500;
  for (const [name, values] of byName(passedOn(answer.rawHeaders)))
    response.setHeader(name, values);
  const { "content-length": length } = answer.headers;
  if (length !== undefined) response.setHeader("content-length", length);
  await pipeline(answer, response);
}

/** Whole, before anything is sent: the keeper may be another one by the time that it is. */
async function readBody(request: IncomingMessage, response: ServerResponse): Promise<Uint8Array> {
  if (request.headers.expect !== undefined) response.writeContinue();
  const parts: Buffer[] = [];
  let length = 0;
  // Not destroyed where it is too large: the client is still to read why.
  const whole = request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>;
  for await (const part of whole) {
    length += part.length;
    if (length > MAX_BODY_BYTES) {
      throw new StileError("SERVICE_BODY_TOO_LARGE", `expected ${MAX_BODY_BYTES} bytes or less`);
    }
    parts.push(part);
  }
  return Buffer.concat(parts);
}

function passedOn(raw: readonly string[]): string[] {
  const kept: string[] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const [name, value] = [raw[i] ?? "", raw[i + 1] ?? ""];
    if (!NOT_PASSED.has(name.toLowerCase())) kept.push(name, value);
  }
  return kept;
}

/** An answer of HTTP/2 has no list of raw headers. */
function byName(raw: readonly string[]): ReadonlyMap<string, string[]> {
  const values = new Map<string, string[]>();
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = (raw[i] ?? "").toLowerCase();
    values.set(name, [...(values.get(name) ?? []), raw[i + 1] ?? ""]);
  }
  return values;
}

function mayRepeat({ method = "" }: IncomingMessage, error: unknown): boolean {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  return NOT_SENT.has(code) || REPEATABLE.has(method);
}

/** Nobody knows what became of it; the client may ask again, and decides. */
function lost(cause: unknown): StileError {
  return new StileError("SERVICE_OVERLOADED", "the keeper of the state ended", { cause });
}
