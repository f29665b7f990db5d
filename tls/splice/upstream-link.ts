/**
 * The one upstream connection of a client connection: one exchange after the other, never two at once.
 * It reads answers and tells what is in each piece of them; what becomes of that is its owner's business.
 * Bytes that nobody asked for end it: they would be taken for the next answer.
 */
import { connect, type Socket } from "node:net";
import { StileError } from "../../wire/index.ts";
import { isFinalStatus, type Upstream, upstreamAddress } from "../upstream.ts";
import { type ChunkedBody, createChunkedBody } from "./chunked-body.ts";
import { type BodyFraming, parseResponseHead, type ResponseHead } from "./response-head.ts";

export interface LinkOptions {
  readonly upstream: Upstream;
  readonly connectTimeoutMs: number;
  /** Silence within an exchange. */
  readonly idleTimeoutMs: number;
}

export interface LinkOwner {
  /**
   * What one read of the connection holds of the answer, in views that are valid for good.
   * @param head with the first part; no interim answer comes here
   * @param isEnd the answer is whole
   */
  readonly onPart: (head: ResponseHead | undefined, content: Buffer[], isEnd: boolean) => void;
  /** Of the exchange under way; the connection is closed. */
  readonly onFailure: (error: Error) => void;
  /** The upstream is silent; the connection is open. */
  readonly onSilence: () => void;
  /** What was written is out. */
  readonly onDrain: () => void;
}

/** Less than the 5 s after which Node, the least patient of the usual upstreams, closes them. */
const FREE_SOCKET_MS = 4_000;
/** 100, 102 and 103 before one answer. */
const MAX_INTERIM = 16;
const NOTHING: Buffer = Buffer.alloc(0);

export class UpstreamLink {
  readonly #owner: LinkOwner;
  readonly #options: LinkOptions;
  readonly #socket: Socket;
  #method = "";
  #isBusy = false;
  #framing: BodyFraming | undefined;
  #chunked: ChunkedBody | undefined;
  #left = 0;
  /** What came of a head that is not whole. */
  #held: Buffer = NOTHING;
  #interim = 0;
  #keepAlive = true;
  #exchanges = 0;
  /** Part of an answer has come. */
  hasAnswered = false;

