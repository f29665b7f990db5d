/** What the supervisor stands on: a socket that it holds without accepting, and children that may not start. */
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { describe, expect, it, onTestFinished } from "vitest";
import type { Config } from "../../service/config/index.ts";
import { startDemoUpstream } from "../../service/dev/demo-upstream.ts";
import { Child } from "../../service/processes/child.ts";
import { bindPublicSocket } from "../../service/processes/listening-socket.ts";
import type { StartMessage } from "../../service/processes/messages.ts";
import {
  isKeepersSetting,
  keeperConfig,
  needsRestart,
  workerConfig,
} from "../../service/processes/process-settings.ts";
import { changedSettings } from "../../service/processes/settings.ts";
import { encodePeer, parsePeer } from "../../service/processes/told-peer.ts";
import { freePort } from "../support/free-port.ts";
import { codeOf, codeOfAsync } from "../support/reject.ts";
import { prepareServe, startServe } from "../support/serve-child.ts";

const KEY = "ab".repeat(32);

describe("the public socket", () => {
  it("is held without accepting: who connects waits until somebody listens on it", async () => {
    const port = await freePort();
    const fd = await bindPublicSocket({ host: "127.0.0.1", port });
    const client = connect(port, "127.0.0.1");
    await once(client, "connect");
    client.end("early");
    const server = createServer().listen({ fd });
    onTestFinished(() => void server.close());
    const [accepted] = (await once(server, "connection")) as [Socket];
    expect(Buffer.concat(await accepted.toArray()).toString()).toBe("early");
  });

  it("rejects an address that is taken", async () => {
    const taken = createServer().listen(0, "127.0.0.1");
    await once(taken, "listening");
    onTestFinished(() => void taken.close());
    const { port } = taken.address() as AddressInfo;
    const bind = (): Promise<number> => bindPublicSocket({ host: "127.0.0.1", port });
    expect(await codeOfAsync(bind)).toBe("SERVICE_CONFIG_INVALID");
    await once(connect(port, "127.0.0.1"), "connect");
  });
});

describe("a child", () => {
  it("rejects whoever waits for it where it ends before", async () => {
    const start = { kind: "start", role: "keeper", id: 1, linkKey: KEY } as unknown as StartMessage;
    const child = new Child({ start, monotonicMs: () => performance.now() });
    child.kill();
    expect(await codeOfAsync(() => child.until("loaded"))).toBe("SERVICE_PROCESS_FAILED");
    expect(await child.gone).toBe("crash");
  });

  it("ends the start of the service with its own reason", async () => {
    const upstream = await startDemoUpstream();
    const files = await prepareServe(upstream.url, { processes: { workers: 1 } });
    onTestFinished(async () => {
      files.remove();
      await upstream.stop();
    });
    files.write({ passphraseFile: "/nowhere" });
    const child = startServe(files);
    expect(await child.exited).toBe(1);
    expect(child.errors()).toContain("SERVICE_CONFIG_INVALID");
    expect(child.errors()).toContain("/nowhere");
  });
});

describe("what a worker tells of its client", () => {
  const peer = {
    address: "2001:db8::1",
    tlsExporter: new Uint8Array(32).fill(3),
    certificateSha256: "cd".repeat(32),
  };

  it("is believed with the key of this start alone", () => {
    expect(parsePeer(KEY, encodePeer(KEY, peer))).toEqual(peer);
    const nothing = { address: undefined, tlsExporter: undefined, certificateSha256: undefined };
    expect(parsePeer(KEY, encodePeer(KEY, nothing))).toEqual(nothing);
    const others = [
      encodePeer("cd".repeat(32), peer),
      encodePeer("", peer),
      encodePeer(KEY.slice(2), peer),
      Buffer.from("{}").toString("base64url"),
      Buffer.from("null").toString("base64url"),
      "%",
      undefined,
      [encodePeer(KEY, peer), encodePeer(KEY, peer)],
    ];
    for (const header of others) {
      expect(codeOf(() => parsePeer(KEY, header))).toBe("SERVICE_PROXY_UNTRUSTED");
    }
  });
});

describe("settings", () => {
  it("are for the keeper unless they are known to be a worker's", async () => {
    const files = await prepareServe("http://127.0.0.1:1", {});
    onTestFinished(files.remove);
    const { config } = files;
    const { edge } = config;
    const after = {
      ...config,
      listen: { ...config.listen, port: 1 },
      processes: { ...config.processes, workers: 2 },
      limits: { ...config.limits, drainSeconds: 9, requestsPerMinute: 3 },
      ...(edge === undefined ? {} : { edge: { ...edge, maxUpstreamRequests: 7, hosts: ["a"] } }),
    };
    const changed = changedSettings(config, after);
    expect([...changed].sort()).toEqual([
      "edge.hosts",
      "edge.maxUpstreamRequests",
      "limits.drainSeconds",
      "limits.requestsPerMinute",
      "listen.port",
      "processes.workers",
    ]);
    expect(needsRestart(changed, after)).toEqual(["listen.port"]);
    expect(needsRestart([], config)).toEqual(["processes.workers"]);
    expect(changed.filter(isKeepersSetting).sort()).toEqual([
      "edge.hosts",
      "limits.requestsPerMinute",
      "listen.port",
    ]);
    expect(workerConfig(after).edge?.maxUpstreamRequests).toBe(4);
    expect(workerConfig(after).tls.maxConnections).toBe(config.tls.maxConnections / 2);
  });

  it("that bound the service are shared out among its workers", async () => {
    const rates = { above: 50, below: 10 };
    const adaptive = {
      unadmitted: rates,
      slow: { afterMs: 2_000, above: 5, below: 1 },
      failures: { above: 4, below: 0.02 },
      windowSeconds: 10,
      challengeSeconds: 60,
      calmSeconds: 30,
    };
    const tls = { maxConnectionsPerAddress: 10, maxHandshakesPerAddress: 2, maxHandshakes: 9 };
    const files = await prepareServe(
      "http://127.0.0.1:1",
      {},
      { edge: { mode: "adaptive", adaptive }, tls },
    );
    onTestFinished(files.remove);
    const of = (workers: number): Config =>
      workerConfig({ ...files.config, processes: { ...files.config.processes, workers } });
    expect(of(1)).toMatchObject({ tls, edge: { adaptive } });
    const { edge, tls: shared } = of(4);
    // Rounded up: nothing becomes zero, and all together are at least what is configured.
    expect(shared).toMatchObject({
      maxConnectionsPerAddress: 3,
      maxHandshakesPerAddress: 1,
      maxHandshakes: 3,
    });
    expect(edge?.adaptive).toEqual({
      ...adaptive,
      unadmitted: { above: 12.5, below: 2.5 },
      slow: { afterMs: 2_000, above: 1.25, below: 0.25 },
      failures: { above: 1, below: 0.005 },
    });
    expect(keeperConfig(files.config).edge).not.toHaveProperty("adaptive");
  });
});
