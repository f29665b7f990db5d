/** ACME against Pebble, which validates both challenges for real, and what an operator and a client see of it. */
import { execFileSync } from "node:child_process";
import { generateKeyPairSync, randomBytes, X509Certificate } from "node:crypto";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { type IncomingMessage, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { composeAcme, type ComposedAcme } from "../../service/acme/compose.ts";
import { wantedCertificates } from "../../service/acme/files.ts";
import type { AcmeConfig, Config } from "../../service/config/index.ts";
import { prepareDevelopment } from "../../service/dev/development.ts";
import { startPlainListener } from "../../service/http/plain-listener.ts";
import type { Log } from "../../service/log.ts";
import { createMetrics, type Metrics } from "../../service/metrics.ts";
import { es256KeyId } from "../../service/secrets.ts";
import { type Sidecar, startSidecar } from "../../service/sidecar.ts";
import { type Pebble, pebbleMissing, startPebble } from "../support/pebble.ts";
import { connectTls } from "../support/tls-edge.ts";
import { waitFor } from "../support/wait-for.ts";

const DAY_MS = 86_400_000;
const EAB_KEY = randomBytes(32).toString("base64url");
let dir: string;
let pebble: Pebble;
const closers: (() => Promise<void> | void)[] = [];

beforeAll(async () => {
  if (pebbleMissing) return;
  dir = mkdtempSync(join(tmpdir(), "stile-acme-"));
  // Of a hundred requests some meet it, and none so often that the client gives up: that takes ten times in a row.
  pebble = await startPebble({ nonceReject: 10, externalAccounts: { "kid-1": EAB_KEY } });
  writeFileSync(join(dir, "mac"), `${EAB_KEY}\n`);
});
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});
afterAll(async () => {
  if (pebbleMissing) return;
  await pebble.stop();
  rmSync(dir, { recursive: true, force: true });
});

const settings = (names: readonly string[], more: Partial<AcmeConfig> = {}): AcmeConfig => ({
  directoryUrl: pebble.directoryUrl,
  caFile: pebble.caFile,
  termsAgreed: true,
  contact: ["mailto:ops@stile.example"],
  certificates: [{ names, keyType: "ecdsa" }],
  challenge: "http-01",
  externalAccount: { keyId: "kid-1", hmacKeyFile: join(dir, "mac") },
  ...more,
});

function logOf(lines: string[]): Log {
  return {
    write: (level, event, fields = {}) => lines.push(JSON.stringify({ level, event, ...fields })),
    flush: () => undefined,
  };
}

interface Client extends ComposedAcme {
  /** Paths of the certificates, which also hold their keys. */
  readonly files: readonly string[];
  readonly metrics: Metrics;
  readonly lines: string[];
  readonly clock: { nowMs: number };
}

/** The client alone, with a listener for http-01 where Pebble looks. */
async function startClient(
  acme: AcmeConfig,
  { stateDir = mkdtempSync(join(dir, "state-")), isReachable = true } = {},
): Promise<Client> {
  const config = { acme, stateDir };
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const key = { privateKey, publicKey, keyId: es256KeyId(publicKey) };
  const clock = { nowMs: Date.now() };
  const metrics = createMetrics();
  const lines: string[] = [];
  const composed = await composeAcme(
    {
      clock: () => clock.nowMs,
      log: logOf(lines),
      metrics,
      onClose: (close) => closers.push(close),
      config,
      secrets: { acmeAccountKey: () => Promise.resolve(key) },
    },
    acme,
  );
  if (isReachable) {
    const { keyAuthorization } = composed;
    const observe = (): void => undefined;
    const at = { host: "127.0.0.1", port: pebble.httpPort };
    const listener = await startPlainListener(
      {
        hosts: [],
        keyAuthorization,
        observe,
        onRefused: observe,
        limits: { maxConnections: 100, maxConnectionsPerAddress: 100 },
        isSharedAddress: () => false,
        requestMs: 5_000,
        drainMs: 1,
      },
      at,
    );
    closers.push(() => listener.close());
  }
  const files = wantedCertificates(config).map(({ file }) => file);
  return { ...composed, files, metrics, lines, clock };
}

const fileOf = ({ files }: Client): string => files[0] ?? "";

async function outcomes(metrics: Metrics): Promise<Record<string, number>> {
  const { values } = await metrics.acmeOrders.get();
  return Object.fromEntries(values.map(({ labels, value }) => [String(labels.outcome), value]));
}

