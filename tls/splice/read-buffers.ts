/**
 * The memory that upstream connections are read into. Left to itself Node makes 64 KiB for each read, and to
 * collect these took a quarter of the CPU of a large body. A buffer is filled by one read, then belongs to
 * whoever holds views of it, and is lent again only when that one says so: a buffer that nobody gives back is
 * lost to the collector and to nobody else.
 */

/** What Node itself reads at once. */
const BUFFER_BYTES = 65_536;
/** Kept for later, in all. */
const MAX_FREE = 64;

export interface ReadBuffers {
  readonly take: () => Buffer;
  /** Nothing uses its bytes any more. */
  readonly giveBack: (buffer: Buffer) => void;
}

export function createReadBuffers(): ReadBuffers {
  const free: Buffer[] = [];
  return {
    take: () => free.pop() ?? Buffer.allocUnsafeSlow(BUFFER_BYTES),
    giveBack: (buffer) => {
      if (free.length < MAX_FREE) free.push(buffer);
    },
  };
}

/** One read of a connection: its bytes, and the right to give their memory back, which is there once. */
export class ReadPiece {
  readonly bytes: Buffer;
  #giveBack: (() => void) | undefined;

  /** @param giveBack undefined where the memory is nobody else's */
  constructor(bytes: Buffer, giveBack?: () => void) {
    this.bytes = bytes;
    this.#giveBack = giveBack;
  }

  /** Nothing uses the bytes any more, or any view of them. */
  readonly done = (): void => {
    const giveBack = this.#giveBack;
    this.#giveBack = undefined;
    giveBack?.();
  };
}
