/** What of a connection was read and has not been used: a head that is not whole, and whatever is pipelined. */

const NOTHING: Buffer = Buffer.alloc(0);

export class HeldBytes {
  #bytes: Buffer = NOTHING;
  #pieces = 0;

  get bytes(): Buffer {
    return this.#bytes;
  }

  get length(): number {
    return this.#bytes.length;
  }

  /** In how many reads it came: to look at a head anew with each is work that whoever sends it can choose. */
  get pieces(): number {
    return this.#pieces;
  }

  /** @returns whether these are the first */
  add(bytes: Buffer): boolean {
    const isFirst = this.#bytes.length === 0;
    this.#bytes = isFirst ? bytes : Buffer.concat([this.#bytes, bytes]);
    this.#pieces = isFirst ? 1 : this.#pieces + 1;
    return isFirst;
  }

  /** The first bytes, as many as there are up to `count`; what is left counts as one piece. */
  take(count: number): Buffer {
    const taken = this.#bytes.subarray(0, count);
    this.#bytes = this.#bytes.subarray(taken.length);
    this.#pieces = 1;
    return taken;
  }

  clear(): void {
    this.#bytes = NOTHING;
  }
}
