/** What stands before TLS, where workers accept and the keeper answers: the told address reaches both. */
import { once } from "node:events";
import { type AddressInfo, createServer, type Server } from "node:net";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type DemoUpstream, startDemoUpstream } from "../../service/dev/demo-upstream.ts";
import { encodeProxyHeader } from "../../tls/index.ts";
import { type Relay, startRelay } from "../support/relay.ts";
import {
  prepareServe,
  type ServeChild,
  type ServeFiles,
  startServe,
} from "../support/serve-child.ts";
import { connectPlain, exchangeRaw, readAll } from "../support/tls-edge.ts";
import { helloRecord, nameEntry, serverName } from "../tls/front/hello-builder.ts";

const OPEN = "2001:db8::5";
let upstream: DemoUpstream;
let passed: Server;
let files: ServeFiles;
let service: ServeChild;
let relay: Relay;
/** What the proxy tells with the next connection. */
let told = OPEN;

beforeAll(async () => {
  upstream = await startDemoUpstream();
  passed = createServer((socket) => socket.once("data", (data) => socket.end(`${data.length}`)));
  await once(passed.listen(0, "127.0.0.1"), "listening");
  const { port } = passed.address() as AddressInfo;
  const route = {
    names: ["pass.example"],
    upstream: `127.0.0.1:${port}`,
    proxyProtocol: "off",
    maxConnections: 10,
    connectTimeoutSeconds: 5,
    idleTimeoutSeconds: 5,
  } as const;
  files = await prepareServe(
    upstream.url,
    { processes: { workers: 2 } },
    {
      listen: { proxyProtocol: ["127.0.0.0/8"], passthrough: [route] },
      edge: { rules: [{ name: "good-network", action: "open", networks: ["2001:db8::/64"] }] },
      limits: { requestsPerMinute: 3 },
    },
  );
  service = startServe(files);
  await service.event("started");
  relay = await startRelay(files.port, (first) => {
    const end = { address: told, port: 4_242 };
    return [encodeProxyHeader("v2", { source: end, destination: end }), first];
  });
});
afterAll(async () => {
  await relay.close();
  await service.stop();
  files.remove();
  await upstream.stop();
  passed.close();
});

async function get(from: string, path: string): Promise<string> {
  told = from;
  const head = `GET ${path} HTTP/1.1\r\nHost: ${files.host}\r\nConnection: close\r\n\r\n`;
  return exchangeRaw(relay.port, files.ca, head);
}

it("is told to the upstream by each worker", async () => {
  for (let i = 0; i < 8; i += 1) {
    expect(await get(OPEN, "/")).toContain(`"x-forwarded-for": "${OPEN}"`);
  }
  expect(await get("198.51.100.1", "/")).toMatch(/^HTTP\/1.1 401 /);
});

it("is what the keeper counts by", async () => {
  const statuses: string[] = [];
  for (const from of [...Array<string>(4).fill("198.51.100.1"), "198.51.100.2"]) {
    statuses.push((await get(from, "/.well-known/jwks.json")).slice(9, 12));
  }
  expect(statuses).toStrictEqual(["200", "200", "200", "429", "200"]);
});

it("passes hosts through at each worker", async () => {
  const hello = helloRecord({ extensions: [serverName(nameEntry("pass.example"))] });
  for (let i = 0; i < 4; i += 1) {
    const socket = await connectPlain(relay.port);
    const answer = readAll(socket);
    socket.write(hello);
    expect(await answer).toBe(String(hello.length));
  }
});
