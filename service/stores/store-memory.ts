/**
 * What an edge remembers of a spent store that it shares with others: which one it is, and how far it had come.
 *
 * A store has an identity, drawn at its first use, and counts the batches of spends of each edge and of all. One with
 * another identity, or none, is another store or was emptied; one whose counts are lower than they were has been set
 * back: to a backup, a snapshot, or a replica that had not received everything. Either has forgotten spends, whose tokens
 * would be fresh once more. So it is refused, by every edge that knew better, until the operator has removed the file.
 * The refusal is written down: the counts of a store that was set back grow, too, and would pass the old ones.
 *
 * The counts are exact while this process lives, and on disk as of the last `save`. They say nothing of what other
 * edges wrote after this one's last look.
 */
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { decodeHex, encodeHex, encodeUtf8 } from "../../wire/index.ts";
import { createFileDurably, hasCode, replaceFileDurably } from "./durable-file.ts";

/** Batches that the store has taken, of all edges and of this one. */
export interface StoreCounts {
  readonly all: number;
  readonly own: number;
}

/** What a server says of itself. */
export interface StoreState extends StoreCounts {
  readonly identity: Uint8Array | undefined;
}

/** The server answers, and not as it must. */
export class StoreStateError extends Error {}

const EDGE_BYTES = 16;

interface Remembered extends StoreCounts {
  /** Hexadecimal. */
  readonly identity: string;
  /** Of this edge, hexadecimal: no two edges have one. */
  readonly edge: string;
  readonly hasForgotten: boolean;
}

export class StoreMemory {
  readonly #file: string;
  readonly #mayForget: boolean;
  #remembered: Remembered | undefined;
  #savedCount = 0;

  /** @param mayForget the operator accepts a store that forgets what it acknowledged, as long as it is the same one */
  constructor(file: string, mayForget: boolean) {
    this.#file = file;
    this.#mayForget = mayForget;
  }

  async load(): Promise<void> {
    this.#remembered = await this.#read();
    this.#savedCount = this.#remembered?.all ?? 0;
  }

  /** Whether an identity may be given to a store that has none. */
  get isNew(): boolean {
    return this.#remembered === undefined;
  }

  /** Names this edge to the store. */
  edge(): Uint8Array {
    return decodeHex(this.#known().edge);
  }

  /** What a later answer of the store may not be below. */
  counts(): StoreCounts {
    return this.#known();
  }

  /** The first time, what is found is remembered. Without effect later. @throws StoreStateError */
  async meet(identity: Uint8Array | undefined): Promise<void> {
    if (this.#remembered !== undefined) return;
    if (identity === undefined)
      throw new StoreStateError("the server does not keep what it is told");
    const edge = encodeHex(Uint8Array.from(randomBytes(EDGE_BYTES)));
    const met = { identity: encodeHex(identity), edge, all: 0, own: 0, hasForgotten: false };
    await createFileDurably(this.#file, encodeUtf8(JSON.stringify(met)));
    // What is on disk, also where another process was faster.
    await this.load();
  }

  /**
   * With each answer of the store, before it is believed.
   * @param least the counts before the store was asked
   * @throws StoreStateError
   */
  async check({ all, identity, own }: StoreState, least: StoreCounts): Promise<void> {
    const known = this.#known();
    if (identity === undefined || encodeHex(identity) !== known.identity) {
      throw new StoreStateError(
        "the server has lost its data, or is not the one that was used before",
      );
    }
    const isAhead = all >= least.all && own >= least.own;
    if (!this.#mayForget && (known.hasForgotten || !isAhead)) {
      if (!known.hasForgotten) {
        this.#remembered = { ...known, hasForgotten: true };
        await this.#write();
      }
      throw new StoreStateError("the server was set back, and has forgotten spends");
    }
    // Answers may overtake each other.
    this.#remembered = {
      ...known,
      all: Math.max(all, this.#known().all),
      own: Math.max(own, this.#known().own),
    };
  }

  /** Durable when it resolves. */
  async save(): Promise<void> {
    if (this.#remembered !== undefined && this.#remembered.all > this.#savedCount)
      await this.#write();
  }

  async #read(): Promise<Remembered | undefined> {
    try {
      return parseRemembered(await readFile(this.#file, "utf8"));
    } catch (error) {
      if (hasCode(error, "ENOENT")) return undefined;
      throw error;
    }
  }

  async #write(): Promise<void> {
    const onDisk = await this.#read();
    // The operator has decided, and need not wait for this process to end.
    if (onDisk === undefined) return;
    const known = this.#known();
    const isSame = onDisk.identity === known.identity;
    // A process that ends must not take back what the one after it has found out.
    const hasForgotten = known.hasForgotten || (isSame && onDisk.hasForgotten);
    const text = JSON.stringify({ ...known, hasForgotten });
    await replaceFileDurably(this.#file, encodeUtf8(text));
    this.#savedCount = known.all;
  }

  #known(): Remembered {
    if (this.#remembered === undefined) throw new StoreStateError("the server was not met yet");
    return this.#remembered;
  }
}

/** Damage is no licence to begin anew. @throws StoreStateError */
function parseRemembered(text: string): Remembered {
  try {
    const { all, edge, hasForgotten, identity, own } = JSON.parse(text) as Remembered;
    const isWhole =
      [edge, identity].every((name) => /^(?:[0-9a-f]{2}){16,}$/.test(name)) &&
      [all, own].every((count) => Number.isSafeInteger(count)) &&
      typeof hasForgotten === "boolean";
    if (isWhole) return { all, edge, hasForgotten, identity, own };
  } catch {
    // As below.
  }
  throw new StoreStateError("the file that names the store is damaged");
}
