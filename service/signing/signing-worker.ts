/**
 * One thread of the signing pool as the pool sees it: which jobs are with it, and a new thread with
 * the same keys when the old one dies. It queues nothing and decides nothing.
 */
import { Worker } from "node:worker_threads";
import type {
  SigningJob,
  SigningKey,
  SigningResult,
  WorkerReply,
  WorkerRequest,
  WorkerSettings,
} from "./messages.ts";

/** Messages with the worker at once: one in work and one behind it, so that it never waits. */
const MAX_BATCHES = 2;
/** A thread that dies before it was ready is started again after this long, in milliseconds. */
const RESTART_DELAY_MS = 500;
/** A thread that has not started after this long, in milliseconds, hangs. */
const START_LIMIT_MS = 10_000;

/** A job and who waits for it. */
export interface PendingJob {
  readonly job: SigningJob;
  /** How many tokens it is about: an amortized batch takes as long as so many jobs. */
  readonly weight: number;
  /** Times that a thread died over it. */
  deaths: number;
  readonly resolve: (result: SigningResult) => void;
}

export interface WorkerDeath {
  readonly jobs: readonly PendingJob[];
  /** It died before it was ready: it may never start. */
  readonly atStart: boolean;
  readonly cause: unknown;
}

export interface SigningWorkerOptions {
  readonly url: URL;
  /** The keys that a new thread starts with. */
  readonly keys: ReadonlyMap<string, SigningKey>;
  readonly settings: WorkerSettings;
  /** It can take more work: it has become ready, or has answered. */
  readonly onIdle: () => void;
  /** The thread died with its jobs unanswered; a new one is on its way. */
  readonly onDeath: (death: WorkerDeath) => void;
}

export class SigningWorker {
  readonly #options: SigningWorkerOptions;
  #thread: Worker | undefined;
  #ready = false;
  #batches: (readonly PendingJob[])[] = [];
  #restart: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: SigningWorkerOptions) {
    this.#options = options;
    this.#start();
  }

  get isReady(): boolean {
    return this.#ready;
  }

  /** Whether `give` may be called. */
  get takesWork(): boolean {
    return this.#ready && this.#batches.length < MAX_BATCHES;
  }

  /** Messages that are with the thread. */
  get load(): number {
    return this.#batches.length;
  }

  give(jobs: readonly PendingJob[]): void {
    this.#batches.push(jobs);
    // The process may end while the pool is idle, never while somebody waits for an answer.
    this.#thread?.ref();
    this.post({ kind: "work", jobs: jobs.map(({ job }) => job) });
  }

  post(request: WorkerRequest): void {
    this.#thread?.postMessage(request);
  }

  /** Ends the thread; the pool has seen to its jobs. */
  async close(): Promise<void> {
    const mayTerminate = this.#ready;
    this.#closed = true;
    this.#ready = false;
    clearTimeout(this.#restart);
    const thread = this.#thread;
    this.#thread = undefined;
    if (thread === undefined) return;
    if (!mayTerminate) await endBySelf(thread);
    await thread.terminate();
  }

  #start(): void {
    const thread = new Worker(this.#options.url, { workerData: this.#options.settings });
    this.#thread = thread;
    let cause: unknown;
    thread.on("message", (reply: WorkerReply) => {
      this.#receive(reply);
    });
    thread.on("error", (error) => {
      cause = error;
    });
    thread.on("exit", () => {
      this.#replace(cause);
    });
    for (const [keyName, key] of this.#options.keys) {
      this.post({ kind: "add-key", keyName, ...key });
    }
  }

  #receive(reply: WorkerReply): void {
    if (this.#closed) return;
    const jobs = reply.kind === "ready" ? [] : (this.#batches.shift() ?? []);
    if (this.#batches.length === 0) this.#thread?.unref();
    if (reply.kind === "ready") {
      this.#ready = true;
    } else {
      for (const [i, job] of jobs.entries()) {
        job.resolve(reply.results[i] ?? { message: "the worker did not answer each job" });
      }
    }
    this.#options.onIdle();
  }

  #replace(cause: unknown): void {
    if (this.#closed) return;
    const death = { jobs: this.#batches.flat(), atStart: !this.#ready, cause };
    this.#batches = [];
    this.#ready = false;
    this.#thread = undefined;
    if (death.atStart) {
      this.#restart = setTimeout(() => {
        this.#start();
      }, RESTART_DELAY_MS);
      this.#restart.unref();
    } else {
      this.#start();
    }
    this.#options.onDeath(death);
  }
}

/**
 * Waits for the end of a thread that is still starting. To terminate it while it loads a native module aborts
 * the whole process (the module's initialisation throws where nothing may be thrown any more).
 */
function endBySelf(thread: Worker): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, START_LIMIT_MS);
    thread.once("exit", () => {
      clearTimeout(timer);
      resolve();
    });
    thread.ref();
    thread.postMessage({ kind: "end" } satisfies WorkerRequest);
  });
}
