/**
 * One HTTPS exchange of the device agent: TLS 1.3, an answer of bounded size, in bounded time.
 * Redirects are not followed: a token is for the origin that asked for it.
 */
import type { IncomingHttpHeaders, IncomingMessage } from "node:http";
import { type Agent, request as httpsRequest } from "node:https";
import { isIP } from "node:net";
import { StileError } from "../../wire/index.ts";

export interface ExchangeRequest {
  readonly url: string;
  readonly method: "GET" | "HEAD" | "POST" | "OPTIONS";
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  /** PEM of further trusted CAs; without it the system's. */
  readonly ca?: string | undefined;
  /** Keeps a connection from one exchange to the next; without it, each has its own. */
  readonly agent?: Agent;
  /** Of silence. Default 30,000. */
  readonly timeoutMs?: number;
  /** Ends the exchange, also one that never falls silent. */
  readonly signal?: AbortSignal;
  /** Default TLS 1.3; less only towards servers of others. */
  readonly minVersion?: "TLSv1.2" | "TLSv1.3";
}

/** Hostile in every part. */
export interface ExchangeAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Uint8Array;
}

const TIMEOUT_MS = 30_000;
const MAX_ANSWER_BYTES = 16 * 1024 * 1024;

/** @throws `ATTEST_AGENT_REFUSED` where there is no whole answer */
export function exchange(request: ExchangeRequest): Promise<ExchangeAnswer> {
  return new Promise((resolve, reject) => {
    const { hostname } = new URL(request.url);
    const sent = httpsRequest(
      request.url,
      {
        method: request.method,
        headers: request.headers,
        minVersion: request.minVersion ?? "TLSv1.3",
        timeout: request.timeoutMs ?? TIMEOUT_MS,
        ...(request.signal === undefined ? {} : { signal: request.signal }),
        ...(isIP(hostname.replaceAll(/[[\]]/g, "")) === 0 ? { servername: hostname } : {}),
        ...(request.ca === undefined ? {} : { ca: request.ca }),
        agent: request.agent ?? false,
      },
      (response) => {
        readAnswer(response).then(resolve, (cause: unknown) => reject(broken(cause)));
      },
    );
    sent.once("timeout", () => sent.destroy(new Error("no answer in time")));
    sent.once("error", (cause) => reject(broken(cause)));
    sent.end(request.body);
  });
}

async function readAnswer(response: IncomingMessage): Promise<ExchangeAnswer> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of response as AsyncIterable<Buffer>) {
    length += part.length;
    if (length > MAX_ANSWER_BYTES) throw new Error("the answer is too large");
    parts.push(part);
  }
  const body = Uint8Array.from(Buffer.concat(parts));
  return { status: response.statusCode ?? 0, headers: response.headers, body };
}

function broken(cause: unknown): StileError {
  const reason = cause instanceof Error ? cause.message : "unknown";
  return new StileError("ATTEST_AGENT_REFUSED", `no answer from the server: ${reason}`, { cause });
}
