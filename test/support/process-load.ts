/**
 * Clients that ask one thing after the other over TLS, on connections that they keep for a while and then make
 * anew. What has no answer counts as failed; a connection that the server has said it ends does not.
 */
import { once } from "node:events";
import type { TLSSocket } from "node:tls";
import { openRaw, type RawTarget } from "./raw-client.ts";

export interface LoadCounts {
  /** Answers by status. */
  readonly statuses: ReadonlyMap<number, number>;
  /** Requests without an answer, after `tries`. */
  readonly failed: number;
  /** Requests that had no answer at first. */
  readonly repeated: number;
}

export interface LoadOptions {
  readonly connections: number;
  /** Requests on one connection, before it is made anew. */
  readonly perConnection: number;
  /** How often a request is sent until it has an answer; 1: once. */
  readonly tries: number;
  /** The next request, complete. Undefined ends the client that asks. */
  readonly next: () => LoadRequest | undefined;
}

export interface LoadRequest {
  readonly bytes: string;
  readonly onAnswer?: (status: number) => void;
}

export interface Load {
  /** Ends the clients after the request that they are at. */
  readonly stop: () => Promise<LoadCounts>;
  /** Ends when the clients have nothing more to ask. */
  readonly done: Promise<LoadCounts>;
}

export function startLoad(target: RawTarget, options: LoadOptions): Load {
  const statuses = new Map<number, number>();
  let [failed, repeated] = [0, 0];
  const until = new AbortController();

  async function client(): Promise<void> {
    let connection: Connection | undefined;
    while (!until.signal.aborted) {
      const request = options.next();
      if (request === undefined) break;
      let status: number | undefined;
      for (let tries = 1; tries <= options.tries && status === undefined; tries += 1) {
        if (tries > 1) repeated += 1;
        connection = connection?.isUsable(options.perConnection) ? connection : await open(target);
        status = await connection?.ask(request.bytes);
      }
      if (status === undefined) failed += 1;
      else statuses.set(status, (statuses.get(status) ?? 0) + 1);
      if (status !== undefined) request.onAnswer?.(status);
    }
    connection?.close();
  }

  const clients = Promise.all(Array.from({ length: options.connections }, client));
  const done = clients.then(() => ({ statuses, failed, repeated }));
  return {
    done,
    stop: () => {
      until.abort();
      return done;
    },
  };
}

async function open(target: RawTarget): Promise<Connection | undefined> {
  try {
    return new Connection(await openRaw(target));
  } catch {
    return undefined;
  }
}

class Connection {
  readonly #socket: TLSSocket;
  readonly #closed: Promise<unknown>;
  #asked = 0;
  #isOver = false;

  constructor(socket: TLSSocket) {
    this.#socket = socket;
    socket.on("error", () => undefined);
    this.#closed = new Promise((resolve) => socket.once("close", resolve));
  }

  isUsable(perConnection: number): boolean {
    if (this.#isOver || this.#asked < perConnection) return !this.#isOver;
    this.close();
    return false;
  }

  close(): void {
    this.#isOver = true;
    this.#socket.destroy();
  }

  /** @returns undefined where the connection ends without a whole answer */
  async ask(bytes: string): Promise<number | undefined> {
    this.#asked += 1;
    this.#socket.write(bytes);
    let held = "";
    for (;;) {
      const chunk = await Promise.race([this.#read(), this.#closed.then(() => undefined)]);
      if (chunk === undefined) {
        this.#isOver = true;
        return undefined;
      }
      held += chunk.toString("latin1");
      const headEnd = held.indexOf("\r\n\r\n");
      if (headEnd < 0) continue;
      const head = held.slice(0, headEnd);
      const length = Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? "0");
      if (held.length < headEnd + 4 + length) continue;
      if (/\r\nconnection: *close/i.test(head)) this.close();
      return Number(head.slice(9, 12));
    }
  }

  async #read(): Promise<Buffer | undefined> {
    const chunk = this.#socket.read() as Buffer | null;
    if (chunk !== null) return chunk;
    if (this.#socket.destroyed || this.#socket.readableEnded) return undefined;
    await Promise.race([once(this.#socket, "readable").catch(() => undefined), this.#closed]);
    return (this.#socket.read() as Buffer | null) ?? Buffer.alloc(0);
  }
}
