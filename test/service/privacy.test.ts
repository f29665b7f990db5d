/**
 * What the service writes down about the devices that it serves: nothing. One device goes through the whole
 * chain, with failures of each kind, and every log line and metric is searched for everything that names it.
 */
import { X509Certificate } from "node:crypto";
import { join } from "node:path";
import { decodeJwt } from "jose";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openDevice } from "../../attest/agent/index.ts";
import { type Agent, openAgent } from "../../service/agent/agent.ts";
import { openManufacturerCa, startSwtpm, type Swtpm } from "../../swtpm/index.ts";
import { formatAuthorization, parseToken } from "../../tokens/index.ts";
import { seededRandom } from "../support/attester.ts";
import { startTestSidecar, type TestSidecar } from "../support/sidecar.ts";

let target: TestSidecar;
let tpm: Swtpm;
let agent: Agent;
/** Values that must not be written, by what they are. */
const secrets = new Map<string, string>();

const PATH = "/a-private-path/of-a-visit";
const QUERY = "a-private-query";

/** As a log would write it: the text itself, or the bytes in hex, base64 and base64url. */
function note(name: string, value: string | Uint8Array): void {
  if (typeof value === "string") {
    secrets.set(name, value);
    return;
  }
  for (const encoding of ["hex", "base64", "base64url"] as const) {
    secrets.set(`${name} (${encoding})`, Buffer.from(value).toString(encoding).replace(/=+$/, ""));
  }
}

const found = (text: string): string[] =>
  [...secrets].filter(([, value]) => text.includes(value)).map(([name]) => name);

beforeAll(async () => {
  target = await startTestSidecar();
  const folder = join(target.dir, "manufacturer");
  const ca = await openManufacturerCa({ clock: Date.now, folder });
  tpm = await startSwtpm({ ca, ekAlgorithms: ["ecc"] });
  agent = await openAgent({
    attester: target.url,
    ca: target.ca,
    tcti: tpm.tcti,
    ekAlgorithm: "ecc",
    walletDir: join(target.dir, "wallet"),
    clock: Date.now,
    random: seededRandom("privacy"),
  });
});

afterAll(async () => {
  await agent.close();
  await tpm.stop();
  await target.stop();
});

async function noteTheEk(): Promise<void> {
  const device = await openDevice({ tcti: tpm.tcti, ekAlgorithm: "ecc" });
  const [der] = device.ekCertificates;
  await device.close();
  if (der === undefined) throw new Error("the device has no EK certificate");
  const certificate = new X509Certificate(der);
  note("EK certificate", der.subarray(64, 128));
  note("EK certificate's serial number", certificate.serialNumber);
  note(
    "EK public key",
    certificate.publicKey.export({ type: "spki", format: "der" }).subarray(-48),
  );
}

async function runTheChain(): Promise<void> {
  const { attestationResult } = await agent.attest();
  note("attestation result", attestationResult);
  note("its signature", attestationResult.split(".")[2] ?? "");
  const claims = decodeJwt(attestationResult);
  const { cnf } = claims as { cnf: { jwk: { x: string; y: string } } };
  note("device key x", cnf.jwk.x);
  note("device key y", cnf.jwk.y);
  for (const name of ["sub", "jti", "ueid", "eat_nonce"]) {
    const value = claims[name];
    if (typeof value === "string") note(name, value);
  }
  const { token, status } = await agent.fetch(`${target.url}${PATH}?q=${QUERY}`);
  expect(status).toBe(200);
  if (token === undefined) throw new Error("no token was asked for");
  const { nonce, authenticator } = parseToken(token);
  note("token nonce", nonce);
  note("token authenticator", authenticator.subarray(0, 32));
  const replay = { authorization: formatAuthorization(token) };
  expect((await target.get(`${PATH}?q=${QUERY}`, replay)).status).toBe(401);
  const json = { "content-type": "application/json" };
  expect((await target.post("/attest/tpm/challenge", `{"${QUERY}":1}`, json)).status).toBe(400);
  await target.sidecar.closeSpentStore();
  const failed = await target.get(PATH, { authorization: await target.mint() });
  expect(failed.status).toBe(503);
}

describe("logs and metrics", () => {
  it("G1: never hold what names a device, a token or a visit", async () => {
    note("path", PATH);
    note("query", QUERY);
    note("address", "127.0.0.1");
    await noteTheEk();
    await runTheChain();
    const metrics = await (await fetch(`${target.sidecar.operatorAddress}/metrics`)).text();
    const keys = await (await fetch(`${target.sidecar.operatorAddress}/keys`)).text();
    const written = `${target.lines.join("\n")}\n${metrics}\n${keys}`;
    // It did write something, of this very run.
    expect(target.lines.join("\n")).toContain("TOKEN_STORE_UNAVAILABLE");
    expect(metrics).toContain('stile_admissions_total{by="token"} 1');
    expect(metrics).toContain('stile_challenges_total{reason="TOKEN_ALREADY_SPENT"} 1');
    expect(secrets.size).toBeGreaterThan(20);
    expect(found(written)).toStrictEqual([]);
    // The search finds each of them where it is.
    for (const [name, value] of secrets) expect(found(`x${value}x`), name).toContain(name);
  });
});
