/** A worker with its keeper, both in this process: whose request it is, as the keeper sees it. */
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { connect } from "node:http2";
import { request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { checkConfig, type Config } from "../../service/config/index.ts";
import { developmentCertificates } from "../../service/dev/certificates.ts";
import { prepareDevelopment } from "../../service/dev/development.ts";
import { freePort } from "../support/free-port.ts";
import { openKeeper, openWorker } from "../support/keeper-and-workers.ts";
import { type ClientCertificate, makeCertificate } from "../support/split.ts";

/** Ends with the test. @param between what is done once the keeper serves */
async function startPair(config: Config, between = (): void => undefined): Promise<void> {
  await openKeeper(config);
  between();
  await openWorker(config, 1, config.listen.port);
}

interface Ask {
  readonly port: number;
  readonly ca: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly certificate?: ClientCertificate;
}

function ask({ body, ca, certificate, headers = {}, path, port }: Ask): Promise<[number, string]> {
  return new Promise((resolve, reject) => {
    const asked = request(
      {
        host: "127.0.0.1",
        servername: "localhost",
        port,
        path,
        method: body === undefined ? "GET" : "POST",
        headers: { host: `localhost:${port}`, ...headers },
        ca,
        agent: false,
        ...(certificate === undefined
          ? {}
          : {
              cert: readFileSync(certificate.certificateFile),
              key: readFileSync(certificate.keyFile),
            }),
      },
      (answer) => {
        void answer.toArray().then((parts: Buffer[]) => {
          resolve([answer.statusCode ?? 0, Buffer.concat(parts).toString()]);
        }, reject);
      },
    );
    asked.once("error", reject);
    asked.end(body);
  });
}

function temporaryFolder(): string {
  const dir = mkdtempSync(join(tmpdir(), "stile-worker-"));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

describe("a worker of an issuer", () => {
  it("tells the keeper which attester asks, and rejects for all others", async () => {
    const dir = temporaryFolder();
    const port = await freePort();
    const tls = await developmentCertificates(join(dir, "tls"), Date.now());
    const [ours, other] = ["ours", "other"].map((name) => makeCertificate(dir, name));
    writeFileSync(join(dir, "passphrase"), "a passphrase for tests");
    const config = checkConfig({
      role: "issuer",
      publicUrl: `https://localhost:${port}`,
      listen: { host: "127.0.0.1", port },
      operator: { listen: `unix:${join(dir, "operator.sock")}` },
      stateDir: join(dir, "state"),
      passphraseFile: join(dir, "passphrase"),
      processes: { workers: 1 },
      tls: { certificateFile: tls.certificateFile, keyFile: tls.keyFile },
      issuer: {
        attesters: [
          { name: "ours", certificateSha256: [ours?.sha256 ?? ""], tokensPerMinute: 100 },
        ],
      },
    });
    await startPair(config);
    const ca = readFileSync(tls.caFile, "utf8");
    const headers = { "content-type": "application/private-token-request" };
    const question = { port, ca, path: "/token-request", headers, body: "no token request" };
    const statusFor = async (certificate?: ClientCertificate): Promise<number> =>
      (await ask({ ...question, ...(certificate === undefined ? {} : { certificate }) }))[0];
    expect(await statusFor(ours)).toBe(422);
    expect(await statusFor(other)).toBe(403);
    expect(await statusFor()).toBe(403);
    const directory = { port, ca, path: "/.well-known/private-token-issuer-directory" };
    expect((await ask(directory))[0]).toBe(200);
  });
});

/** The status, and all values of a header. */
async function askHttp2(
  port: number,
  ca: string,
  headers: Readonly<Record<string, string>>,
): Promise<[number, unknown]> {
  const session = connect(`https://localhost:${port}`, { ca });
  onTestFinished(() => session.destroy());
  const stream = session.request({ ":path": "/.well-known/jwks.json", ...headers });
  const [answered] = (await once(stream, "response")) as [Record<string, unknown>];
  stream.resume();
  await once(stream, "close");
  return [Number(answered[":status"]), answered["content-type"]];
}

describe("a worker of an edge behind a proxy", () => {
  it("tells the keeper the client that the proxy names, and only a body that may be", async () => {
    const dir = temporaryFolder();
    const port = await freePort();
    const forEnvoy = join(dir, "envoy.sock");
    const development = await prepareDevelopment({
      dir,
      port,
      operatorListen: `unix:${join(dir, "operator.sock")}`,
      upstream: "http://127.0.0.1:1",
      logLevel: "silent",
      clock: Date.now,
      overrides: {
        listen: { trustedProxies: ["127.0.0.1"] },
        edge: { extAuthz: { listen: `unix:${forEnvoy}` } },
        limits: { requestsPerMinute: 2, drainSeconds: 1 },
      },
    });
    const { config } = development;
    const inodes: number[] = [];
    const lookAtSocket = (): void => void inodes.push(statSync(forEnvoy).ino);
    const processes = { ...config.processes, workers: 1 };
    await startPair({ ...config, processes }, lookAtSocket);
    lookAtSocket();
    // Envoy asks the keeper: a worker takes nothing from it.
    expect(inodes[1]).toBe(inodes[0]);
    const ca = readFileSync(development.caFile, "utf8");
    const statuses: number[] = [];
    for (const client of ["192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2"]) {
      const headers = { "x-forwarded-for": client };
      statuses.push((await ask({ port, ca, path: "/.well-known/jwks.json", headers }))[0]);
    }
    expect(statuses).toEqual([200, 200, 429, 200]);
    const overHttp2 = await askHttp2(port, ca, {
      "x-forwarded-for": "192.0.2.9",
      "stile-peer": "x",
    });
    expect(overHttp2).toEqual([200, "application/jwk-set+json"]);
    const headers = { "x-forwarded-for": "192.0.2.3", "content-type": "application/json" };
    const large = { port, ca, path: "/.stile/redeem", headers, body: "x".repeat(600_000) };
    const [status, problem] = await ask(large);
    expect([status, problem]).toEqual([413, expect.stringContaining("service-body-too-large")]);
    const small = { ...large, body: JSON.stringify({ token: "AA", host: "elsewhere.example" }) };
    expect((await ask(small))[0]).toBe(421);
  });
});