describe.skipIf(pebbleMissing)("http-01 at Pebble", () => {
  it("gets certificates of both key types, in spite of refused nonces, under its root", async () => {
    const names = ["a.stile.example", "b.stile.example"];
    const certificates = [
      { names, keyType: "ecdsa" as const },
      { names: ["a.stile.example"], keyType: "rsa" as const },
    ];
    const client = await startClient(settings([], { certificates }));
    expect(client.status().map(({ state }) => state)).toEqual(["missing", "missing"]);
    await client.look();
    expect(client.lines.filter((line) => line.includes('"error"'))).toEqual([]);
    expect(await outcomes(client.metrics)).toEqual({ OK: 2 });
    const rootFile = join(dir, "root.pem");
    writeFileSync(rootFile, await pebble.root());
    for (const certificateFile of client.files) {
      expect(statSync(certificateFile).mode & 0o777).toBe(0o600);
      const verify = ["verify", "-CAfile", rootFile, "-untrusted", certificateFile];
      expect(execFileSync("openssl", [...verify, certificateFile]).toString()).toContain(": OK");
    }
    const [ecdsa, rsa] = client.files.map((file) => new X509Certificate(readFileSync(file)));
    expect(ecdsa?.subjectAltName).toBe("DNS:a.stile.example, DNS:b.stile.example");
    expect([ecdsa?.publicKey.asymmetricKeyType, rsa?.publicKey.asymmetricKeyType]).toEqual([
      "ec",
      "rsa",
    ]);
    // Nothing is pending any more.
    expect(readdirSync(join(fileOf(client), "..")).sort()).toHaveLength(3);
    expect(readdirSync(join(fileOf(client), "..", "pending"))).toEqual([]);
  });

  it("renews by its clock, with another key, and asks for nothing before", async () => {
    const client = await startClient(settings(["renew.stile.example"], { renewBeforeDays: 30 }));
    await client.look();
    const first = new X509Certificate(readFileSync(fileOf(client)));
    const { notAfter = "", nextAttempt = "" } = client.status()[0] ?? {};
    expect(Date.parse(notAfter)).toBe(first.validToDate.getTime());
    const beforeDays = (Date.parse(notAfter) - Date.parse(nextAttempt)) / DAY_MS;
    expect(beforeDays).toBeGreaterThanOrEqual(30);
    expect(beforeDays).toBeLessThanOrEqual(33);

    client.clock.nowMs = Date.parse(nextAttempt) - 1;
    await client.look();
    expect(await outcomes(client.metrics)).toEqual({ OK: 1 });
    client.clock.nowMs += 1;
    await client.look();
    expect(await outcomes(client.metrics)).toEqual({ OK: 2 });
    const second = new X509Certificate(readFileSync(fileOf(client)));
    expect(second.serialNumber).not.toBe(first.serialNumber);
    expect(second.publicKey.equals(first.publicKey)).toBe(false);
  });

  it("keeps the old certificate where validation fails, says why, and comes back later each time", async () => {
    const stateDir = mkdtempSync(join(dir, "state-"));
    const acme = settings(["gone.stile.example"]);
    const good = await startClient(acme, { stateDir });
    await good.look();
    const kept = readFileSync(fileOf(good));
    for (const close of closers.splice(0).reverse()) await close();

    const client = await startClient(acme, { stateDir, isReachable: false });
    await client.look();
    expect(await outcomes(client.metrics)).toEqual({});
    const waits: number[] = [];
    for (let failures = 0; failures < 2; failures += 1) {
      client.clock.nowMs = Date.parse(client.status()[0]?.nextAttempt ?? "");
      await client.look();
      waits.push(Date.parse(client.status()[0]?.nextAttempt ?? "") - client.clock.nowMs);
    }
    expect(await outcomes(client.metrics)).toEqual({ SERVICE_ACME_CHALLENGE_FAILED: 2 });
    expect(client.status()[0]).toMatchObject({
      state: "failing",
      reason: "the ACME server could not validate gone.stile.example: connection",
    });
    expect(waits[0]).toBeGreaterThanOrEqual(300_000);
    expect(waits[1]).toBeGreaterThanOrEqual(600_000);
    expect(readFileSync(fileOf(client)).equals(kept)).toBe(true);
    // Neither a token nor a part of the account's key is in the log.
    expect(client.lines.join("\n")).not.toMatch(/[A-Za-z0-9_-]{40,}/);
  });

  it("replaces a kept file that is cut short or for another key", async () => {
    const stateDir = mkdtempSync(join(dir, "state-"));
    const acme = settings(["torn.stile.example"]);
    const first = await startClient(acme, { stateDir });
    await first.look();
    const whole = readFileSync(fileOf(first), "utf8");
    const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const otherKey = privateKey.export({ format: "pem", type: "pkcs8" });
    const torn = [whole.slice(0, -100), whole.replace(/-----BEGIN PRIVATE[^]*$/, otherKey)];
    for (const content of torn) {
      for (const close of closers.splice(0).reverse()) await close();
      writeFileSync(fileOf(first), content);
      const next = await startClient(acme, { stateDir });
      expect(next.status()[0]?.state).toBe("missing");
      await next.look();
      expect(next.status()[0]?.state).toBe("valid");
    }
  });

  it("rejects what Pebble refuses: no binding to an external account", async () => {
    const { externalAccount, ...without } = settings(["eab.stile.example"]);
    expect(externalAccount).toBeDefined();
    const client = await startClient(without);
    await client.look();
    expect(await outcomes(client.metrics)).toEqual({ SERVICE_ACME_REFUSED: 1 });
    expect(client.status()[0]?.reason).toBe("the ACME server refuses: externalAccountRequired");
  });
});

