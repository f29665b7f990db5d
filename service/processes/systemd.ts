/**
 * What systemd and a service say to each other: state and signs of life by datagrams (sd_notify(3)), and sockets
 * that were opened before the service was (sd_listen_fds(3)). Without the variables of the environment there is
 * no systemd, and nothing is said.
 */
import { StileError } from "../../wire/index.ts";
import { openLibc } from "./libc.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

export interface Systemd {
  readonly ready: () => void;
  /** Between it and the next `ready` a reload is under way. */
  readonly reloading: () => void;
  readonly stopping: () => void;
  readonly watchdog: () => void;
  /** Milliseconds within which `watchdog` is expected again; undefined where nobody watches. */
  readonly watchdogMs: number | undefined;
}

export interface SystemdOptions {
  readonly environment: Environment;
  readonly pid: number;
  /** Of CLOCK_MONOTONIC, as `process.hrtime.bigint()` gives it on Linux. */
  readonly monotonicNs: () => bigint;
  readonly onFailure: () => void;
  /** Default: by the C library. */
  readonly sendDatagram?: (address: string, content: Uint8Array) => boolean;
}

export function connectSystemd(options: SystemdOptions): Systemd {
  const { environment, monotonicNs, onFailure } = options;
  const address = environment["NOTIFY_SOCKET"] ?? "";
  // The library is loaded only where it has something to do.
  const sendDatagram = options.sendDatagram ?? (address === "" ? undefined : sendByLibc());
  const send = (...lines: string[]): void => {
    if (address === "") return;
    const isSent = sendDatagram?.(address, Buffer.from(lines.join("\n"))) ?? false;
    if (!isSent) onFailure();
  };
  return {
    ready: () => send("READY=1"),
    reloading: () => send("RELOADING=1", `MONOTONIC_USEC=${monotonicNs() / 1_000n}`),
    stopping: () => send("STOPPING=1"),
    watchdog: () => send("WATCHDOG=1"),
    watchdogMs: watchdogMsOf(options),
  };
}

function sendByLibc(): (address: string, content: Uint8Array) => boolean {
  const { sendDatagram } = openLibc();
  return sendDatagram;
}

/** sd_watchdog_enabled(3): the variable may be meant for another process. */
function watchdogMsOf({ environment, pid }: SystemdOptions): number | undefined {
  const micros = Number(environment["WATCHDOG_USEC"] ?? "");
  const isOurs = Number(environment["WATCHDOG_PID"] ?? pid) === pid;
  return isOurs && Number.isSafeInteger(micros) && micros > 0 ? micros / 1_000 : undefined;
}

const FIRST_LISTEN_FD = 3;
/** `FileDescriptorName=` of the public listener; needed only where the unit has several sockets. */
const PUBLIC_NAME = "public";
/** `FileDescriptorName=` of `listen.http`. */
const PLAIN_NAME = "http";

/** Descriptors of sockets that systemd has opened. */
export interface ActivatedSockets {
  readonly listenFd?: number;
  /** Of `listen.http`. */
  readonly plainFd?: number;
}

/**
 * What systemd has opened (sd_listen_fds(3)); sockets with other names are not for us.
 * @throws `SERVICE_CONFIG_INVALID` where it is not said which of several the public one is, or two have one name
 */
export function activatedSockets(environment: Environment, pid: number): ActivatedSockets {
  if (Number(environment["LISTEN_PID"] ?? "") !== pid) return {};
  const count = Number(environment["LISTEN_FDS"] ?? "");
  if (!Number.isSafeInteger(count) || count < 1) return {};
  const names = (environment["LISTEN_FDNAMES"] ?? "").split(":").slice(0, count);
  const indexOf = (name: string): number | undefined => {
    const index = names.indexOf(name);
    if (names.lastIndexOf(name) === index) return index < 0 ? undefined : index;
    throw invalid(`expected one socket with FileDescriptorName=${name}`);
  };
  const plain = indexOf(PLAIN_NAME);
  const first = count === 1 && plain === undefined ? 0 : undefined;
  const listener = indexOf(PUBLIC_NAME) ?? first;
  if (listener === undefined && count > 1) {
    throw invalid("expected one socket, or one with FileDescriptorName=public");
  }
  return {
    ...(listener === undefined ? {} : { listenFd: FIRST_LISTEN_FD + listener }),
    ...(plain === undefined ? {} : { plainFd: FIRST_LISTEN_FD + plain }),
  };
}

function invalid(message: string): StileError {
  return new StileError("SERVICE_CONFIG_INVALID", `socket activation: ${message}`);
}

/** What a child must not take for its own. */
export function withoutSystemd(environment: Environment): Record<string, string | undefined> {
  const kept = { ...environment };
  for (const name of [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
  ]) {
    delete kept[name];
  }
  return kept;
}
