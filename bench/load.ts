/**
 * A small load generator: keep-alive TLS 1.3 connections in a thread of its own, one request after the
 * other on each, raw bytes prepared beforehand. It counts answers by status and notes every latency.
 * Bounded by the number of requests and by a deadline.
 */
import { connect, type TLSSocket } from "node:tls";
import { setTimeout as sleep } from "node:timers/promises";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";

export interface LoadJob {
  readonly port: number;
  readonly ca: string;
  readonly connections: number;
  /** Requests in full, in the order they are sent; a connection takes the next one when it is free. */
  readonly requests: readonly Uint8Array[];
  /** How often the whole list is gone through. */
  readonly rounds: number;
  readonly deadlineMs: number;
  /**
   * Requests start at this rate, whether or not answers have come; without it, as fast as answers come.
   * Latency then counts from when a request was due, so that waiting for a connection counts, too.
   */
  readonly ratePerSecond?: number;
}

export interface LoadResult {
  readonly seconds: number;
  readonly byStatus: Readonly<Record<string, number>>;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** Runs a job in its own thread. */
export function runLoad(job: LoadJob): Promise<LoadResult> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL(import.meta.url), { workerData: job });
    worker.once("message", resolve);
    worker.once("error", reject);
  });
}

async function loadThread(job: LoadJob): Promise<LoadResult> {
  const total = job.requests.length * job.rounds;
  const byStatus: Record<string, number> = {};
  const latencies: number[] = [];
  let next = 0;
  const sockets = await Promise.all(
    Array.from({ length: job.connections }, () => openConnection(job)),
  );
  const started = performance.now();
  const deadline = started + job.deadlineMs;
  await Promise.all(
    sockets.map(async (socket) => {
      const answers = readAnswers(socket);
      while (next < total && performance.now() < deadline) {
        const request = job.requests[next % job.requests.length];
        const dueMs = job.ratePerSecond === undefined ? 0 : (next * 1_000) / job.ratePerSecond;
        next += 1;
        if (request === undefined) break;
        const wait = started + dueMs - performance.now();
        if (wait > 0) await sleep(wait);
        const sent = job.ratePerSecond === undefined ? performance.now() : started + dueMs;
        socket.write(request);
        const { value: status, done } = await answers.next();
        if (done === true) break;
        latencies.push(performance.now() - sent);
        byStatus[status] = (byStatus[status] ?? 0) + 1;
      }
      socket.destroy();
    }),
  );
  const seconds = (performance.now() - started) / 1_000;
  latencies.sort((a, b) => a - b);
  const at = (share: number): number => latencies[Math.floor(latencies.length * share)] ?? 0;
  return { seconds, byStatus, p50Ms: at(0.5), p99Ms: at(0.99) };
}

function openConnection(job: LoadJob): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const socket = connect(
      { host: "127.0.0.1", port: job.port, servername: "localhost", ca: job.ca },
      () => resolve(socket),
    );
    socket.setNoDelay(true);
    socket.once("error", reject);
  });
}

/** The status of each answer, in order. Answers carry a Content-Length or are chunked. */
async function* readAnswers(socket: TLSSocket): AsyncGenerator<string> {
  let held: Buffer = Buffer.alloc(0);
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    held = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
    for (;;) {
      const length = answerLength(held);
      if (length === undefined || held.length < length) break;
      yield held.toString("latin1", 9, 12);
      held = held.subarray(length);
    }
  }
}

function answerLength(bytes: Buffer): number | undefined {
  const headEnd = bytes.indexOf("\r\n\r\n");
  if (headEnd < 0) return undefined;
  const head = bytes.toString("latin1", 0, headEnd).toLowerCase();
  const length = /\r\ncontent-length: *(\d+)/.exec(head)?.[1];
  if (length !== undefined) return headEnd + 4 + Number(length);
  if (!head.includes("transfer-encoding: chunked")) return headEnd + 4;
  const last = bytes.indexOf("0\r\n\r\n", headEnd + 4, "latin1");
  return last < 0 ? undefined : last + 5;
}

if (!isMainThread && parentPort !== null) {
  const port = parentPort;
  const job = workerData as LoadJob;
  port.postMessage(await loadThread(job));
}
