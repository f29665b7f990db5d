/**
 * The swtpm process: started on Unix sockets in a private folder with a short path, killed with the
 * process that started it. Knows nothing of what is in the TPM.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { StileError } from "../wire/index.ts";
import { isAnswering, resetTpm } from "./control.ts";

const START_TIMEOUT_MS = 10_000;
const STOP_TIMEOUT_MS = 2_000;
const POLL_MS = 5;
/** sizeof(sockaddr_un.sun_path), the NUL included. */
const MAX_SOCKET_PATH_BYTES = 108;
const FOLDER_PREFIX = "stile-swtpm-";
/** What is kept of stderr: enough for the message of a start that failed. */
const MAX_STDERR_CHARACTERS = 2_000;

export interface SwtpmProcess {
  /** TCTI configuration for tpm2-tss and tpm2-tools. */
  readonly tcti: string;
  readonly pid: number;
  /** Power off and on. @throws `SWTPM_FAILED` */
  reset(): Promise<void>;
  /** Kills the process (SIGKILL) and leaves its folder: what a crash leaves. */
  kill(): Promise<void>;
  /** Starts the process again on the same state and the same sockets. @throws `SWTPM_FAILED` */
  restart(): Promise<void>;
  /** Ends the process and removes its sockets. Idempotent. */
  stop(): Promise<void>;
}

/**
 * @param stateDir folder of the TPM's non-volatile state; created where it is missing
 * @throws `SWTPM_FAILED` also when another swtpm holds the state
 */
export async function startProcess(stateDir: string): Promise<SwtpmProcess> {
  const state = resolve(stateDir);
  if (state.includes(",")) throw new RangeError("swtpm takes no folder with a comma in its name");
  mkdirSync(state, { recursive: true, mode: 0o700 });
  removeStaleFolders();
  const sockets = mkdtempSync(join(tmpdir(), `${FOLDER_PREFIX}${process.pid}-`));
  const data = join(sockets, "tpm");
  const control = `${data}.ctrl`;
  let child: ChildProcess;
  try {
    child = await launch(state, data, control);
  } catch (error) {
    rmSync(sockets, { recursive: true, force: true });
    throw error;
  }
  return {
    tcti: `swtpm:path=${data}`,
    get pid(): number {
      return child.pid ?? 0;
    },
    reset: () => resetTpm(control, data),
    kill: () => end(child, "SIGKILL"),
    async restart() {
      await end(child, "SIGKILL");
      // swtpm does not bind to a path that exists, and a killed one leaves its sockets.
      for (const path of [data, control]) rmSync(path, { force: true });
      child = await launch(state, data, control);
    },
    async stop() {
      await end(child, "SIGTERM");
      rmSync(sockets, { recursive: true, force: true });
    },
  };
}

async function launch(state: string, data: string, control: string): Promise<ChildProcess> {
  if (Buffer.byteLength(control) >= MAX_SOCKET_PATH_BYTES) {
    throw new StileError("SWTPM_FAILED", "the temporary folder's path is too long for a socket");
  }
  // PDEATHSIG: the kernel kills swtpm when this process ends, even when that is by SIGKILL.
  const command = ["--pdeathsig", "KILL", "--", "swtpm", "socket", "--tpm2"];
  const options = {
    tpmstate: `dir=${state}`,
    server: `type=unixio,path=${data},mode=0600`,
    ctrl: `type=unixio,path=${control},mode=0600`,
    flags: "not-need-init,startup-clear",
  };
  const words = Object.entries(options).flatMap(([name, value]) => [`--${name}`, value]);
  const child = spawn("setpriv", [...command, ...words], { stdio: ["ignore", "ignore", "pipe"] });
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr = (stderr + text).slice(-MAX_STDERR_CHARACTERS);
  });
  // swtpm must not keep a program running that is otherwise done; PDEATHSIG ends it then.
  child.unref();
  if ("unref" in child.stderr && typeof child.stderr.unref === "function") child.stderr.unref();
  const ended = new Promise<string>((settle) => {
    child.once("error", (error) => settle(error.message));
    child.once("close", () => settle(stderr.trim()));
  });
  const poll = { isOver: false };
  const reason = await Promise.race([ended, untilAnswering(control, poll)]);
  poll.isOver = true;
  if (reason === undefined) return child;
  await end(child, "SIGKILL");
  const hint = /ENOENT/.test(reason) ? 'install "swtpm" and "util-linux" (setpriv)' : reason;
  throw new StileError("SWTPM_FAILED", `swtpm did not start: ${hint}`);
}

/** Settles with nothing once swtpm answers, or with a reason. */
async function untilAnswering(
  control: string,
  poll: { readonly isOver: boolean },
): Promise<string | undefined> {
  for (let waited = 0; waited < START_TIMEOUT_MS && !poll.isOver; waited += POLL_MS) {
    if (await isAnswering(control)) return undefined;
    await sleep(POLL_MS);
  }
  return "it does not answer";
}

async function end(child: ChildProcess, signal: "SIGTERM" | "SIGKILL"): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  child.ref();
  const exited = new Promise<true>((settle) => child.once("exit", () => settle(true)));
  child.kill(signal);
  const timer = new AbortController();
  const isOver = await Promise.race([
    exited,
    sleep(STOP_TIMEOUT_MS, false, { signal: timer.signal }),
  ]);
  timer.abort();
  if (isOver) return;
  child.kill("SIGKILL");
  await exited;
}

/** Removes socket folders of processes that are no more: a killed one cannot do it itself. */
function removeStaleFolders(): void {
  for (const name of readdirSync(tmpdir())) {
    const owner = new RegExp(`^${FOLDER_PREFIX}(\\d+)-`).exec(name)?.[1];
    if (owner === undefined || isRunning(Number(owner))) continue;
    try {
      rmSync(join(tmpdir(), name), { recursive: true, force: true });
    } catch {
      // Another user's: theirs to remove.
    }
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // EPERM: it runs, under another user.
    return !(error instanceof Error && "code" in error && error.code === "ESRCH");
  }
}
