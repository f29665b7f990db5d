/**
 * The {@link BlindSigner} of the issuer and the {@link PrivateTokenVerifier} of the redeemer: worker
 * threads behind one bounded queue, so that the event loop never runs an operation of a private key
 * (0.3 ms of type 0x0002 or 0x0005, 4 ms of type 0x0001). Jobs of one tick go out as few messages.
 * It does not decide whether a key may sign now; the issuer does.
 */
import type { KeyObject } from "node:crypto";
import {
  type BlindSigner,
  hasPublicMetadata,
  isPrivateTokenType,
  type PrivateTokenVerifier,
  TOKEN_TYPE_BLIND_RSA,
  tokenTypeEntry,
} from "../../tokens/index.ts";
import type { VoprfEnginePreference } from "../../tokens/voprf/index.ts";
import { encodeHex, StileError } from "../../wire/index.ts";
import type { SigningJob, SigningKey, SigningResult } from "./messages.ts";
import { type PendingJob, SigningWorker, type WorkerDeath } from "./signing-worker.ts";

export interface SigningPoolOptions {
  /** Worker threads, 1 or more: `os.availableParallelism()` for an issuer alone on its machine. */
  readonly threads: number;
  /** Tokens that may wait for a thread, 1 or more. Default 1,024: some 150 ms on two threads. */
  readonly maxQueued?: number;
  /** For keys of the private types. Default `native`. */
  readonly voprfEngine?: VoprfEnginePreference;
  /** The thread's module, in tests. */
  readonly workerUrl?: URL;
  readonly observe?: SigningPoolObserver;
}

/** What the pool measures; every method must return quickly and not throw. */
export interface SigningPoolObserver {
  /** Tokens that wait for a thread, after each change. */
  queued?(count: number): void;
  /** One request was refused because the queue is full. */
  shed?(): void;
  /** A thread died and is being replaced. */
  workerDied?(cause: unknown): void;
}

/** Tokens in one message. A thread has two, so that this bounds what waits behind a slow job. */
const MAX_WEIGHT_PER_MESSAGE = 16;
/** A request whose thread dies is tried once more: it may be the request that kills it. */
const MAX_DEATHS = 1;
const RETRY_AFTER_SECONDS = 1;

export class SigningPool implements BlindSigner, PrivateTokenVerifier {
  readonly #keys = new Map<string, SigningKey>();
  readonly #workers: readonly SigningWorker[];
  readonly #maxQueued: number;
  readonly #observe: SigningPoolObserver;
  #queue: PendingJob[] = [];
  /** The weights of the queue. */
  #waiting = 0;
  #open = 0;
  #dispatching = false;
  #onDrained: (() => void) | undefined;
  #closed = false;

