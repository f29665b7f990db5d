/**
 * Structured logs (pino, JSON lines). A line carries names, counts, codes and durations: never a token,
 * a nonce, a key, a device identity, a client address, a path or a query. Where a line is about an error,
 * only its code is written, so that no message of a library can carry such a thing into the log.
 */
import { pino } from "pino";
import { isStileError } from "../wire/index.ts";

export type LogLevel = "debug" | "info" | "warn" | "error";
export type LogFields = Readonly<Record<string, string | number | boolean | undefined>>;

/** The one way to write a line: a stable event name and flat, public fields. */
export interface Log {
  readonly write: (level: LogLevel, event: string, fields?: LogFields) => void;
  readonly flush: () => void;
}

/** Logs to a file descriptor (1 is standard output), asynchronously. */
export function createLog(level: LogLevel | "silent", fd = 1): Log {
  const destination = pino.destination({ fd, sync: false });
  const logger = pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, destination);
  return {
    write: (lineLevel, event, fields = {}) => logger[lineLevel]({ event, ...fields }),
    flush: () => destination.flushSync(),
  };
}

/** What a log may say of an error. */
export function errorFields(error: unknown): LogFields {
  if (isStileError(error)) return { code: error.code };
  return { code: "INTERNAL", error: error instanceof Error ? error.name : typeof error };
}
