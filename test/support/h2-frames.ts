/**
 * HTTP/2 by bare frames over TLS (RFC 9113 §4.1), for what no library would send. Heads are literals without
 * indexing or Huffman (RFC 7541 §6.2.2), so that what goes out can be read in the test.
 */
import type { TLSSocket } from "node:tls";
import { connectTls } from "./tls-edge.ts";

export const FRAME = {
  data: 0,
  headers: 1,
  priority: 2,
  rstStream: 3,
  settings: 4,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;
export const END_STREAM = 1;
export const ACK = 1;
export const END_HEADERS = 4;
/** SETTINGS_HEADER_TABLE_SIZE 0: answers can be read without what came before. */
const NO_TABLE = Uint8Array.of(0, 1, 0, 0, 0, 0);
const PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly payload: Buffer;
}

export function frame(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** @param value of at most 126 bytes */
export function field(name: string, value: string): Buffer {
  const part = (text: string): Buffer =>
    Buffer.concat([Uint8Array.of(text.length), Buffer.from(text, "latin1")]);
  if (name.length > 126 || value.length > 126) throw new RangeError("a longer literal");
  return Buffer.concat([Uint8Array.of(0), part(name), part(value)]);
}

export function head(fields: Fields): Buffer {
  return Buffer.concat(fields.map(([name, value]) => field(name, value)));
}

export type Fields = readonly (readonly [name: string, value: string])[];

export const GET: Fields = [
  [":method", "GET"],
  [":scheme", "https"],
  [":authority", "a.example"],
  [":path", "/"],
];
export const POST: Fields = [[":method", "POST"], ...GET.slice(1)];

export const uint32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};

export class FrameClient {
  readonly socket: TLSSocket;
  readonly frames: Frame[] = [];
  readonly closed: Promise<void>;
  #unread: Buffer = Buffer.alloc(0);
  readonly #waiting: (() => void)[] = [];

  private constructor(socket: TLSSocket) {
    this.socket = socket;
    socket.on("data", (chunk: Buffer) => this.#take(chunk));
    this.closed = new Promise((resolve) => socket.once("close", () => resolve()));
    void this.closed.then(() => this.#wake());
  }

  static async open(port: number, ca: string): Promise<FrameClient> {
    return new FrameClient(await connectTls(port, ca, { ALPNProtocols: ["h2"] }));
  }

  /** With preface and settings. */
  static async begin(
    port: number,
    ca: string,
    settings: Uint8Array = new Uint8Array(),
  ): Promise<FrameClient> {
    const client = await FrameClient.open(port, ca);
    client.socket.write(PREFACE);
    client.send(FRAME.settings, 0, 0, Buffer.concat([NO_TABLE, settings]));
    return client;
  }

  send(
    type: number,
    flags: number,
    stream: number,
    payload: Uint8Array = new Uint8Array(),
  ): boolean {
    return this.socket.write(frame(type, flags, stream, payload));
  }

  request(stream: number, fields: Fields = GET, flags: number = END_STREAM): void {
    this.send(FRAME.headers, flags | END_HEADERS, stream, head(fields));
  }

  ofType(type: number, stream?: number): Frame[] {
    return this.frames.filter(
      (one) => one.type === type && (stream === undefined || one.stream === stream),
    );
  }

  /** Waits for a frame, or for the end of the connection: then undefined. */
  async next(type: number, stream?: number): Promise<Frame | undefined> {
    while (!this.socket.destroyed) {
      const [found] = this.ofType(type, stream);
      if (found !== undefined) return found;
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    return this.ofType(type, stream)[0];
  }

  /** Error codes of what has ended the connection, and of each reset. */
  goawayCode(): number | undefined {
    return this.ofType(FRAME.goaway).at(-1)?.payload.readUInt32BE(4);
  }

  async resetCode(stream: number): Promise<number | undefined> {
    return (await this.next(FRAME.rstStream, stream))?.payload.readUInt32BE(0);
  }

  /** Of the first HEADERS of a stream: an indexed field of the static table, or a literal (RFC 7541 §6). */
  async status(stream: number): Promise<string | undefined> {
    const received = (await this.next(FRAME.headers, stream))?.payload;
    // Behind the size of the dynamic table (RFC 7541 §6.3), where it is said.
    const block = received?.[0] === 0x20 ? received.subarray(1) : received;
    const first = block?.[0];
    if (block === undefined || first === undefined) return undefined;
    const indexed: Record<number, string> = {
      0x88: "200",
      0x89: "204",
      0x8a: "206",
      0x8b: "304",
      0x8c: "400",
      0x8d: "404",
      0x8e: "500",
    };
    return indexed[first] ?? block.subarray(2, 2 + ((block[1] ?? 0) & 0x7f)).toString("latin1");
  }

  #take(chunk: Buffer): void {
    let bytes = Buffer.concat([this.#unread, chunk]);
    while (bytes.length >= 9 && bytes.length >= 9 + bytes.readUIntBE(0, 3)) {
      const end = 9 + bytes.readUIntBE(0, 3);
      this.frames.push({
        type: bytes.readUInt8(3),
        flags: bytes.readUInt8(4),
        stream: bytes.readUInt32BE(5),
        payload: bytes.subarray(9, end),
      });
      bytes = bytes.subarray(end);
    }
    this.#unread = bytes;
    this.#wake();
  }

  #wake(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }
}
