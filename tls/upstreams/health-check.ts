/**
 * Active health: a GET to each upstream at intervals, over the same transport as requests, each on a connection
 * of its own. Only some results in a row change what is believed; at the start that is: healthy.
 */
import { request } from "node:http";
import type { Socket } from "node:net";
import type { Upstream, UpstreamEvent } from "./upstream.ts";

export interface HealthCheckOptions {
  /** Origin-form. */
  readonly path: string;
  /** Of the Host header. */
  readonly host: string;
  readonly intervalMs: number;
  /** For the whole check. */
  readonly timeoutMs: number;
  /** Good results in a row after which an unhealthy one is healthy. */
  readonly healthy: number;
  /** Bad results in a row after which a healthy one is not. */
  readonly unhealthy: number;
  readonly expectedStatus: number;
}

type Observe = (event: UpstreamEvent, name: string) => void;

/** @returns stops them */
export function startHealthChecks(
  upstreams: readonly Upstream[],
  options: HealthCheckOptions,
  observe: Observe,
): () => void {
  const stops = upstreams.map((upstream) => checkAtIntervals(upstream, options, observe));
  return () => {
    for (const stop of stops) stop();
  };
}

function checkAtIntervals(
  upstream: Upstream,
  options: HealthCheckOptions,
  observe: Observe,
): () => void {
  let timer: NodeJS.Timeout | undefined;
  let stopCheck = (): void => undefined;
  /** Results in a row that speak against what is believed. */
  let against = 0;

  function note(isGood: boolean): void {
    against = isGood === upstream.isHealthy ? 0 : against + 1;
    if (against >= (isGood ? options.healthy : options.unhealthy)) {
      against = 0;
      upstream.isHealthy = isGood;
      if (isGood) upstream.ejection?.forgive();
      observe(isGood ? "healthy" : "unhealthy", upstream.name);
    }
    timer = setTimeout(check, options.intervalMs);
    timer.unref();
  }

  function check(): void {
    stopCheck = checkOnce(upstream, options, note);
  }

  check();
  return () => {
    clearTimeout(timer);
    stopCheck();
  };
}

/** @param done called once. @returns ends the check without a word */
function checkOnce(
  upstream: Upstream,
  { expectedStatus, host, path, timeoutMs }: HealthCheckOptions,
  done: (isGood: boolean) => void,
): () => void {
  let isOver = false;
  let end = (): void => undefined;
  const stop = (): void => {
    isOver = true;
    clearTimeout(timer);
    end();
  };
  const settle = (isGood: boolean): void => {
    if (isOver) return;
    stop();
    done(isGood);
  };
  // What has come while this process was busy with something else is read first.
  const timer = setTimeout(() => setImmediate(() => settle(false)), timeoutMs);
  timer.unref();
  end = upstream.dial(undefined, false, (_error, socket) => {
    if (socket === undefined) {
      settle(false);
      return;
    }
    end = () => socket.destroy();
    ask(socket, host, path, (status) => settle(status === expectedStatus));
  });
  return stop;
}

function ask(
  socket: Socket,
  host: string,
  path: string,
  answered: (status: number | undefined) => void,
): void {
  const asked = request({
    path,
    headers: ["Host", host, "User-Agent", "stile-health-check", "Connection", "close"],
    createConnection: () => socket,
  });
  asked.once("response", (answer) => {
    answered(answer.statusCode);
    answer.resume();
  });
  asked.on("error", () => answered(undefined));
  asked.once("close", () => answered(undefined));
  asked.end();
}
