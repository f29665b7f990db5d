/**
 * The device's way to an attester: one TLS 1.3 connection for both steps. The evidence is bound to
 * the connection that carries it (RFC 9266 tls-exporter), so a second connection is never opened:
 * where the first one ends, the attestation starts anew.
 */
import { Agent, type IncomingMessage, request as httpRequest } from "node:http";
import { connect, type TLSSocket } from "node:tls";
import { StileError } from "../../wire/index.ts";

/** RFC 9266 §2: label and length; there is no context. */
const EXPORTER_LABEL = "EXPORTER-Channel-Binding";
const EXPORTER_BYTES = 32;
/** An answer of the attester is a few KiB: certificates do not come back. */
const MAX_ANSWER_BYTES = 65_536;
/** Characters of a problem's title or code that are passed on: hostile text. */
const MAX_PROBLEM_CHARACTERS = 100;

/** What the attestation needs of a connection. */
export interface AttestTransport {
  /**
   * POSTs JSON and gives back the JSON of a 2xx answer, parsed but not checked.
   * @throws `ATTEST_AGENT_REFUSED` for another status, a broken connection or an answer that is no JSON
   */
  postJson(path: string, body: unknown): Promise<unknown>;
  /**
   * RFC 9266 tls-exporter value of the connection that `postJson` uses, 32 bytes; undefined where
   * TLS is not at hand.
   * @throws `ATTEST_AGENT_REFUSED` where the connection has ended
   */
  tlsExporter(): Uint8Array | undefined;
}

export interface NodeTransport extends AttestTransport {
  close(): void;
}

export interface NodeTransportOptions {
  /** `https://host[:port]`. */
  readonly origin: string;
  /** Certificate authorities (PEM) instead of the system's. */
  readonly ca?: string;
  /** Connects to this host, still verifying the certificate for the origin's. */
  readonly connectHost?: string;
  /** Limit for connecting and for each answer, in milliseconds. */
  readonly timeoutMs: number;
}

/** Connects and verifies the server's certificate. @throws `ATTEST_AGENT_REFUSED` */
export async function connectTransport(options: NodeTransportOptions): Promise<NodeTransport> {
  const origin = new URL(options.origin);
  if (origin.protocol !== "https:") throw new TypeError("the attester's origin must be https");
  const socket = await connectTls(origin, options);
  const agent = new OneConnectionAgent(socket);
  return {
    postJson: async (path, body) =>
      parseAnswer(await post(agent, origin, path, body, options.timeoutMs)),
    tlsExporter: () => {
      if (socket.destroyed) throw refused("the attester closed the connection");
      const value = socket.exportKeyingMaterial(EXPORTER_BYTES, EXPORTER_LABEL, Buffer.alloc(0));
      return new Uint8Array(value);
    },
    close: () => {
      agent.destroy();
      // Before the first request the agent does not know the socket.
      socket.destroy();
    },
  };
}

/** Hands out its one socket once; a request for another connection fails. */
class OneConnectionAgent extends Agent {
  #socket: TLSSocket | undefined;

  constructor(socket: TLSSocket) {
    super({ keepAlive: true, maxSockets: 1 });
    this.#socket = socket;
  }

  override createConnection(): TLSSocket {
    const socket = this.#socket;
    if (socket === undefined) throw refused("the attester closed the connection");
    this.#socket = undefined;
    return socket;
  }
}

function connectTls(origin: URL, options: NodeTransportOptions): Promise<TLSSocket> {
  const hostname = origin.hostname.replace(/^\[(.*)\]$/, "$1");
  return new Promise((resolve, reject) => {
    const socket = connect({
      host: options.connectHost ?? hostname,
      port: origin.port === "" ? 443 : Number(origin.port),
      ...(/^[\d.]+$|:/.test(hostname) ? {} : { servername: hostname }),
      ...(options.ca === undefined ? {} : { ca: options.ca }),
      ALPNProtocols: ["http/1.1"],
      minVersion: "TLSv1.3",
      timeout: options.timeoutMs,
    });
    socket.once("secureConnect", () => {
      socket.setTimeout(0);
      resolve(socket);
    });
    socket.once("timeout", () => socket.destroy(refused("no connection in time")));
    socket.once("error", (cause) => reject(refused("cannot connect to the attester", cause)));
  });
}

interface Answer {
  readonly status: number;
  readonly body: string;
}

function post(
  agent: Agent,
  origin: URL,
  path: string,
  body: unknown,
  timeoutMs: number,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const fail = (cause: unknown): void => reject(asRefused(cause));
    const request = httpRequest(
      {
        agent,
        host: origin.hostname,
        path,
        method: "POST",
        headers: {
          host: origin.host,
          "content-type": "application/json",
          accept: "application/json",
        },
        signal: AbortSignal.timeout(timeoutMs),
      },
      (response) => void readAnswer(response).then(resolve, fail),
    );
    request.once("error", fail);
    request.end(JSON.stringify(body));
  });
}

async function readAnswer(response: IncomingMessage): Promise<Answer> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of response) {
    if (!Buffer.isBuffer(part)) throw new TypeError("expected a Buffer");
    length += part.length;
    if (length > MAX_ANSWER_BYTES) throw refused("the attester's answer is too large");
    parts.push(part);
  }
  return { status: response.statusCode ?? 0, body: Buffer.concat(parts).toString("utf8") };
}

function parseAnswer({ status, body }: Answer): unknown {
  if (status < 200 || status > 299) {
    throw refused(`the attester answered ${status}${problemOf(body)}`);
  }
  try {
    return JSON.parse(body);
  } catch (cause) {
    throw refused("the attester's answer is no JSON", cause);
  }
}

/** The code of an RFC 9457 problem, for the operator's eyes; the text is the attester's. */
function problemOf(body: string): string {
  try {
    const problem: unknown = JSON.parse(body);
    if (typeof problem !== "object" || problem === null) return "";
    const { code, title } = problem as { code?: unknown; title?: unknown };
    const text = typeof code === "string" ? code : title;
    if (typeof text !== "string") return "";
    return `: ${text.slice(0, MAX_PROBLEM_CHARACTERS).replace(/[^\x20-\x7e]/g, "?")}`;
  } catch {
    return "";
  }
}

function asRefused(cause: unknown): StileError {
  return cause instanceof StileError
    ? cause
    : refused("the connection to the attester broke", cause);
}

function refused(message: string, cause?: unknown): StileError {
  return new StileError("ATTEST_AGENT_REFUSED", message, { cause });
}
