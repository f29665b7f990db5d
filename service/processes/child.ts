/** One child process, as its supervisor sees it: started, listened to, told to end, killed where it does not. */
import { type ChildProcess, fork } from "node:child_process";
import { isStileError, StileError } from "../../wire/index.ts";
import type { ExitReason, FromChild, StartMessage, ToChild } from "./messages.ts";
import { withoutSystemd } from "./systemd.ts";

export interface ChildOptions {
  readonly start: StartMessage;
  /** Of the public listener, or, of a keeper, of `listen.http`. */
  readonly socketFd?: number | undefined;
  readonly monotonicMs: () => number;
}

type Stage = "loaded" | "ready";
/** Loading modules, unsealing keys and opening stores take seconds, on a busy machine several. */
const STAGE_MS = 60_000;
const SCRIPTS = {
  keeper: new URL("keeper-process.ts", import.meta.url),
  worker: new URL("worker-process.ts", import.meta.url),
} as const;

export class Child {
  readonly role: StartMessage["role"];
  readonly startedMs: number;
  /** Resolves once the process is gone, with why: undefined where it was told to end. */
  readonly gone: Promise<ExitReason | undefined>;
  readonly #process: ChildProcess;
  readonly #monotonicMs: () => number;
  readonly #stages = new Set<Stage>();
  readonly #waiting = new Set<() => void>();
  #lastBeatMs: number | undefined;
  #port: number | undefined;
  #failure: StileError | undefined;
  #isGone = false;
  #isLeaving = false;
  #reason: ExitReason = "crash";

  constructor({ socketFd, monotonicMs, start }: ChildOptions) {
    this.role = start.role;
    this.#monotonicMs = monotonicMs;
    this.startedMs = monotonicMs();
    const socket = socketFd === undefined ? [] : [socketFd];
    this.#process = fork(SCRIPTS[start.role], [], {
      stdio: ["ignore", "inherit", "inherit", "ipc", ...socket],
      env: withoutSystemd(process.env),
    });
    this.#process.on("message", (message: FromChild) => this.#hear(message));
    // A message that could not be sent: its exit says the rest.
    this.#process.on("error", () => this.kill());
    this.gone = new Promise((resolve) => {
      this.#process.once("exit", () => {
        this.#isGone = true;
        this.#wake();
        resolve(this.#isLeaving ? undefined : this.#reason);
      });
    });
    this.send(start);
  }

  get isReady(): boolean {
    return this.#stages.has("ready") && !this.#isGone && !this.#isLeaving;
  }

  /** Of a worker that is ready. */
  get port(): number | undefined {
    return this.#port;
  }

  send(message: ToChild): void {
    if (!this.#isGone && this.#process.connected) this.#process.send(message, () => undefined);
  }

  /** Waits until it is as far. @throws what the child failed with; `SERVICE_PROCESS_FAILED` */
  async until(stage: Stage): Promise<void> {
    const deadline = this.#monotonicMs() + STAGE_MS;
    for (;;) {
      if (this.#stages.has(stage)) return;
      if (this.#failure !== undefined) throw this.#failure;
      const leftMs = deadline - this.#monotonicMs();
      if (this.#isGone || leftMs <= 0) {
        throw new StileError("SERVICE_PROCESS_FAILED", `a ${this.role} could not be started`);
      }
      await this.#change(leftMs);
    }
  }

  /** Asks it to end, and ends it where it has not by then. */
  async end(deadlineMs: number, idleMs: number): Promise<void> {
    this.#isLeaving = true;
    this.send({ kind: "drain", deadlineMs, idleMs });
    const timer = setTimeout(() => this.kill(), deadlineMs + END_GRACE_MS);
    await this.gone;
    clearTimeout(timer);
  }

  /** What it has under way is lost. */
  abandon(): void {
    this.#isLeaving = true;
    this.kill();
  }

  kill(reason: ExitReason = "crash"): void {
    this.#reason = reason;
    this.#process.kill("SIGKILL");
  }

  /** Milliseconds since its last sign of life; 0 while its modules are loaded, which `until` watches. */
  silentMs(): number {
    return this.#lastBeatMs === undefined ? 0 : this.#monotonicMs() - this.#lastBeatMs;
  }

  /** The supervisor itself stood still: silence says nothing. */
  forgiveSilence(): void {
    if (this.#lastBeatMs !== undefined) this.#lastBeatMs = this.#monotonicMs();
  }

  #hear(message: FromChild): void {
    this.#lastBeatMs = this.#monotonicMs();
    if (message.kind === "ready") this.#port = message.port;
    if (message.kind === "loaded" || message.kind === "ready") {
      this.#stages.add(message.kind);
    } else if (message.kind === "failed") {
      const { code } = message;
      const known = code === "INTERNAL" ? "SERVICE_PROCESS_FAILED" : code;
      this.#failure = new StileError(known, message.message);
    }
    this.#wake();
  }

  #wake(): void {
    for (const wake of this.#waiting) wake();
  }

  async #change(timeoutMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => wake(), timeoutMs);
      const wake = (): void => {
        clearTimeout(timer);
        this.#waiting.delete(wake);
        resolve();
      };
      this.#waiting.add(wake);
    });
  }
}

/** After its deadline a child has this long to close what it has. */
const END_GRACE_MS = 5_000;

/** What a child tells of an error that ends it. */
export function failureOf(error: unknown): Extract<FromChild, { kind: "failed" }> {
  if (!isStileError(error)) {
    const message = error instanceof Error ? error.message : String(error);
    return { kind: "failed", code: "INTERNAL", message };
  }
  return { kind: "failed", code: error.code, message: error.message };
}
