/** What systemd is told and gives: by its own programs and a receiver in Python where there are any. */
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { exchange } from "../../service/agent/exchange.ts";
import { type DemoUpstream, startDemoUpstream } from "../../service/dev/demo-upstream.ts";
import { bindPublicSocket } from "../../service/processes/listening-socket.ts";
import {
  activatedSockets,
  connectSystemd,
  withoutSystemd,
} from "../../service/processes/systemd.ts";
import { startLoad } from "../support/process-load.ts";
import { rawGet } from "../support/raw-client.ts";
import { codeOf } from "../support/reject.ts";
import { freePort } from "../support/free-port.ts";
import { connectPlain, readAll } from "../support/tls-edge.ts";
import {
  prepareServe,
  type ServeChild,
  type ServeFiles,
  startServe,
} from "../support/serve-child.ts";

const isThere = (program: string): boolean => spawnSync("which", [program]).status === 0;
const hasReceiver = isThere("python3");
const hasActivate = hasReceiver && isThere("systemd-socket-activate");

/** Every datagram as one line; what it is bound to is not ours. */
const RECEIVER = `
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1].replace("@", "\\0", 1))
print("bound", flush=True)
while True: print(s.recv(4096).decode().replace("\\n", " "), flush=True)
`;

interface Receiver {
  readonly told: readonly string[];
  readonly next: (text: RegExp) => Promise<void>;
}

