/** HTTP/2 by Node's own client. */
import {
  connect as connectHttp2,
  type ClientHttp2Session,
  type OutgoingHttpHeaders,
} from "node:http2";

export interface H2Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
  readonly bytes: Uint8Array;
  readonly trailers: Readonly<Record<string, unknown>>;
}

export async function openH2(port: number, ca: string): Promise<ClientHttp2Session> {
  const session = connectHttp2(`https://localhost:${port}`, { ca });
  session.on("error", () => undefined);
  await new Promise<void>((resolve, reject) => {
    session.once("connect", () => resolve());
    session.once("error", reject);
  });
  return session;
}

/** @param body without one, the head is the whole request */
export function requestH2(
  session: ClientHttp2Session,
  headers: OutgoingHttpHeaders,
  body?: string | Buffer,
): Promise<H2Answer> {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ":path": "/", ...headers }, { endStream: body === undefined });
    const chunks: Buffer[] = [];
    let head: Record<string, string | string[] | undefined> = {};
    let trailers: Record<string, unknown> = {};
    stream.once("response", (received) => {
      head = received;
    });
    stream.once("trailers", (received) => {
      trailers = { ...received };
    });
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.once("error", reject);
    stream.once("close", () =>
      resolve({
        status: Number(head[":status"]),
        headers: head,
        body: Buffer.concat(chunks).toString(),
        bytes: Uint8Array.from(Buffer.concat(chunks)),
        trailers,
      }),
    );
    if (body !== undefined) stream.end(body);
  });
}
