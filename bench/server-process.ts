/**
 * The process behind `startServer`: prints its facts as one line of JSON and ends with its input.
 * Arguments: sidecar UPSTREAM_URL [SETTINGS as JSON], bare CERTIFICATE_DIR, or upstream.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import { type AddressInfo, createServer as createNetServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Config } from "../service/config/index.ts";
import { developmentCertificates } from "../service/dev/certificates.ts";
import { prepareDevelopment } from "../service/dev/development.ts";
import { createLog } from "../service/log.ts";
import { bindPublicSocket } from "../service/processes/listening-socket.ts";
import { Supervisor } from "../service/processes/supervisor.ts";
import { startSidecar } from "../service/sidecar.ts";
import type { ServerFacts, SidecarSettings } from "./servers.ts";

const HELLO = "hello\n";
const [kind, argument = "", settings = "{}"] = process.argv.slice(2);

const stop = await start();
process.stdin.resume();
process.stdin.once("end", () => void stop().then(() => process.exit(0)));

function start(): Promise<() => Promise<void>> {
  if (kind === "sidecar") return startTheSidecar(argument, JSON.parse(settings) as SidecarSettings);
  if (kind === "bare") return startBare(argument);
  return startUpstream();
}

async function startTheSidecar(
  upstream: string,
  { fastPath = true, isOpen = false, tokenTypes = [2], workers = 0 }: SidecarSettings,
): Promise<() => Promise<void>> {
  const dir = mkdtempSync(join(tmpdir(), "stile-bench-"));
  const port = await freePort();
  const { config, caFile } = await prepareDevelopment({
    dir,
    port,
    operatorListen: "127.0.0.1:0",
    upstream,
    logLevel: "silent",
    clock: Date.now,
    overrides: {
      edge: { fastPath, ...(isOpen ? { rules: [{ name: "all", action: "open" as const }] } : {}) },
      attester: { allowance: { tokens: 1_000_000, windowSeconds: 86_400 } },
      issuer: { tokenTypes },
      limits: { requestsPerMinute: 10_000_000, drainSeconds: 1 },
    },
  });
  const service = { ...config, processes: { ...config.processes, workers } };
  const stopService = workers === 0 ? await startOne(service) : await startSeveral(service);
  say({ port, ca: readFileSync(caFile, "utf8"), host: `localhost:${port}`, dir });
  return async () => {
    await stopService();
    rmSync(dir, { recursive: true, force: true });
  };
}

async function startOne(config: Config): Promise<() => Promise<void>> {
  const sidecar = await startSidecar(config, { clock: Date.now, log: createLog("silent") });
  return sidecar.stop;
}

async function startSeveral(config: Config): Promise<() => Promise<void>> {
  const supervisor = new Supervisor(config, {
    log: createLog("silent"),
    listenFd: await bindPublicSocket(config.listen),
    clock: Date.now,
    monotonicMs: () => performance.now(),
    onHopeless: () => process.exit(1),
  });
  await supervisor.start();
  return () => supervisor.stop();
}

async function startBare(certificateDir: string): Promise<() => Promise<void>> {
  const { caFile, certificateFile, keyFile } = await developmentCertificates(
    certificateDir,
    Date.now(),
  );
  const server = createHttpsServer(
    {
      cert: readFileSync(certificateFile),
      key: readFileSync(keyFile),
      minVersion: "TLSv1.3",
      ecdhCurve: "X25519MLKEM768/X25519:P-256",
      ALPNProtocols: ["http/1.1"],
    },
    (_request, response) => response.setHeader("content-length", HELLO.length).end(HELLO),
  );
  // As the sidecar's, so that connections are held as long.
  server.keepAliveTimeout = 75_000;
  const port = await listen(server);
  say({ port, ca: readFileSync(caFile, "utf8"), host: `localhost:${port}`, dir: certificateDir });
  return async () => closeNow(server);
}

async function startUpstream(): Promise<() => Promise<void>> {
  const server = createHttpServer((_request, response) =>
    response.setHeader("content-length", HELLO.length).end(HELLO),
  );
  const port = await listen(server);
  say({ port, ca: "", host: `127.0.0.1:${port}`, dir: "" });
  return async () => closeNow(server);
}

function say(facts: ServerFacts): void {
  process.stdout.write(`${JSON.stringify(facts)}\n`);
}

function listen(server: Server): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => resolve((server.address() as AddressInfo).port));
  });
}

function closeNow(server: { close(): unknown; closeAllConnections(): void }): void {
  server.close();
  server.closeAllConnections();
}

async function freePort(): Promise<number> {
  const server = createNetServer();
  const port = await listen(server);
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return port;
}
