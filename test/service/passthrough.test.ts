/** Hosts that a sidecar passes through undecrypted: what it counts and writes down. */
import { once } from "node:events";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTestSidecar, type TestSidecar } from "../support/sidecar.ts";
import { connectPlain, readAll } from "../support/tls-edge.ts";
import { helloRecord, nameEntry, serverName } from "../tls/front/hello-builder.ts";
import { waitFor } from "../support/wait-for.ts";

describe("a sidecar with a host that is passed through", () => {
  const sockets: Socket[] = [];
  let target: TestSidecar;
  let server: Server;
  beforeAll(async () => {
    server = createServer((socket) => {
      sockets.push(socket);
      socket.once("data", () => socket.end("not decrypted"));
    });
    await once(server.listen(0, "127.0.0.1"), "listening");
    const upstream = `localhost:${(server.address() as AddressInfo).port}`;
    const route = {
      names: ["*.pass.example"],
      upstream,
      proxyProtocol: "off",
      maxConnections: 10,
      connectTimeoutSeconds: 1,
      idleTimeoutSeconds: 1,
    } as const;
    target = await startTestSidecar({ listen: { passthrough: [route] } });
  });
  afterAll(async () => {
    for (const socket of sockets) socket.destroy();
    server.close();
    await target.stop();
  });

  it("forwards it, counts it, and writes down its program, never whose it is", async () => {
    const socket = await connectPlain(target.port);
    const answer = readAll(socket);
    const hello = helloRecord({ extensions: [serverName(nameEntry("secret-name.pass.example"))] });
    socket.write(hello);
    expect(await answer).toBe("not decrypted");
    await waitFor(() => expect(target.lines.join("")).toContain("passthrough.ended"));
    const line = target.lines.find((text) => text.includes("passthrough.ended")) ?? "";
    expect(JSON.parse(line)).toStrictEqual({
      level: "info",
      event: "passthrough.ended",
      name: "*.pass.example",
      outcome: "passthrough",
      ja4: expect.stringMatching(/^t12d010100_[0-9a-f]{12}_000000000000$/) as unknown,
      receivedBytes: hello.length,
      sentBytes: "not decrypted".length,
    });
    const metrics = await target.sidecar.metrics.registry.metrics();
    expect(metrics).toContain('stile_tls_events_total{event="passthrough"} 1');
    expect(`${target.lines.join("")}${metrics}`).not.toMatch(/secret-name|127\.0\.0\.1/);
    // And its own host is its own.
    expect((await target.get("/")).status).toBe(401);
  });
});
