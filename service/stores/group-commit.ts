/**
 * Group commit: all requests that arrive while one batch is being written form the next batch, so one
 * fsync answers many. At most one batch is in flight, which is what makes "read, decide, write" of a
 * batch atomic. The queue is bounded: what does not fit is refused at once instead of growing a
 * latency that nobody waits for. It knows no store; what a batch means is the caller's `commit`.
 */

/** What a store measures; every method must return quickly and not throw. */
export interface GroupCommitObserver {
  /** One batch was answered, or failed. Duration in milliseconds, from its start to its answer. */
  batch?(size: number, durationMs: number, failed: boolean): void;
  /** One request was refused because the queue is full or the disk stalls. */
  shed?(): void;
}

export interface GroupCommitOptions<Request, Outcome> {
  /**
   * Decides and makes durable a batch; answers in its order. A rejection fails the whole batch, and
   * every request of it is told so with the same error.
   */
  readonly commit: (batch: readonly Request[]) => Promise<readonly Outcome[]>;
  /** The error for a request that is not taken. */
  readonly refuse: (reason: string) => Error;
  /** Requests that may wait, those of the batch in flight not counted. */
  readonly maxQueued: number;
  /** Requests in one batch: bounds the memory and the latency of one commit. */
  readonly maxBatch: number;
  /** After a batch has been in flight for this long, in milliseconds, new requests are refused. */
  readonly stallMs: number;
  /** A clock that never jumps, in milliseconds. */
  readonly monotonicMs: () => number;
  readonly observe?: GroupCommitObserver | undefined;
}

interface Waiting<Request, Outcome> {
  readonly request: Request;
  readonly resolve: (outcome: Outcome) => void;
  readonly reject: (error: unknown) => void;
}

export class GroupCommit<Request, Outcome> {
  readonly #options: GroupCommitOptions<Request, Outcome>;
  #queue: Waiting<Request, Outcome>[] = [];
  #running: Promise<void> | undefined;
  #batchStartedMs: number | undefined;
  #closed = false;

  constructor(options: GroupCommitOptions<Request, Outcome>) {
    this.#options = options;
  }

  /** Answers when the batch of the request is durable. Rejects with the batch's error, or `refuse`. */
  submit(request: Request): Promise<Outcome> {
    const reason = this.#refusal();
    if (reason !== undefined) return Promise.reject(this.#options.refuse(reason));
    return new Promise((resolve, reject) => {
      this.#queue.push({ request, resolve, reject });
      this.#running ??= this.#run();
    });
  }

  /** Takes no more requests, and resolves when all that were taken are answered. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#running;
  }

  #refusal(): string | undefined {
    const { maxQueued, stallMs, monotonicMs, observe } = this.#options;
    if (this.#closed) return "the store is closed";
    const startedMs = this.#batchStartedMs;
    const stalled = startedMs !== undefined && monotonicMs() - startedMs > stallMs;
    if (!stalled && this.#queue.length < maxQueued) return undefined;
    observe?.shed?.();
    return stalled ? "the disk does not answer" : "the queue is full";
  }

  async #run(): Promise<void> {
    // One microtask later, so that requests of the same tick share a batch.
    await Promise.resolve();
    while (this.#queue.length > 0) {
      const batch = this.#queue.slice(0, this.#options.maxBatch);
      this.#queue = this.#queue.slice(batch.length);
      await this.#commitBatch(batch);
    }
    this.#running = undefined;
  }

  async #commitBatch(batch: readonly Waiting<Request, Outcome>[]): Promise<void> {
    const { commit, monotonicMs, observe } = this.#options;
    const startedMs = monotonicMs();
    this.#batchStartedMs = startedMs;
    let failed = false;
    try {
      const outcomes = await commit(batch.map((waiting) => waiting.request));
      if (outcomes.length !== batch.length) throw new Error("commit did not answer each request");
      for (const [i, outcome] of outcomes.entries()) batch[i]?.resolve(outcome);
    } catch (error) {
      failed = true;
      for (const waiting of batch) waiting.reject(error);
    }
    this.#batchStartedMs = undefined;
    observe?.batch?.(batch.length, monotonicMs() - startedMs, failed);
  }
}
