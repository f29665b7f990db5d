/**
 * The answer to an HTTP/2 request in the form of node:http's. Fields that belong to an HTTP/1.1 connection are
 * left out (RFC 9113 §8.2.2), so that handlers need not know. An answer that is destroyed before its end resets
 * its stream: what the client has of it must not be taken for the whole.
 */
import type { OutgoingHttpHeader, OutgoingHttpHeaders } from "node:http";
import { constants, type ServerHttp2Stream } from "node:http2";
import { Writable } from "node:stream";
import { CONNECTION_SPECIFIC } from "../header-hygiene.ts";
import type { Http2Request } from "./request.ts";
import { resetStream, StreamWriter } from "./stream-ends.ts";

/** Without content, whatever is written (RFC 9110 §6.4.1), and of which a 304 alone may say another's length. */
const CONTENTLESS: ReadonlySet<number> = new Set([204, 205]);
const NOT_MODIFIED = 304;

type Done = (error?: Error | null) => void;

export class Http2Response extends Writable {
  readonly req: Http2Request;
  statusCode = 200;
  /** HTTP/2 has none. */
  statusMessage = "";
  readonly #stream: ServerHttp2Stream;
  readonly #writer: StreamWriter;
  readonly #headers = new Map<string, OutgoingHttpHeader>();
  /** By names that are hostile: `constructor` is one. */
  readonly #trailers = Object.create(null) as Record<string, string[]>;
  #isBodyless = false;
  #isLeft = false;

  constructor(stream: ServerHttp2Stream, request: Http2Request) {
    super({ decodeStrings: true });
    this.req = request;
    this.#stream = stream;
    this.#writer = new StreamWriter(stream);
    stream.on("wantTrailers", () => stream.sendTrailers(this.#trailers));
    stream.once("close", () => {
      this.#isLeft = !this.destroyed;
      this.destroy();
    });
  }

  /** The stream ended before the answer, and not because of it: by the client, or with the connection. */
  get isLeft(): boolean {
    return this.#isLeft;
  }

  get headersSent(): boolean {
    return this.#stream.headersSent;
  }

  get finished(): boolean {
    return this.writableEnded;
  }

  /** The client has to read first. */
  get isBlocked(): boolean {
    return this.#writer.isBlocked;
  }

  setHeader(name: string, value: OutgoingHttpHeader): this {
    this.#headers.set(name.toLowerCase(), value);
    return this;
  }

  setHeaders(headers: ReadonlyMap<string, OutgoingHttpHeader>): this {
    for (const [name, value] of headers) this.setHeader(name, value);
    return this;
  }

  getHeader(name: string): OutgoingHttpHeader | undefined {
    return this.#headers.get(name.toLowerCase());
  }

  getHeaders(): OutgoingHttpHeaders {
    return Object.fromEntries(this.#headers);
  }

  hasHeader(name: string): boolean {
    return this.#headers.has(name.toLowerCase());
  }

  removeHeader(name: string): void {
    this.#headers.delete(name.toLowerCase());
  }

  /** Before the end; they are sent where the client said that it takes them. */
  addTrailers(trailers: readonly (readonly [name: string, value: string])[]): void {
    for (const [name, value] of trailers) (this.#trailers[name.toLowerCase()] ??= []).push(value);
  }

  writeContinue(): void {
    const stream = this.#stream;
    if (!stream.destroyed && !stream.closed) stream.additionalHeaders({ ":status": 100 });
  }

  writeHead(
    statusCode: number,
    reason?: string | OutgoingHttpHeaders | string[],
    headers?: OutgoingHttpHeaders | string[],
  ): this {
    const given = typeof reason === "object" ? reason : (headers ?? {});
    const list: string[] = [":status", String(statusCode)];
    const names = new Set<string>();
    const add = (name: string, value: OutgoingHttpHeader | undefined): void => {
      if (value === undefined || CONNECTION_SPECIFIC.has(name)) return;
      // There is none to have a length, and clients refuse an answer that says one.
      if (name === "content-length" && CONTENTLESS.has(statusCode)) return;
      names.add(name);
      for (const one of Array.isArray(value) ? value : [value]) list.push(name, String(one));
    };
    if (Array.isArray(given)) {
      for (let i = 0; i + 1 < given.length; i += 2)
        add((given[i] ?? "").toLowerCase(), given[i + 1]);
    } else for (const name of Object.keys(given)) add(name.toLowerCase(), given[name]);
    for (const [name, value] of this.#headers) if (!names.has(name)) add(name, value);
    this.#respond(statusCode, list);
    return this;
  }

  #respond(statusCode: number, list: string[]): void {
    const stream = this.#stream;
    this.statusCode = statusCode;
    this.#isBodyless =
      this.req.method === "HEAD" || CONTENTLESS.has(statusCode) || statusCode === NOT_MODIFIED;
    if (stream.destroyed || stream.closed) return;
    const waitForTrailers = !this.#isBodyless && this.req.headers.te !== undefined;
    stream.respond(list, { endStream: this.#isBodyless, waitForTrailers });
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: Done): void {
    if (!this.#stream.headersSent) this.writeHead(this.statusCode);
    if (this.#isBodyless) done();
    else this.#writer.write(chunk, done);
  }

  override _final(done: Done): void {
    if (!this.#stream.headersSent) this.writeHead(this.statusCode);
    this.#writer.end(() => {
      done();
      // The rest of a request that nobody reads (RFC 9113 §8.1).
      if (!this.req.complete) this.#stream.close(constants.NGHTTP2_NO_ERROR);
      this.req.discard();
    });
  }

  /** The error is the stream's reset, and of interest to nobody else. */
  override _destroy(_error: Error | null, done: Done): void {
    if (!this.writableFinished) resetStream(this.#stream);
    done();
  }
}