  constructor(options: SigningPoolOptions) {
    const { threads, maxQueued = 1_024, voprfEngine = "native", observe = {} } = options;
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
          settings: { voprfEngine },
          onIdle: () => this.#dispatch(),
          onDeath: (death) => this.#retry(death),
        }),
    );
  }

  /** Whether a thread has started and lives. */
  get isReady(): boolean {
    return this.#workers.some((worker) => worker.isReady);
  }

  /**
   * Gives every thread the key: a share in OpenSSL's key object, not the bytes of the key.
   * @param privateKey RSA of types 0x0002 and 0xDA7A; of a private type the secret key that holds its scalar
   */
  addKey(
    tokenKeyId: Uint8Array,
    privateKey: KeyObject,
    tokenType: number = TOKEN_TYPE_BLIND_RSA,
  ): void {
    const isScalar = privateKey.type === "secret" && isPrivateTokenType(tokenType);
    const isRsa = privateKey.type === "private" && privateKey.asymmetricKeyType === "rsa";
    const isPublic = tokenType === TOKEN_TYPE_BLIND_RSA || hasPublicMetadata(tokenType);
    if (!isScalar && !(isRsa && isPublic)) {
      throw new TypeError("expected an rsaEncryption private key, or a scalar of a private type");
    }
    const keyName = encodeHex(tokenKeyId);
    const key = { tokenType, privateKey };
    this.#keys.set(keyName, key);
    for (const worker of this.#workers) worker.post({ kind: "add-key", keyName, ...key });
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
  async blindSign(
    tokenKeyId: Uint8Array,
    blindedMessage: Uint8Array,
    metadata?: Uint8Array,
  ): Promise<Uint8Array> {
    const own = Uint8Array.from(blindedMessage);
    const bound = metadata && { metadata: Uint8Array.from(metadata) };
    const result = await this.#answer(tokenKeyId, ({ tokenType }, keyName) => ({
      job: { op: "sign", keyName, blindedMessage: own, ...bound },
      weight: Math.ceil(own.length / (tokenTypeEntry(tokenType)?.blindedLength ?? own.length)),
    }));
    return "signature" in result ? result.signature : failed(result);
  }

  /**
   * @throws `TOKEN_KEY_UNKNOWN` also for a key of a publicly verifiable type; `TOKEN_ISSUER_BUSY` as
   * {@link blindSign}
   */
  async verifyPrivate(
    tokenKeyId: Uint8Array,
    authenticatorInput: Uint8Array,
    authenticator: Uint8Array,
  ): Promise<boolean> {
    const own = {
      authenticatorInput: Uint8Array.from(authenticatorInput),
      authenticator: Uint8Array.from(authenticator),
    };
    const result = await this.#answer(tokenKeyId, ({ tokenType }, keyName) => {
      if (!isPrivateTokenType(tokenType)) throw unknownKey();
      return { job: { op: "verify", keyName, ...own }, weight: 1 };
    });
    return "isAuthentic" in result ? result.isAuthentic : failed(result);
  }

  /** Queues a job for a key that is here, and waits for a thread to do it. */
  async #answer(
    tokenKeyId: Uint8Array,
    plan: (key: SigningKey, keyName: string) => { job: SigningJob; weight: number },
  ): Promise<SigningResult> {
    const keyName = encodeHex(tokenKeyId);
    if (this.#closed) throw busy("the signing pool is closed");
    const key = this.#keys.get(keyName);
    if (key === undefined) throw unknownKey();
    const planned = plan(key, keyName);
    if (this.#waiting >= this.#maxQueued) {
      this.#observe.shed?.();
      throw busy("the signing queue is full");
    }
    this.#open += 1;
    const result = await new Promise<SigningResult>((resolve) => {
      this.#waiting += planned.weight;
      this.#queue.push({ ...planned, deaths: 0, resolve });
      this.#dispatchSoon();
    });
    this.#open -= 1;
    if (this.#open === 0) this.#onDrained?.();
    return result;
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
      idle[0]?.give(this.#take(Math.ceil(this.#waiting / idle.length)));
      idle = idle.slice(1);
    }
    this.#observe.queued?.(this.#waiting);
  }

  /** The first jobs of the queue up to a weight; at least one, however heavy it is. */
  #take(share: number): PendingJob[] {
    const limit = Math.min(share, MAX_WEIGHT_PER_MESSAGE);
    let count = 0;
    let weight = 0;
    for (const next of this.#queue) {
      if (count > 0 && weight + next.weight > limit) break;
      count += 1;
      weight += next.weight;
    }
    this.#waiting -= weight;
    return this.#queue.splice(0, count);
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
    this.#waiting = this.#queue.reduce((sum, { weight }) => sum + weight, 0);
    this.#dispatch();
  }
}

/** The error that a thread answered with. */
function failed(result: SigningResult): never {
  if (!("message" in result)) throw new Error("the signing thread answered another question");
  if (result.code === "TOKEN_ISSUER_BUSY") throw busy(result.message);
  if (result.code !== undefined) throw new StileError(result.code, result.message);
  throw new Error(`the signing thread failed: ${result.message}`);
}

function unknownKey(): StileError {
  return new StileError("TOKEN_KEY_UNKNOWN", "no such key in the signing pool");
}

function busy(message: string): StileError {
  return new StileError("TOKEN_ISSUER_BUSY", message, { retryAfterSeconds: RETRY_AFTER_SECONDS });
}
