/** Sockets that systemd holds for the public listener and for plain HTTP: what comes meanwhile waits, and is answered. */
import { closeSync } from "node:fs";
import { connect } from "node:net";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { type DemoUpstream, startDemoUpstream } from "../../service/dev/demo-upstream.ts";
import { bindPublicSocket } from "../../service/processes/listening-socket.ts";
import { freePort } from "../support/free-port.ts";
import { childrenOf } from "../support/process-tree.ts";
import {
  type LogLine,
  prepareServe,
  type ServeChild,
  type ServeFiles,
  startServe,
} from "../support/serve-child.ts";
import { readAll } from "../support/tls-edge.ts";

/** `npm run test:nightly` has what takes long. */
const IS_LONG = process.env["PROCESS_ROUNDS"] !== undefined;

let upstream: DemoUpstream;
beforeAll(async () => {
  upstream = await startDemoUpstream();
});
afterAll(() => upstream.stop());

interface Activated {
  readonly files: ServeFiles;
  readonly start: () => ServeChild;
  /** The status of an answer to plain HTTP, or what became of the connection. */
  readonly askPlain: () => Promise<string>;
}

const HTTP = { host: "127.0.0.1", maxConnections: 100, maxConnectionsPerAddress: 100 };

/** @param http the settings of `listen.http` */
async function activated(workers: number, http = true): Promise<Activated> {
  // Where it would listen by itself nobody asks.
  const listen = http ? { listen: { http: { ...HTTP, port: await freePort() } } } : {};
  const files = await prepareServe(upstream.url, { processes: { workers } }, listen);
  onTestFinished(() => files.remove());
  const port = await freePort();
  const fds = [
    await bindPublicSocket({ host: "127.0.0.1", port }),
    await bindPublicSocket(files.config.listen),
  ];
  onTestFinished(() => {
    for (const fd of fds) closeSync(fd);
  });
  const environment = "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=http:public";
  return {
    files,
    start: () => {
      const before = ["sh", "-c", `${environment} exec "$@"`, "sh"];
      const child = startServe(files, {}, before, fds);
      onTestFinished(() => void child.process.kill("SIGKILL"));
      return child;
    },
    askPlain: async () => {
      const socket = connect(port, "127.0.0.1");
      let failure = "";
      socket.on("error", (error: Error & { code?: string }) => (failure = error.code ?? "error"));
      const answer = readAll(socket);
      socket.write(`GET /a HTTP/1.1\r\nHost: ${files.host}\r\n\r\n`);
      return failure === "" ? ((await answer).split(" ")[1] ?? "none") : failure;
    },
  };
}

const keeperOf = ({ process }: ServeChild): number =>
  childrenOf(process.pid ?? 0, "keeper")[0] ?? 0;

const isReloaded = ({ event }: LogLine): boolean =>
  event === "reloaded" || event === "reload.failed";

describe("a service on sockets of systemd", { timeout: 90_000 }, () => {
  it("answers plain HTTP with several processes, also while its keeper is replaced", async () => {
    const { askPlain, files, start } = await activated(1);
    const service = start();
    const started = await service.event("started");
    expect(started).toMatchObject({ port: files.port, activated: true, plainActivated: true });
    expect(await askPlain()).toBe("308");
    const before = keeperOf(service);

    const from = service.lines.length;
    const reloaded = service.event("reloaded", from);
    service.process.kill("SIGUSR2");
    const statuses = new Map<string, number>();
    const isReloading = (): boolean => !service.lines.slice(from).some(isReloaded);
    while (isReloading()) {
      const status = await askPlain();
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
    }
    await reloaded;
    expect([...statuses.keys()]).toEqual(["308"]);

    expect(keeperOf(service)).not.toBe(before);
    expect(await service.stop()).toBe(0);
  });

  it.skipIf(!IS_LONG)(
    "answers after its keeper has died, or its successor could not be",
    async () => {
      const { askPlain, files, start } = await activated(1);
      const service = start();
      await service.event("started");
      process.kill(keeperOf(service), "SIGKILL");
      await service.event("process.ended");
      expect(await askPlain()).toBe("308");

      // Nobody would answer what comes to the socket: the keeper that did goes on.
      const { http: _without, ...listen } = files.config.listen;
      files.write({ listen });
      service.process.kill("SIGHUP");
      expect(await service.event("reload.failed")).toMatchObject({
        code: "SERVICE_CONFIG_INVALID",
      });
      expect(await askPlain()).toBe("308");
      expect(await service.stop()).toBe(0);
    },
  );

  it("answers with one process what came before it was there, and while it was away", async () => {
    const { askPlain, start } = await activated(0);
    for (let i = 0; i < 2; i += 1) {
      const early = askPlain();
      const service = start();
      expect(await service.event("started")).toMatchObject({ plainActivated: true });
      expect(await early).toBe("308");
      expect(await service.stop()).toBe(0);
    }
  });

  it.each(IS_LONG ? [0, 1] : [0])(
    "rejects a socket that nothing is to listen on (%i workers)",
    async (workers) => {
      const { start } = await activated(workers, false);
      const service = start();
      expect(await service.exited).toBe(1);
      expect(service.errors()).toContain("needs listen.http");
    },
  );
});