async function startReceiver(address: string): Promise<Receiver> {
  const child = spawn("python3", ["-c", RECEIVER, address], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  onTestFinished(() => void child.kill());
  const told: string[] = [];
  const lines = createInterface({ input: child.stdout });
  lines.on("line", (line) => told.push(line));
  await once(lines, "line");
  let seen = 1;
  return {
    told,
    next: async (text) => {
      const find = (): number => told.findIndex((line, i) => i >= seen && text.test(line));
      await expect.poll(find, { timeout: 20_000, message: String(text) }).toBeGreaterThan(0);
      seen = find() + 1;
    },
  };
}

describe("sd_notify", () => {
  const options = {
    pid: 7,
    monotonicNs: () => 1_234_567_890n,
    onFailure: () => failures.push("failed"),
  };
  const failures: string[] = [];

  it.skipIf(!hasReceiver).each(["path", "abstract"])(
    "reaches a socket by %s name",
    async (kind) => {
      const name = `${process.cwd()}/test-notify-${process.pid}`;
      const address = kind === "path" ? `/tmp/stile-notify-${process.pid}` : `@${name}`;
      const { next, told } = await startReceiver(address);
      onTestFinished(() => void spawnSync("rm", ["-f", address]));
      const systemd = connectSystemd({ ...options, environment: { NOTIFY_SOCKET: address } });
      systemd.reloading();
      systemd.ready();
      systemd.watchdog();
      systemd.stopping();
      await next(/^STOPPING=1$/);
      expect(told.slice(1)).toEqual([
        "RELOADING=1 MONOTONIC_USEC=1234567",
        "READY=1",
        "WATCHDOG=1",
        "STOPPING=1",
      ]);
      expect(failures).toEqual([]);
    },
  );

  it("says nothing without a socket, and tells of one that it cannot reach", () => {
    failures.length = 0;
    const sent: string[] = [];
    const sendDatagram = (): boolean => sent.push("sent") < 0;
    connectSystemd({ ...options, sendDatagram, environment: {} }).ready();
    expect([sent, failures]).toEqual([[], []]);
    for (const address of ["/nowhere/notify", "vsock:1:2", `/${"x".repeat(200)}`]) {
      connectSystemd({ ...options, environment: { NOTIFY_SOCKET: address } }).ready();
    }
    expect(failures).toHaveLength(3);
  });

  it.each([
    [{ WATCHDOG_USEC: "3000000" }, 3_000],
    [{ WATCHDOG_USEC: "3000000", WATCHDOG_PID: "7" }, 3_000],
    [{ WATCHDOG_USEC: "3000000", WATCHDOG_PID: "8" }, undefined],
    [{ WATCHDOG_USEC: "soon" }, undefined],
    [{}, undefined],
  ])("is watched as %o says", (environment, expected) => {
    expect(connectSystemd({ ...options, environment }).watchdogMs).toBe(expected);
  });
});

describe("sockets that are open already", () => {
  const open = { LISTEN_PID: "7", LISTEN_FDS: "1" };

  it("is the only one, or the one named public, and only for the process that is meant", () => {
    expect(activatedSockets(open, 7)).toEqual({ listenFd: 3 });
    expect(activatedSockets({ ...open, LISTEN_FDNAMES: "stile.socket" }, 7)).toEqual({
      listenFd: 3,
    });
    expect(activatedSockets(open, 8)).toEqual({});
    expect(activatedSockets({}, 7)).toEqual({});
    const several = { ...open, LISTEN_FDS: "3", LISTEN_FDNAMES: "other:public:more" };
    expect(activatedSockets(several, 7)).toEqual({ listenFd: 4 });
  });

  it("is that of plain HTTP where it is named http, alone or beside the public one", () => {
    expect(activatedSockets({ ...open, LISTEN_FDNAMES: "http" }, 7)).toEqual({ plainFd: 3 });
    const two = (names: string): object =>
      activatedSockets({ ...open, LISTEN_FDS: "2", LISTEN_FDNAMES: names }, 7);
    expect(two("http:public")).toEqual({ listenFd: 4, plainFd: 3 });
    expect(two("public:http")).toEqual({ listenFd: 3, plainFd: 4 });
  });

  it("rejects several that nothing tells apart", () => {
    for (const names of ["a:b", "public:public", "a:b:public", "", "http:b", "http:http"]) {
      const several = { ...open, LISTEN_FDS: "2", LISTEN_FDNAMES: names };
      expect(
        codeOf(() => activatedSockets(several, 7)),
        names,
      ).toBe("SERVICE_CONFIG_INVALID");
    }
  });

  it("are not handed down", () => {
    const environment = { ...open, NOTIFY_SOCKET: "@x", WATCHDOG_USEC: "1", PATH: "/bin" };
    expect(withoutSystemd(environment)).toEqual({ PATH: "/bin" });
  });
});

describe("one process", () => {
  let upstream: DemoUpstream;
  let files: ServeFiles;
  let plainPort: number;
  beforeAll(async () => {
    upstream = await startDemoUpstream();
    plainPort = await freePort();
    const http = {
      host: "127.0.0.1",
      port: await freePort(),
      maxConnections: 9,
      maxConnectionsPerAddress: 9,
    };
    files = await prepareServe(upstream.url, {}, { listen: { http } });
  });
  afterAll(async () => {
    files.remove();
    await upstream.stop();
  });

  it.skipIf(!hasActivate)("serves on systemd's socket, and says how it fares", async () => {
    const address = `@stile-test-${process.pid}`;
    const { next } = await startReceiver(address);
    const before = ["systemd-socket-activate", "--fdname=http:public"];
    before.push("-l", `127.0.0.1:${plainPort}`, "-l", `127.0.0.1:${files.port}`);
    for (const name of ["NOTIFY_SOCKET", "WATCHDOG_USEC", "PATH"]) before.push("-E", name);
    // The first connection is what starts it, and waits until it is answered.
    const child = startServe(files, { NOTIFY_SOCKET: address, WATCHDOG_USEC: "200000" }, before);
    const get = (): Promise<{ status: number }> =>
      exchange({ url: `https://${files.host}/`, method: "GET", headers: {}, ca: files.ca });
    await expect
      .poll(
        () =>
          get().then(
            ({ status }) => status,
            () => 0,
          ),
        { timeout: 20_000 },
      )
      .toBe(401);
    expect(await child.event("started")).toMatchObject({
      port: files.port,
      activated: true,
      plainActivated: true,
    });
    const plain = await connectPlain(plainPort);
    plain.write(`GET / HTTP/1.1\r\nHost: ${files.host}\r\n\r\n`);
    expect(await readAll(plain)).toMatch(/^HTTP\/1\.1 308 /);
    await next(/^READY=1$/);
    await next(/^WATCHDOG=1$/);
    await next(/^WATCHDOG=1$/);

    const reload = async (expected: string): Promise<object> => {
      const from = child.lines.length;
      child.process.kill("SIGHUP");
      const line = await child.event(expected, from);
      await next(/^RELOADING=1 MONOTONIC_USEC=\d+$/);
      await next(/^READY=1$/);
      return line;
    };
    await reload("reloaded");
    files.write({ log: { level: "info" }, limits: { drainSeconds: 6 } });
    expect(await reload("reload.needs-restart")).toMatchObject({
      settings: "limits.requestsPerMinute, limits.drainSeconds",
    });
    files.write({ tls: { certificateFile: 7 } });
    const failed = await reload("reload.failed");
    expect(failed).toMatchObject({ code: "SERVICE_CONFIG_INVALID" });
    expect(JSON.stringify(failed)).toContain("tls.certificateFile");
    expect((await get()).status).toBe(401);
    const code = child.stop();
    await next(/^STOPPING=1$/);
    expect(await code).toBe(0);
  });
});

/** As systemd starts a service on a socket of its own. */
const ACTIVATED = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"';

describe("several processes", () => {
  it.skipIf(process.env["PROCESS_ROUNDS"] === undefined)(
    "are started anew on the socket that systemd holds, and no request fails",
    { timeout: 120_000 },
    async () => {
      const upstream = await startDemoUpstream();
      const files = await prepareServe(upstream.url, { processes: { workers: 2 } });
      onTestFinished(async () => {
        files.remove();
        await upstream.stop();
      });
      const fd = await bindPublicSocket(files.config.listen);
      const start = (environment = {}): ServeChild =>
        startServe(files, environment, ["sh", "-c", ACTIVATED, "sh"], [fd]);
      const first = start();
      expect(await first.event("started")).toMatchObject({ activated: true });
      const target = { port: files.port, ca: files.ca, host: files.host };
      const load = startLoad(target, {
        connections: 4,
        perConnection: 20,
        tries: 1,
        next: () => ({ bytes: rawGet(target, "/.well-known/jwks.json", {}) }),
      });
      expect(await first.stop()).toBe(0);
      const address = `@stile-several-${process.pid}`;
      const { next } = await startReceiver(address);
      const second = start({ NOTIFY_SOCKET: address, WATCHDOG_USEC: "1000000" });
      await next(/^READY=1$/);
      await next(/^WATCHDOG=1$/);
      second.process.kill("SIGHUP");
      await next(/^RELOADING=1 MONOTONIC_USEC=\d+$/);
      await next(/^READY=1$/);
      const { failed, statuses } = await load.stop();
      console.log(
        `restart on systemd's socket: ${JSON.stringify([...statuses])}, ${failed} failed`,
      );
      expect([failed, [...statuses.keys()]]).toEqual([0, [200]]);
      expect(await second.stop()).toBe(0);
    },
  );
});

describe.skipIf(!isThere("systemd-analyze"))("the units of deploy/systemd", () => {
  const unit = (name: string): string => join(import.meta.dirname, "../../deploy/systemd", name);

  it("are understood by systemd", () => {
    const { stderr, stdout } = spawnSync(
      "systemd-analyze",
      ["verify", unit("stile.service"), unit("stile.socket"), unit("stile-http.socket")],
      { encoding: "utf8" },
    );
    // Paths of the machine that they are installed on are not there; nothing else may be wrong.
    const faults = `${stdout}${stderr}`.split("\n").filter((line) => /stile[.-]/.test(line));
    expect(faults.filter((line) => !line.includes("is not executable"))).toEqual([]);
  });

  it("keep the service from what it has no use for", () => {
    const args = ["security", "--offline=true", "--threshold=20", unit("stile.service")];
    // Ends with an error above the threshold: 2.0 of 10.
    const report = execFileSync("systemd-analyze", args, { encoding: "utf8" });
    expect(report).toMatch(/Overall exposure level for stile\.service/);
  });
});
