/** What an operator says of devices, over HTTP: a policy file, allowances of classes, revocations. */
import { X509Certificate } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { decodeJwt } from "jose";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openDevice } from "../../attest/agent/index.ts";
import { type Agent, openAgent } from "../../service/agent/agent.ts";
import { openManufacturerCa, startSwtpm, type Swtpm } from "../../swtpm/index.ts";
import { seededRandom } from "../support/attester.ts";
import { startTestSidecar, type TestSidecar } from "../support/sidecar.ts";

const POLICY = `
id: https://policy.example/2026-11
classes:
  - { name: measured, eventLog: true, tokens: 50 }
  - { name: plain, tokens: 3 }
eventLog: { mode: if-present }
`;

let folder: string;
let target: TestSidecar;
let tpm: Swtpm;
let agent: Agent;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "stile-policy-"));
  const policyFile = join(folder, "policy.yaml");
  writeFileSync(policyFile, POLICY);
  target = await startTestSidecar({
    attester: { policyFile, allowance: { tokens: 100, windowSeconds: 86_400 } },
  });
  const ca = await openManufacturerCa({
    clock: Date.now,
    folder: join(target.dir, "manufacturer"),
  });
  tpm = await startSwtpm({ ca, ekAlgorithms: ["ecc"] });
  agent = await openAgent({
    attester: target.url,
    ca: target.ca,
    tcti: tpm.tcti,
    ekAlgorithm: "ecc",
    walletDir: join(folder, "wallet"),
    clock: () => Date.now() + target.clock.offsetMs,
    random: seededRandom("policy"),
  });
});
afterAll(async () => {
  await agent.close();
  await tpm.stop();
  await target.stop();
  rmSync(folder, { recursive: true, force: true });
});

async function messageOf(work: () => Promise<unknown>): Promise<string> {
  try {
    await work();
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  return "nothing was thrown";
}

interface OperatorAnswer {
  readonly status: number;
  readonly json: unknown;
}

function operator(method: string, path: string, body?: object): Promise<OperatorAnswer> {
  return new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { "content-type": "application/json" };
    const sent = request(
      new URL(path, target.sidecar.operatorAddress),
      { method, headers },
      (answer) => {
        const parts: Buffer[] = [];
        answer.on("data", (part: Buffer) => parts.push(part));
        answer.on("end", () => {
          const text = Buffer.concat(parts).toString();
          const json: unknown = text === "" ? undefined : JSON.parse(text);
          resolve({ status: answer.statusCode ?? 0, json });
        });
      },
    );
    sent.on("error", reject);
    sent.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

const obtain = async (count: number): Promise<number> =>
  agent.obtainTokens(await target.challenge(), count);

describe("a policy file", () => {
  it("is named by results, and its classes limit the tokens", async () => {
    const { attestationResult } = await agent.attest();
    const claims = decodeJwt(attestationResult);
    expect(JSON.stringify(claims)).toContain("https://policy.example/2026-11");
    expect(await messageOf(() => obtain(4))).toContain("429");
    expect(await obtain(3)).toBe(3);
    expect(await messageOf(() => obtain(1))).toContain("429");
  });
});

describe("revocations", () => {
  it("of a device, by its EK's certificate, hold at once and until they are taken back", async () => {
    target.clock.offsetMs += 86_400_000;
    const device = await openDevice({ tcti: tpm.tcti, ekAlgorithm: "ecc" });
    const [certificate] = device.ekCertificates;
    await device.close();
    const ekCertificate = new X509Certificate(certificate ?? "").toString();
    await agent.attest();
    expect(await operator("POST", "/revocations", { kind: "device", ekCertificate })).toEqual({
      status: 204,
      json: undefined,
    });
    // The result was got before: it is of no use any more.
    expect(await messageOf(() => obtain(1))).toContain("403");
    expect(await messageOf(() => agent.attest())).toContain("is revoked here");
    const listed = await operator("GET", "/revocations");
    expect(listed.json).toMatchObject({ revocations: [{ kind: "device" }] });
    await operator("POST", "/reinstatements", { kind: "device", ekCertificate });
    expect(await operator("GET", "/revocations")).toMatchObject({ json: { revocations: [] } });
    expect(await obtain(1)).toBe(1);
  });

  it.each([
    ["a manufacturer", { kind: "manufacturer", name: "id:49424D00" }],
    ["a class", { kind: "class", name: "plain" }],
  ])("of %s refuse all of its devices", async (_name, target_) => {
    await operator("POST", "/revocations", target_);
    expect(await messageOf(() => obtain(1))).toContain("403");
    expect(await messageOf(() => agent.attest())).toContain("is revoked here");
    await operator("POST", "/reinstatements", target_);
    expect(await obtain(1)).toBe(1);
  });

  it.each([
    [{ kind: "device" }],
    [{ kind: "device", name: "short" }],
    [{ kind: "device", ekCertificate: "no certificate" }],
    [{ kind: "manufacturer", ekCertificate: "AAAA" }],
    [{ kind: "manufacturer", name: "IBM" }],
    [{ kind: "class", name: "Plain!" }],
    [{ kind: "class", name: "plain", ekCertificate: "AAAA" }],
    [{ kind: "all", name: "plain" }],
    [{ kind: "class", name: "plain", other: 1 }],
  ])("rejects %j", async (body) => {
    expect(await operator("POST", "/revocations", body)).toMatchObject({
      status: 400,
      json: { type: "urn:stile:problem:service-request-invalid" },
    });
    expect(await operator("GET", "/revocations")).toMatchObject({ json: { revocations: [] } });
  });
});
