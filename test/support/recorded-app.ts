/** An application that remembers what reached it, requests and WebSockets. */
import { createHash } from "node:crypto";
import type { IncomingHttpHeaders, IncomingMessage } from "node:http";
import { startUpstream } from "./tls-edge.ts";

export interface Seen {
  readonly url: string;
  readonly method: string;
  readonly headers: IncomingHttpHeaders;
}

export interface RecordedApp {
  readonly port: number;
  readonly seen: Seen[];
  readonly close: () => Promise<void>;
}

/** Of RFC 6455 §1.3. */
const WEBSOCKET_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/** Answers 200 with a cookie of its own, and 404 at `/missing`. */
export async function startRecordedApp(): Promise<RecordedApp> {
  const seen: Seen[] = [];
  const note = ({ headers, method = "", url = "" }: IncomingMessage): void => {
    seen.push({ headers, method, url });
  };
  const app = await startUpstream((request, response) => {
    note(request);
    request.resume();
    response.statusCode = request.url === "/missing" ? 404 : 200;
    response.setHeader("set-cookie", "app=1").end("the application");
  });
  app.server.on("upgrade", (request, socket) => {
    note(request);
    const key = String(request.headers["sec-websocket-key"]);
    const accept = createHash("sha1").update(`${key}${WEBSOCKET_GUID}`).digest("base64");
    const lines = ["Connection: Upgrade", "Upgrade: websocket", `Sec-WebSocket-Accept: ${accept}`];
    socket.end(`HTTP/1.1 101 Switching Protocols\r\n${lines.join("\r\n")}\r\n\r\n`);
  });
  return { port: app.port, seen, close: app.close };
}
