/**
 * The {@link BlindSigner} of the issuer: worker threads behind one bounded queue, so that the event
 * loop never runs the RSA operation (0.3 ms each). Jobs of one tick go out as few messages.
 * It does not decide whether a key may sign now; the issuer does.
 */
import type { KeyObject } from "node:crypto";
import type { BlindSigner } from "../../tokens/index.ts";
import { encodeHex, StileError } from "../../wire/index.ts";
import type { SignResult } from "./messages.ts";
import { type PendingJob, SigningWorker, type WorkerDeath } from "./signing-worker.ts";

export interface SigningPoolOptions {
  /** Worker threads, 1 or more: `os.availableParallelism()` for an issuer alone on its machine. */
  readonly threads: number;
  /** Requests that may wait for a thread, 1 or more. Default 1,024: some 150 ms on two threads. */
  readonly maxQueued?: number;
  /** The thread's module, in tests. */
  readonly workerUrl?: URL;
  readonly observe?: SigningPoolObserver;
}

/** What the pool measures; every method must return quickly and not throw. */
export interface SigningPoolObserver {
  /** Requests that wait for a thread, after each change. */
  queued?(count: number): void;
  /** One request was refused because the queue is full. */
  shed?(): void;
  /** A thread died and is being replaced. */
  workerDied?(cause: unknown): void;
}

/** Jobs in one message. A thread has two, so that this bounds what waits behind a slow job. */
const MAX_JOBS_PER_MESSAGE = 8;
/** A request whose thread dies is tried once more: it may be the request that kills it. */
const MAX_DEATHS = 1;
const RETRY_AFTER_SECONDS = 1;

export class SigningPool implements BlindSigner {
  readonly #keys = new Map<string, KeyObject>();
  readonly #workers: readonly SigningWorker[];
  readonly #maxQueued: number;
  readonly #observe: SigningPoolObserver;
  #queue: PendingJob[] = [];
  #open = 0;
  #dispatching = false;
  #onDrained: (() => void) | undefined;
  #closed = false;

  constructor(options: SigningPoolOptions) {
    const { threads, maxQueued = 1_024, observe = {} } = options;
    if (!Number.isSafeInteger(threads) || threads < 1)
      throw new RangeError("threads is not 1 or more");
    this.#maxQueued = maxQueued;
    this.#observe = observe;
    const url = options.workerUrl ?? new URL("./worker.ts", import.meta.url);
    this.#workers = Array.from(
      { length: threads },
      () =>
        new SigningWorker({
          url,
          keys: this.#keys,
          onIdle: () => this.#dispatch(),
          onDeath: (death) => this.#retry(death),
        }),
    );
  }

  /** Whether a thread has started and lives. */
  get isReady(): boolean {
    return this.#workers.some((worker) => worker.isReady);
  }

  /** Gives every thread the key: a share in OpenSSL's key object, not the bytes of the key. */
  addKey(tokenKeyId: Uint8Array, privateKey: KeyObject): void {
    if (privateKey.type !== "private" || privateKey.asymmetricKeyType !== "rsa") {
      throw new TypeError("expected an rsaEncryption private key");
    }
    const keyName = encodeHex(tokenKeyId);
    this.#keys.set(keyName, privateKey);
    for (const worker of this.#workers) worker.post({ kind: "add-key", keyName, privateKey });
  }

  /** Takes the key from every thread. Requests for it that still wait get `TOKEN_KEY_UNKNOWN`. */
  removeKey(tokenKeyId: Uint8Array): void {
    const keyName = encodeHex(tokenKeyId);
    this.#keys.delete(keyName);
    for (const worker of this.#workers) worker.post({ kind: "remove-key", keyName });
  }

  /**
   * @throws `TOKEN_KEY_UNKNOWN`, `TOKEN_REQUEST_INVALID`, `TOKEN_SIGNATURE_FAULT`;
   * `TOKEN_ISSUER_BUSY` with the seconds to wait when the queue is full, the pool is closed, or
   * threads died twice over this request
   */
  async blindSign(tokenKeyId: Uint8Array, blindedMessage: Uint8Array): Promise<Uint8Array> {
    const keyName = encodeHex(tokenKeyId);
    if (this.#closed) throw busy("the signing pool is closed");
    if (!this.#keys.has(keyName)) {
      throw new StileError("TOKEN_KEY_UNKNOWN", "no such key in the signing pool");
    }
    if (this.#queue.length >= this.#maxQueued) {
      this.#observe.shed?.();
      throw busy("the signing queue is full");
    }
    this.#open += 1;
    const result = await new Promise<SignResult>((resolve) => {
      const own = Uint8Array.from(blindedMessage);
      this.#queue.push({ keyName, blindedMessage: own, deaths: 0, resolve });
      this.#dispatchSoon();
    });
    this.#open -= 1;
    if (this.#open === 0) this.#onDrained?.();
    return signatureOf(result);
  }

  /** Takes no more requests, answers those it has, then ends the threads. */
  async close(): Promise<void> {
    this.#closed = true;
    if (this.#open > 0) {
      await new Promise<void>((resolve) => {
        this.#onDrained = resolve;
      });
    }
    await Promise.all(this.#workers.map((worker) => worker.close()));
    this.#keys.clear();
  }

  /** One microtask later, so that requests of one tick share messages. */
  #dispatchSoon(): void {
    if (this.#dispatching) return;
    this.#dispatching = true;
    queueMicrotask(() => {
      this.#dispatching = false;
      this.#dispatch();
    });
  }

  #dispatch(): void {
    let idle = this.#workers.filter((worker) => worker.takesWork);
    idle.sort((a, b) => a.load - b.load);
    while (this.#queue.length > 0 && idle.length > 0) {
      // Spread what there is over the threads that are free.
      const share = Math.min(Math.ceil(this.#queue.length / idle.length), MAX_JOBS_PER_MESSAGE);
      idle[0]?.sign(this.#queue.splice(0, share));
      idle = idle.slice(1);
    }
    this.#observe.queued?.(this.#queue.length);
  }

  #retry({ jobs, atStart, cause }: WorkerDeath): void {
    this.#observe.workerDied?.(cause);
    const again: PendingJob[] = [];
    for (const job of jobs) {
      job.deaths += 1;
      if (job.deaths <= MAX_DEATHS) again.push(job);
      else job.resolve({ code: "TOKEN_ISSUER_BUSY", message: "the signing thread died twice" });
    }
    // Threads that do not even start: nobody knows when this ends, so nobody waits for it.
    if (atStart && !this.isReady) {
      for (const job of [...again.splice(0), ...this.#queue.splice(0)]) {
        job.resolve({ code: "TOKEN_ISSUER_BUSY", message: "no signing thread is running" });
      }
    }
    // First in the queue, and beyond its bound: they were taken, and signing twice does no harm.
    this.#queue = [...again, ...this.#queue];
    this.#dispatch();
  }
}

function signatureOf(result: SignResult): Uint8Array {
  if ("signature" in result) return result.signature;
  if (result.code === "TOKEN_ISSUER_BUSY") throw busy(result.message);
  if (result.code !== undefined) throw new StileError(result.code, result.message);
  throw new Error(`the signing thread failed: ${result.message}`);
}

function busy(message: string): StileError {
  return new StileError("TOKEN_ISSUER_BUSY", message, { retryAfterSeconds: RETRY_AFTER_SECONDS });
}
