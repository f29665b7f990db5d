/**
 * Pebble, an ACME server of other people (RFC 8555, RFC 8737), on loopback: it validates for real, with a name server
 * of its own at which every name is 127.0.0.1.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { exchange } from "../../service/agent/exchange.ts";
import { developmentCertificates } from "../../service/dev/certificates.ts";
import { freePort } from "./free-port.ts";

export const pebbleMissing: boolean = spawnSync("pebble", ["-h"]).error !== undefined;
if (pebbleMissing)
  console.warn("pebble is not installed: the tests with an ACME server are skipped");

export interface Pebble {
  readonly directoryUrl: string;
  /** PEM of what its own TLS is verified with. */
  readonly caFile: string;
  /** Where it validates. */
  readonly httpPort: number;
  readonly tlsPort: number;
  /** PEM of the root that it issues under. */
  readonly root: () => Promise<string>;
  /** It answers no more; its files stay. */
  readonly halt: () => Promise<void>;
  readonly stop: () => Promise<void>;
}

export interface PebbleOptions {
  /** Of good nonces that are refused, in per cent. */
  readonly nonceReject?: number;
  /** Accounts must be bound to one of these: MAC keys in base64url by identifier. */
  readonly externalAccounts?: Readonly<Record<string, string>>;
}

export async function startPebble(options: PebbleOptions = {}): Promise<Pebble> {
  const dir = mkdtempSync(join(tmpdir(), "stile-pebble-"));
  const own = await developmentCertificates(dir, Date.now());
  const port = await freePort();
  const managementPort = await freePort();
  const httpPort = await freePort();
  const tlsPort = await freePort();
  const dnsPort = await freePort();
  const configFile = join(dir, "pebble.json");
  const config = {
    listenAddress: `127.0.0.1:${port}`,
    managementListenAddress: `127.0.0.1:${managementPort}`,
    certificate: own.certificateFile,
    privateKey: own.keyFile,
    httpPort,
    tlsPort,
    externalAccountBindingRequired: options.externalAccounts !== undefined,
    externalAccountMACKeys: options.externalAccounts ?? {},
  };
  writeFileSync(configFile, JSON.stringify({ pebble: config }));
  const off = ["-http01", "", "-https01", "", "-tlsalpn01", "", "-management", ""];
  const dns = ["-dns01", `127.0.0.1:${dnsPort}`, "-defaultIPv6", "", ...off];
  const names = run("pebble-challtestsrv", dns, {});
  const server = run("pebble", ["-config", configFile, "-dnsserver", `127.0.0.1:${dnsPort}`], {
    PEBBLE_VA_NOSLEEP: "1",
    PEBBLE_AUTHZREUSE: "0",
    PEBBLE_WFE_NONCEREJECT: String(options.nonceReject ?? 0),
  });
  const ca = readFileSync(own.caFile, "utf8");
  const get = async (url: string): Promise<string> =>
    Buffer.from((await exchange({ url, method: "GET", headers: {}, ca })).body).toString();
  const halt = async (): Promise<void> => {
    await Promise.all([end(server), end(names)]);
  };
  const stop = async (): Promise<void> => {
    await halt();
    rmSync(dir, { recursive: true, force: true });
  };
  const directoryUrl = `https://localhost:${port}/dir`;
  await untilAnswers(() => get(directoryUrl), server).catch(async (error: unknown) => {
    await stop();
    throw error;
  });
  const root = (): Promise<string> => get(`https://localhost:${managementPort}/roots/0`);
  return { directoryUrl, caFile: own.caFile, httpPort, tlsPort, root, halt, stop };
}

function run(file: string, args: readonly string[], env: Record<string, string>): ChildProcess {
  return spawn(file, args, { stdio: "ignore", env: { ...process.env, ...env } });
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill("SIGKILL");
  await once(child, "exit");
}

async function untilAnswers(ask: () => Promise<unknown>, server: ChildProcess): Promise<void> {
  for (let tries = 0; tries < 200 && server.exitCode === null; tries += 1) {
    const answered = await ask().then(
      () => true,
      () => false,
    );
    if (answered) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error("pebble did not start");
}
