/**
 * The log of directories from the issuer's disk to those who follow it: an auditor with the command line, an
 * edge that learns of a revoked key, an issuer that shows somebody a directory of their own, several issuers in
 * one process.
 */
import { generateKeyPairSync } from "node:crypto";
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, request as httpsRequest } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { type Agent, openAgent } from "../../service/agent/agent.ts";
import { exchange, type ExchangeAnswer } from "../../service/agent/exchange.ts";
import { directoryLogCommand } from "../../service/cli/directory-log.ts";
import { keysCommand } from "../../service/cli/keys.ts";
import { openDirectoryLog } from "../../service/keys/directory-log.ts";
import { startSwtpm, type Swtpm } from "../../swtpm/index.ts";
import {
  encodeIssuerDirectory,
  ISSUER_DIRECTORY_PATH,
  MEDIA_TYPE_TOKEN_REQUEST,
  parseIssuerDirectory,
} from "../../tokens/index.ts";
import { createNodeTokenCrypto } from "../../tokens/node/index.ts";
import { seededRandom } from "../support/attester.ts";
import { codeOfAsync } from "../support/reject.ts";
import { type Split, startSplit } from "../support/split.ts";

const crypto = createNodeTokenCrypto();
const folder = mkdtempSync(join(tmpdir(), "stile-log-"));
let split: Split;
let tpm: Swtpm;
let agent: Agent;
beforeAll(async () => {
  split = await startSplit(1_000);
  tpm = await startSwtpm({ ca: split.manufacturer, ekAlgorithms: ["ecc"] });
  agent = await openAgent({
    attester: split.url("attester"),
    ca: split.ca,
    tcti: tpm.tcti,
    ekAlgorithm: "ecc",
    walletDir: join(split.dir, "wallet"),
    clock: () => Date.now() + split.clock.offsetMs,
    random: seededRandom("log"),
  });
});
afterAll(async () => {
  await agent.close();
  await tpm.stop();
  await split.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** A command of the line, in this process. */
async function run(
  work: Promise<number>,
): Promise<{ status: number; facts: Record<string, unknown> }> {
  const out = vi.spyOn(process.stdout, "write").mockReturnValue(true);
  const err = vi.spyOn(process.stderr, "write").mockReturnValue(true);
  try {
    const status = await work;
    const text = out.mock.calls.map(([part]) => String(part)).join("");
    return { status, facts: JSON.parse(text === "" ? "{}" : text) as Record<string, unknown> };
  } finally {
    out.mockRestore();
    err.mockRestore();
  }
}

const verify = (url: string, ...words: readonly string[]): ReturnType<typeof run> =>
  run(directoryLogCommand(["verify", url, "--ca", split.caFile, "--json", ...words]));
const keys = (...words: readonly string[]): ReturnType<typeof run> => {
  const { host } = new URL(split.sidecar("issuer").operatorAddress);
  return run(keysCommand([...words, "--operator", host, "--json"]));
};
const activeKey = async (): Promise<string> => {
  const { facts } = await keys("list");
  const shown = facts["keys"] as readonly { tokenKeyId: string; state: string }[];
  return shown.find(({ state }) => state === "active")?.tokenKeyId ?? "";
};
const fetched = (path: string, headers = {}): Promise<ExchangeAnswer> =>
  exchange({ url: `${split.url("issuer")}${path}`, method: "GET", headers, ca: split.ca });

describe("the file of a directory log", () => {
  const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const key = { ...pair, keyId: "a test's" };
  const open = (path: string, signer = key): ReturnType<typeof openDirectoryLog> =>
    openDirectoryLog({ path, issuer: "issuer.example", key: signer, crypto, clock: () => 1_000 });
  const directoryOf = (n: number): Uint8Array =>
    encodeIssuerDirectory({
      issuerRequestUri: "/token-request",
      tokenKeys: [{ tokenType: 2, tokenKey: Uint8Array.of(n) }],
    });

  it("holds each directory once, and all of them after a restart", async () => {
    const path = join(folder, "restart");
    let log = await open(path);
    for (const n of [1, 1, 2, 2, 1]) await log.publish(directoryOf(n));
    await Promise.all([log.publish(directoryOf(3)), log.publish(directoryOf(3))]);
    const lines = log.linesFrom(0);
    expect(lines.split("\n")).toHaveLength(5);
    expect(log.linesFrom(3)).toBe(`${lines.split("\n")[3] ?? ""}\n`);
    await log.close();
    log = await open(path);
    expect(log.linesFrom(0)).toBe(lines);
    await log.publish(directoryOf(3));
    expect(log.linesFrom(0)).toBe(lines);
    await log.close();
  });

  it("loses no more than the line that a crash cut off", async () => {
    const path = join(folder, "torn");
    let log = await open(path);
    await log.publish(directoryOf(1));
    const lines = log.linesFrom(0);
    await log.close();
    appendFileSync(path, lines.slice(0, 100));
    log = await open(path);
    expect(log.linesFrom(0)).toBe(lines);
    await log.publish(directoryOf(2));
    await log.close();
    log = await open(path);
    expect(log.linesFrom(0).startsWith(lines)).toBe(true);
    expect(log.linesFrom(1)).not.toBe("");
    await log.close();
  });

  it("rejects a directory that lists a revoked key, and stays a log that can be followed", async () => {
    const path = join(folder, "revoked");
    let log = await open(path);
    await log.publish(directoryOf(1));
    await log.revoke(crypto.sha256(Uint8Array.of(1)));
    await log.publish(directoryOf(2));
    const lines = log.linesFrom(0);
    expect(await codeOfAsync(() => log.publish(directoryOf(1)))).toBe(
      "TOKEN_DIRECTORY_LOG_INVALID",
    );
    expect(log.linesFrom(0)).toBe(lines);
    await log.publish(directoryOf(3));
    await log.close();
    log = await open(path);
    expect(log.linesFrom(0).startsWith(lines)).toBe(true);
    expect(log.linesFrom(0).split("\n")).toHaveLength(5);
    await log.close();
  });

  it("rejects a file that was changed, or that another key has signed", async () => {
    const path = join(folder, "changed");
    const log = await open(path);
    await log.publish(directoryOf(1));
    await log.publish(directoryOf(2));
    await log.close();
    const [first = "", second = ""] = readFileSync(path, "utf8").split("\n");
    const other = { ...generateKeyPairSync("ec", { namedCurve: "P-256" }), keyId: "another" };
    expect(await codeOfAsync(() => open(path, other))).toBe("TOKEN_DIRECTORY_LOG_INVALID");
    for (const lines of [[second], [second, first], [first, first], [first, second.slice(1)]]) {
      writeFileSync(path, `${lines.join("\n")}\n`);
      expect(await codeOfAsync(() => open(path))).toBe("TOKEN_DIRECTORY_LOG_INVALID");
    }
  });
});

describe("stile directory-log verify", () => {
  it("follows an issuer through a rotation, from its own state", async () => {
    const state = join(folder, "state.json");
    const first = await verify(split.url("issuer"), "--state", state);
    expect(first).toMatchObject({ status: 0, facts: { verdict: "consistent", entries: 1 } });
    expect((await keys("rotate")).status).toBe(0);
    expect((await keys("rotate")).status).toBe(1);
    const second = await verify(split.url("issuer"), "--state", state);
    expect(second).toMatchObject({ status: 0, facts: { entries: 2, newEntries: 1 } });
    const keyId = String(second.facts["keyId"]);
    expect((await verify(split.url("issuer"), "--key-id", keyId)).status).toBe(0);
    const other = await verify(split.url("issuer"), "--key-id", "another");
    expect(other.facts["code"]).toBe("TOKEN_DIRECTORY_LOG_INVALID");
  });

  it("rejects a directory for somebody alone, a log that is cut and one that is gone", async () => {
    const state = join(folder, "known.json");
    expect((await verify(split.url("issuer"), "--state", state)).status).toBe(0);
    let forge = (path: string, body: Uint8Array): Uint8Array | undefined => {
      if (path !== ISSUER_DIRECTORY_PATH) return body;
      const { issuerRequestUri, tokenKeys } = parseIssuerDirectory(body);
      return encodeIssuerDirectory({ issuerRequestUri, tokenKeys: tokenKeys.slice(1) });
    };
    const { caFile, issuer, stop } = await mirror((path, body) => forge(path, body));
    const words = ["--issuer", new URL(split.url("issuer")).host, "--ca", caFile, "--json"];
    const ask = (...more: readonly string[]): ReturnType<typeof run> =>
      run(directoryLogCommand(["verify", issuer, ...words, ...more]));
    const alone = await ask();
    expect(alone.status).toBe(1);
    expect(alone.facts["reason"]).toContain("not the newest of its log");
    forge = (path, body) => (path.includes("directory-log") ? body.subarray(0, 900) : body);
    expect((await ask()).facts["code"]).toBe("TOKEN_DIRECTORY_LOG_INVALID");
    forge = (path, body) => (path.includes("directory-log") ? undefined : body);
    expect((await ask()).facts["reason"]).toContain("keeps no log");
    expect((await ask("--state", state)).facts["reason"]).toContain("any more");
    forge = (path, body) => (path.includes("jwks") ? Buffer.from('{"keys":[]}') : body);
    expect((await ask()).facts["reason"]).toContain("the key of its log");
    forge = (_path, body) => body;
    expect((await ask()).status).toBe(0);
    await stop();
  });

  /** The issuer as it is seen through somebody who changes what it says; undefined is a 404. */
  async function mirror(
    forge: (path: string, body: Uint8Array) => Uint8Array | undefined,
  ): Promise<{ issuer: string; caFile: string; stop: () => Promise<void> }> {
    const server = createServer(
      { cert: readFileSync(split.certificateFile), key: readFileSync(split.keyFile) },
      (request, response) => {
        const path = request.url ?? "";
        void fetched(path).then(({ body, headers, status }) => {
          const forged = forge(path, body);
          response.writeHead(forged === undefined ? 404 : status, {
            "content-type": headers["content-type"] ?? "",
          });
          response.end(forged);
        });
      },
    );
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    return {
      issuer: `https://localhost:${port}`,
      caFile: split.caFile,
      stop: () => new Promise((resolve) => server.close(() => resolve())),
    };
  }
});

describe("an edge that follows an issuer", () => {
  it("takes no token of a revoked key any more, once it has asked", async () => {
    await agent.obtainTokens(await agent.challengeOf(`${split.url("edge")}/`), 3);
    expect((await agent.fetch(`${split.url("edge")}/`)).status).toBe(200);
    const revoked = await activeKey();
    expect((await keys("revoke", revoked)).status).toBe(0);
    expect((await keys("revoke", revoked)).status).toBe(1);
    await split.stopRole("edge");
    await split.startRole("edge");
    // The successor's not-before is the next whole second.
    split.clock.offsetMs += 1_000;
    const refused = await agent.fetch(`${split.url("edge")}/`);
    expect(refused.status).toBe(401);
    expect(split.lines("edge").join()).toContain(`"keys.revoked"`);
    // And not after a restart that finds the issuer away.
    await split.stopRole("issuer");
    await split.stopRole("edge");
    await split.startRole("edge");
    expect((await agent.fetch(`${split.url("edge")}/`)).status).toBe(401);
    await split.startRole("issuer");
    await agent.obtainTokens(await agent.challengeOf(`${split.url("edge")}/`), 1);
    expect((await agent.fetch(`${split.url("edge")}/`)).status).toBe(200);
  });
});

describe("several issuers in one process", () => {
  it("have keys, directories and logs of their own, and their own attesters", async () => {
    const attesters = [
      { name: "ours", certificateSha256: [split.certificate.sha256], tokensPerMinute: 10 },
    ];
    const tenants = [{ name: "open.example" }, { name: "closed.example", attesters: [] }];
    await split.stopRole("issuer");
    await split.startRole("issuer", { issuer: { attesters, tenants } });
    const own = await fetched(ISSUER_DIRECTORY_PATH);
    const bodies = [Buffer.from(own.body).toString()];
    for (const { name } of tenants) {
      const answer = await fetched(ISSUER_DIRECTORY_PATH, { host: name });
      expect(answer.status).toBe(200);
      bodies.push(Buffer.from(answer.body).toString());
      const log = await fetched("/.stile/directory-log", { host: name });
      expect(Buffer.from(log.body).toString().split("\n")).toHaveLength(2);
    }
    expect(new Set(bodies).size).toBe(3);
    expect((await fetched(ISSUER_DIRECTORY_PATH, { host: "other.example" })).status).toBe(421);
    const { facts } = await keys("list");
    const names = (facts["keys"] as readonly { issuer: string }[]).map(({ issuer }) => issuer);
    expect(new Set(names)).toEqual(
      new Set([new URL(split.url("issuer")).host, "open.example", "closed.example"]),
    );
    expect((await keys("rotate", "--issuer", "open.example")).status).toBe(0);
    expect((await keys("rotate", "--issuer", "no.example")).status).toBe(1);
    const statuses: number[] = [];
    for (const host of ["open.example", "closed.example", "other.example"]) {
      statuses.push(await ask(host));
    }
    // 422: an empty body is no token request.
    expect(statuses).toEqual([422, 403, 421]);
  });

  it("rejects tenants that share a name or name an attester that there is not", async () => {
    await split.stopRole("issuer");
    const attesters = [{ name: "ours", certificateSha256: [split.certificate.sha256] }];
    const { host } = new URL(split.url("issuer"));
    for (const tenants of [
      [{ name: "a.example" }, { name: "a.example" }],
      [{ name: host }],
      [{ name: "a.example", attesters: ["theirs"] }],
      [{ name: "Not a name" }],
    ]) {
      const start = (): Promise<void> =>
        split.startRole("issuer", { issuer: { attesters, tenants } });
      expect(await codeOfAsync(start)).toBe("SERVICE_CONFIG_INVALID");
    }
    await split.startRole("issuer");
  });

  async function ask(host: string): Promise<number> {
    const { certificateFile, keyFile } = split.certificate;
    return new Promise((resolve, reject) => {
      const sent = httpsRequest(
        `${split.url("issuer")}/token-request`,
        {
          method: "POST",
          headers: { host, "content-type": MEDIA_TYPE_TOKEN_REQUEST },
          ca: split.ca,
          cert: readFileSync(certificateFile),
          key: readFileSync(keyFile),
          servername: "localhost",
        },
        (answer) => {
          answer.resume();
          resolve(answer.statusCode ?? 0);
        },
      );
      sent.once("error", reject);
      sent.end();
    });
  }
});
