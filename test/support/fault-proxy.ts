/**
 * An HTTPS server in front of another that passes everything on but what a named fault changes: a request before
 * it is sent, or its answer before it is given.
 */
import { readFileSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { Agent, createServer } from "node:https";
import { exchange } from "../../service/agent/exchange.ts";
import type { Split } from "./split.ts";

export interface ProxiedRequest {
  method: "GET" | "HEAD" | "POST" | "OPTIONS";
  path: string;
  headers: Record<string, string>;
  body: Uint8Array;
  /** How many requests came before it while this fault was in. */
  readonly index: number;
}

export interface ProxiedAnswer {
  status: number;
  headers: Record<string, string>;
  body: Uint8Array;
}

export interface Fault {
  /** Changes what is sent on; an answer of its own is given instead of asking. */
  readonly before?: (request: ProxiedRequest) => ProxiedAnswer | undefined;
  /** Changes the answer. */
  readonly after?: (answer: ProxiedAnswer, request: ProxiedRequest) => void;
}

export interface FaultProxy {
  readonly url: string;
  readonly inject: (fault: Fault) => void;
  readonly close: () => Promise<void>;
}

/** Of one connection, and of the answer as it was framed to the proxy. */
const UNFORWARDED: readonly string[] = [
  "connection",
  "content-length",
  "transfer-encoding",
  "host",
];

/** @param host what the server behind is asked as, where that is not its own name */
export async function startFaultProxy(
  split: Split,
  options: { readonly port: number; readonly upstream: string; readonly host?: string },
): Promise<FaultProxy> {
  let fault: Fault = {};
  let count = 0;
  const { certificateFile, keyFile } = split.certificate;
  const agent = new Agent({
    keepAlive: true,
    cert: readFileSync(certificateFile),
    key: readFileSync(keyFile),
  });
  // Without keepAlive a connection each, as a token counts once for each connection.
  const lone = new Agent({ maxCachedSessions: 0 });

  async function answer(incoming: IncomingMessage): Promise<ProxiedAnswer> {
    const request = await readRequest(incoming, count);
    count += 1;
    const own = fault.before?.(request);
    if (own !== undefined) return own;
    const { body, headers, status } = await exchange({
      url: `${options.upstream}${request.path}`,
      method: request.method,
      headers: {
        ...request.headers,
        ...(options.host === undefined ? {} : { host: options.host }),
      },
      ...(request.body.length === 0 ? {} : { body: request.body }),
      ca: split.ca,
      agent: options.host === undefined ? agent : lone,
    });
    const answered: ProxiedAnswer = { status, headers: forwarded(headers), body };
    fault.after?.(answered, request);
    return answered;
  }

  const server = createServer(
    { cert: readFileSync(split.certificateFile), key: readFileSync(split.keyFile) },
    (incoming, outgoing) => {
      answer(incoming).then(
        ({ body, headers, status }) => {
          outgoing.writeHead(status, headers);
          outgoing.end(incoming.method === "HEAD" ? undefined : body);
        },
        () => incoming.socket.destroy(),
      );
    },
  );
  await new Promise<void>((resolve) => server.listen(options.port, "127.0.0.1", resolve));
  return {
    url: `https://localhost:${options.port}`,
    inject: (next) => {
      fault = next;
      count = 0;
    },
    close: async () => {
      agent.destroy();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function readRequest(incoming: IncomingMessage, index: number): Promise<ProxiedRequest> {
  const parts: Buffer[] = [];
  for await (const part of incoming as AsyncIterable<Buffer>) parts.push(part);
  return {
    method: (incoming.method ?? "GET") as ProxiedRequest["method"],
    path: incoming.url ?? "/",
    headers: forwarded(incoming.headers),
    body: Uint8Array.from(Buffer.concat(parts)),
    index,
  };
}

function forwarded(headers: IncomingMessage["headers"]): Record<string, string> {
  return Object.fromEntries(
    Object.entries(headers).flatMap(([name, value]) =>
      UNFORWARDED.includes(name) || value === undefined ? [] : [[name, String(value)]],
    ),
  );
}
