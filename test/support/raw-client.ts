/** Raw HTTP/1.1 over TLS, for tests that need to see exactly what was answered on which connection. */
import { connect, type TLSSocket } from "node:tls";

export interface RawTarget {
  readonly port: number;
  readonly ca: string;
  /** Value of the Host header. */
  readonly host: string;
}

export function openRaw(target: RawTarget): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const socket = connect(
      { host: "127.0.0.1", port: target.port, servername: "localhost", ca: target.ca },
      () => resolve(socket),
    );
    socket.once("error", reject);
  });
}

export function rawGet(target: RawTarget, path: string, headers: Record<string, string>): string {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  return `GET ${path} HTTP/1.1\r\nHost: ${target.host}\r\n${lines.join("")}\r\n`;
}

/**
 * Sends all requests at once on one connection and gives the statuses in order, as many as came before
 * the connection ended. Answers must carry a Content-Length.
 */
export async function pipelineRaw(
  target: RawTarget,
  requests: readonly string[],
  onAnswer: () => void = () => undefined,
): Promise<number[]> {
  const statuses: number[] = [];
  let socket: TLSSocket;
  try {
    socket = await openRaw(target);
  } catch {
    return statuses;
  }
  let held = "";
  await new Promise<void>((resolve) => {
    socket.on("error", () => undefined);
    socket.once("close", () => resolve());
    socket.on("data", (chunk: Buffer) => {
      held += chunk.toString("latin1");
      for (;;) {
        const headEnd = held.indexOf("\r\n\r\n");
        if (headEnd < 0) break;
        const length = Number(/\r\ncontent-length: *(\d+)/i.exec(held.slice(0, headEnd))?.[1]);
        if (held.length < headEnd + 4 + length) break;
        statuses.push(Number(held.slice(9, 12)));
        onAnswer();
        held = held.slice(headEnd + 4 + length);
      }
      if (statuses.length === requests.length) socket.destroy();
    });
    socket.write(requests.join(""));
  });
  return statuses;
}
