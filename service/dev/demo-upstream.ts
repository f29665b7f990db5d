/**
 * The application behind the edge in development: answers every request with what it received, so that a
 * newcomer sees what an upstream learns of an admitted client. Listens on loopback only.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface DemoUpstream {
  readonly url: string;
  /** Requests that reached it: a test or the demo sees whether one was let through. */
  readonly hits: () => number;
  readonly stop: () => Promise<void>;
}

/** @param port 0 takes any free port */
export async function startDemoUpstream(port = 0): Promise<DemoUpstream> {
  let hits = 0;
  const server = createServer((request, response) => {
    hits += 1;
    answer(request, response);
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", resolve);
  });
  const address = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${address.port}`,
    hits: () => hits,
    stop: () => stopServer(server),
  };
}

function answer(request: IncomingMessage, response: ServerResponse): void {
  request.resume();
  request.once("end", () => {
    const body = {
      message: "the demo upstream: you were let in",
      method: request.method,
      path: request.url,
      headers: request.headers,
    };
    response.setHeader("content-type", "application/json");
    response.end(`${JSON.stringify(body, null, 2)}\n`);
  });
}

async function stopServer(server: Server): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeAllConnections();
  await closed;
}
