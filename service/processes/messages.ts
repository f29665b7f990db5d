/** What the supervisor and its children say to each other, over the channel that Node opens between them. */
import type { Config } from "../config/index.ts";
import type { ErrorCode } from "../../wire/index.ts";

/** In a child, behind the standard streams and the channel to the supervisor. */
export const SOCKET_FD = 4;

/** What every child is told first. */
export interface StartMessage {
  readonly kind: "start";
  readonly role: "keeper" | "worker";
  /** Of a worker: names it to the keeper. */
  readonly id: number;
  /** {@link SOCKET_FD} is a socket that it is to listen on. */
  readonly hasSocket: boolean;
  readonly config: Config;
  /** Hexadecimal: shown by a worker to the keeper, so that each knows that the other is the supervisor's. */
  readonly linkKey: string;
  /** Of session tickets, in hexadecimal, where no file has them. */
  readonly ticketKey?: string;
}

/** What the keeper tells the operator of the others. */
export interface StatusMessage {
  readonly kind: "status";
  readonly workersReady: number;
  readonly reloads: Readonly<Record<ReloadOutcome, number>>;
  /** By process and reason, as {@link ExitReason} joined to the role: `worker crash`. */
  readonly exits: Readonly<Record<string, number>>;
}

export type ReloadOutcome = "ok" | "failed" | "needs-restart";
/** crash: it ended by itself; hang: it gave no sign of life and was killed. */
export type ExitReason = "crash" | "hang";

export type ToChild =
  | StartMessage
  | StatusMessage
  /** The keeper is to take the state, a worker to listen. */
  | { readonly kind: "open" }
  /** To end, with what is under way. */
  | { readonly kind: "drain"; readonly deadlineMs: number; readonly idleMs: number }
  | { readonly kind: "ticket-key"; readonly ticketKey: string }
  | { readonly kind: "reload-files" };

export type FromChild =
  /** What can be checked before `open` is. */
  | { readonly kind: "loaded" }
  | { readonly kind: "ready"; readonly port?: number }
  | { readonly kind: "beat" }
  /** It ends after it. */
  | { readonly kind: "failed"; readonly code: ErrorCode | "INTERNAL"; readonly message: string };