describe.skipIf(pebbleMissing)("tls-alpn-01 at Pebble, in a whole sidecar", () => {
  const names = ["stile.example", "www.stile.example"];

  async function start(): Promise<{ sidecar: Sidecar; config: Config; lines: string[] }> {
    const { config } = await prepareDevelopment({
      dir: join(dir, "sidecar"),
      port: pebble.tlsPort,
      operatorListen: "127.0.0.1:0",
      upstream: "http://127.0.0.1:9",
      logLevel: "silent",
      clock: Date.now,
      overrides: {
        acme: settings(names, { challenge: "tls-alpn-01" }),
        edge: { hosts: [`stile.example:${pebble.tlsPort}`] },
        listen: {
          http: {
            host: "127.0.0.1",
            port: pebble.httpPort,
            maxConnections: 100,
            maxConnectionsPerAddress: 100,
          },
        },
      },
    });
    const lines: string[] = [];
    const sidecar = await startSidecar(config, { clock: Date.now, log: logOf(lines) });
    closers.push(() => sidecar.stop());
    return { sidecar, config, lines };
  }

  const readyz = async ({ operatorAddress }: Sidecar): Promise<unknown> =>
    (await fetch(`${operatorAddress}/readyz`)).json();
  const shown = async (): Promise<string> => {
    const ca = await root();
    const socket = await connectTls(pebble.tlsPort, ca, { servername: "www.stile.example" });
    const serial = socket.getPeerCertificate().serialNumber;
    socket.destroy();
    return serial;
  };
  let rootPem: string | undefined;
  const root = async (): Promise<string> => (rootPem ??= await pebble.root());

  it("starts with no certificate, gets one, and serves the kept one after a restart", async () => {
    const { sidecar, lines } = await start();
    const early = shown().then(
      () => "served",
      (error: NodeJS.ErrnoException) => error.code ?? String(error),
    );
    expect(["served", "ERR_SSL_TLSV1_UNRECOGNIZED_NAME"]).toContain(await early);
    await waitFor(
      async () =>
        expect(await readyz(sidecar)).toMatchObject({
          status: "ready",
          certificates: [{ names, state: "valid" }],
        }),
      { timeout: 15_000, interval: 100 },
    );
    const serial = await shown();
    const page = await (await fetch(`${sidecar.operatorAddress}/metrics`)).text();
    expect(page).toMatch(
      /stile_certificate_not_after_timestamp_seconds\{name="stile.example",key="ecdsa"\} \d+/,
    );
    expect(page).toContain("stile_plain_http_answers_total");
    expect(page).toContain('stile_acme_orders_total{outcome="OK"} 1');
    expect(lines.join("\n")).toContain('"event":"acme","code":"OK","name":"stile.example"');
    const to = { host: "stile.example" };
    const plain = await new Promise<IncomingMessage>((resolve) =>
      request({ port: pebble.httpPort, path: "/a?b", headers: to }, resolve).end(),
    );
    const { location } = plain.resume().headers;
    expect([plain.statusCode, location]).toEqual([
      308,
      `https://stile.example:${pebble.tlsPort}/a?b`,
    ]);
    // The challenge is over: nobody gets its certificate.
    const alpn = { servername: "stile.example", ALPNProtocols: ["acme-tls/1"] };
    await expect(connectTls(pebble.tlsPort, await root(), alpn)).rejects.toMatchObject({
      code: expect.stringMatching(/NO_APPLICATION_PROTOCOL/),
    });
    await sidecar.stop();
    closers.length = 0;

    // Whatever was asked of the server now would fail, and be counted.
    await pebble.halt();
    const again = await start();
    expect(await shown()).toBe(serial);
    expect(await readyz(again.sidecar)).toMatchObject({ certificates: [{ state: "valid" }] });
    expect(await outcomes(again.sidecar.metrics)).toEqual({});
    expect(existsSync(join(again.config.stateDir, "acme"))).toBe(true);
  });
});
