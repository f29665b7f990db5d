/** What a client gets where something behind the edge fails: a token that it paid is not lost. */
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CLEARANCE_COOKIE } from "../../service/edge/clearance.ts";
import { freePort } from "../support/free-port.ts";
import { openRaw, rawGet } from "../support/raw-client.ts";
import { problemIn, startTestSidecar, type TestSidecar } from "../support/sidecar.ts";
import { EXAMPLE_KEY } from "../support/websocket-example.ts";

let target: TestSidecar;
let upstreamPort: number;

async function listening(port: number): Promise<Server> {
  const server = createServer((_request, response) => response.end("back again"));
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return server;
}

beforeAll(async () => {
  upstreamPort = await freePort();
  target = await startTestSidecar({ upstreamUrl: `http://127.0.0.1:${upstreamPort}` });
});
afterAll(() => target.stop());

describe("an admitted client whose upstream is down", () => {
  it("is told so, and keeps its admission for when the upstream is back", async () => {
    const authorization = await target.mint();
    const refused = await target.get("/", { authorization });
    expect(refused.status).toBe(502);
    expect(problemIn(refused).type).toBe("urn:stile:problem:tls-upstream-unreachable");
    const cookie = refused.headers["set-cookie"]?.[0]?.split(";")[0] ?? "";
    expect(cookie).toContain(CLEARANCE_COOKIE);
    const upstream = await listening(upstreamPort);
    const admitted = await target.get("/", { cookie });
    upstream.close();
    upstream.closeAllConnections();
    expect(admitted.status).toBe(200);
    expect(Buffer.from(admitted.body).toString()).toBe("back again");
  });

  it("keeps it after a WebSocket handshake that failed, too", async () => {
    const authorization = await target.mint();
    const upgrade = { connection: "Upgrade", upgrade: "websocket", "sec-websocket-version": "13" };
    const answerTo = async (headers: Record<string, string>): Promise<string> => {
      const socket = await openRaw(target);
      socket.write(rawGet(target, "/", { ...upgrade, authorization, ...headers }));
      const [answer] = (await once(socket, "data")) as [Buffer];
      socket.destroy();
      return answer.toString();
    };
    const malformed = await answerTo({});
    expect(malformed).toMatch(/^HTTP\/1\.1 400 /);
    expect(malformed).not.toContain("Set-Cookie");
    // It spent nothing: the token is there for a handshake that is one.
    const answer = await answerTo({ "sec-websocket-key": EXAMPLE_KEY });
    expect(answer).toMatch(/^HTTP\/1\.1 502 /);
    expect(answer).toContain(`Set-Cookie: ${CLEARANCE_COOKIE}=`);
  });
});

describe("a refused client that waits for 100 Continue", () => {
  it("is told that its connection ends, so that its body is not taken for a request", async () => {
    const socket = await openRaw(target);
    const head = [
      "POST / HTTP/1.1",
      `Host: ${target.host}`,
      "Expect: 100-continue",
      "Content-Length: 40",
    ];
    socket.write(`${head.join("\r\n")}\r\n\r\n`);
    const answer = Buffer.concat(await socket.toArray()).toString();
    expect(answer).toMatch(/^HTTP\/1\.1 401 /);
    expect(answer.toLowerCase()).toContain("connection: close");
    expect(answer.split("HTTP/1.1 ")).toHaveLength(2);
  });
});