  constructor(options: LinkOptions, owner: LinkOwner) {
    this.#options = options;
    this.#owner = owner;
    const address = upstreamAddress(options.upstream);
    const socket = connect(
      "socketPath" in address ? { path: address.socketPath } : { ...address, noDelay: true },
    );
    this.#socket = socket;
    const timer = setTimeout(() => {
      this.#fail(new StileError("TLS_UPSTREAM_TIMEOUT", "the upstream did not answer in time"));
    }, options.connectTimeoutMs);
    socket.once("connect", () => clearTimeout(timer));
    socket.on("data", (chunk: Buffer) => this.#read(chunk));
    socket.on("drain", () => owner.onDrain());
    socket.on("timeout", () => this.#onTimeout());
    socket.on("error", (error) => this.#fail(error));
    socket.on("end", () => this.#onEnd());
    socket.on("close", () => {
      clearTimeout(timer);
      this.#fail(new Error("the upstream closed the connection"));
    });
  }

  /** It waits for the next exchange, and nothing speaks against one. */
  get isFree(): boolean {
    return !this.#isBusy && this.#keepAlive && this.#socket.writable && !this.#socket.destroyed;
  }

  /** An earlier exchange went well: the upstream may have closed it since. */
  get isReused(): boolean {
    return this.#exchanges > 1;
  }

  /** Bytes wait to be taken by the upstream. */
  get isBlocked(): boolean {
    return this.#socket.writableNeedDrain;
  }

  /** @returns false where the caller should wait for `onDrain` */
  begin(method: string, bytes: Buffer): boolean {
    this.#method = method;
    this.#isBusy = true;
    this.hasAnswered = false;
    this.#interim = 0;
    this.#exchanges += 1;
    this.#socket.setTimeout(this.#options.idleTimeoutMs);
    return this.#socket.write(bytes);
  }

  write(bytes: Buffer): boolean {
    return this.#socket.write(bytes);
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Ends it without a word to its owner. */
  destroy(): void {
    this.#isBusy = false;
    this.#keepAlive = false;
    this.#socket.destroy();
  }

  #fail(error: Error): void {
    const wasBusy = this.#isBusy;
    this.destroy();
    if (wasBusy) this.#owner.onFailure(error);
  }

  #onTimeout(): void {
    // Connecting has its own limit.
    if (this.#socket.connecting) return;
    if (this.#isBusy) this.#owner.onSilence();
    else this.destroy();
  }

  #onEnd(): void {
    if (this.#isBusy && this.#framing?.kind === "until-close") this.#finish(undefined, []);
    else this.#fail(new Error("the upstream closed the connection"));
  }

  #read(chunk: Buffer): void {
    if (!this.#isBusy) {
      this.destroy();
      return;
    }
    this.hasAnswered = true;
    if (this.#framing !== undefined) {
      this.#readBody(undefined, this.#framing, chunk);
      return;
    }
    let bytes = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    for (;;) {
      const head = parseResponseHead(bytes, this.#method);
      if (head.kind === "incomplete") {
        this.#held = bytes;
        return;
      }
      if (head.kind === "malformed") {
        this.#fail(malformed());
        return;
      }
      bytes = bytes.subarray(head.length);
      if (head.status >= 200) {
        this.#takeHead(head, bytes);
        return;
      }
      this.#interim += 1;
      // Behind a 101 nothing is HTTP.
      if (head.status === 101 || this.#interim > MAX_INTERIM) {
        this.#fail(malformed());
        return;
      }
    }
  }

  #takeHead(head: ResponseHead, rest: Buffer): void {
    if (!isFinalStatus(head.status)) {
      this.#fail(malformed());
      return;
    }
    this.#held = NOTHING;
    this.#framing = head.framing;
    this.#keepAlive = head.keepAlive;
    if (head.framing.kind === "sized") this.#left = head.framing.bytes;
    if (head.framing.kind === "chunked") this.#chunked = createChunkedBody();
    this.#readBody(head, head.framing, rest);
  }

  #readBody(head: ResponseHead | undefined, framing: BodyFraming, bytes: Buffer): void {
    const content: Buffer[] = [];
    let end: number | "more" | "malformed" | undefined;
    if (framing.kind === "chunked") end = this.#chunked?.read(bytes, content);
    else if (framing.kind === "until-close") {
      end = "more";
      if (bytes.length > 0) content.push(bytes);
    } else {
      const taken = framing.kind === "none" ? 0 : Math.min(this.#left, bytes.length);
      if (taken > 0) content.push(taken === bytes.length ? bytes : bytes.subarray(0, taken));
      this.#left -= taken;
      end = framing.kind === "none" || this.#left === 0 ? taken : "more";
    }
    if (end === "more") {
      this.#owner.onPart(head, content, false);
      return;
    }
    if (typeof end !== "number") {
      this.#fail(malformed());
      return;
    }
    // Unasked: the answer is whole, but nothing more is believed of this connection.
    if (end < bytes.length) this.#keepAlive = false;
    this.#finish(head, content);
  }

  #finish(head: ResponseHead | undefined, content: Buffer[]): void {
    this.#isBusy = false;
    this.#framing = undefined;
    this.#chunked = undefined;
    if (this.#keepAlive) this.#socket.setTimeout(FREE_SOCKET_MS);
    else this.#socket.destroy();
    this.#owner.onPart(head, content, true);
  }
}

function malformed(): StileError {
  return new StileError("TLS_UPSTREAM_UNREACHABLE", "the upstream's answer is malformed");
}
