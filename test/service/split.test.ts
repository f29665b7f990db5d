/** Edge, attester and issuer apart: the whole chain, who is refused, what each may know, what survives. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { request } from "node:http";
import { Agent as HttpsAgent, createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { decodeJwt } from "jose";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { type Agent, openAgent } from "../../service/agent/agent.ts";
import { exchange, type ExchangeAnswer } from "../../service/agent/exchange.ts";
import { createRemoteIssuer } from "../../service/attester/remote-issuer.ts";
import { checkConfig } from "../../service/config/index.ts";
import { startSwtpm, type Swtpm } from "../../swtpm/index.ts";
import { MEDIA_TYPE_TOKEN_REQUEST, type ReceivedChallenge } from "../../tokens/index.ts";
import { encodeBase64Url, encodeHex } from "../../wire/index.ts";
import { seededRandom } from "../support/attester.ts";
import { codeOf, codeOfAsync } from "../support/reject.ts";
import { problemIn } from "../support/sidecar.ts";
import { makeCertificate, type Split, startSplit } from "../support/split.ts";

const QUOTA = 40;
let split: Split;
let tpm: Swtpm;
let agent: Agent;
beforeAll(async () => {
  split = await startSplit(QUOTA);
  tpm = await startSwtpm({ ca: split.manufacturer, ekAlgorithms: ["ecc"] });
  agent = await openAgent({
    attester: split.url("attester"),
    ca: split.ca,
    tcti: tpm.tcti,
    ekAlgorithm: "ecc",
    walletDir: join(split.dir, "wallet"),
    clock: () => Date.now() + split.clock.offsetMs,
    random: seededRandom("split"),
  });
});
afterAll(async () => {
  await agent.close();
  await tpm.stop();
  await split.stop();
});

const challenge = (): Promise<ReceivedChallenge> => agent.challengeOf(`${split.url("edge")}/`);
const obtain = async (count: number): Promise<number> =>
  agent.obtainTokens(await challenge(), count);
/** A new window for quotas and allowances. */
const nextMinute = (): void => {
  split.clock.offsetMs += 60_000;
};

async function messageOf(work: () => Promise<unknown>): Promise<string> {
  try {
    await work();
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  return "nothing was thrown";
}

function operator(method: "GET" | "POST", path: string): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const url = new URL(path, split.sidecar("issuer").operatorAddress);
    const sent = request(url, { method }, (answer) => {
      const parts: Buffer[] = [];
      answer.on("data", (part: Buffer) => parts.push(part));
      answer.on("end", () =>
        resolve({ status: answer.statusCode ?? 0, text: Buffer.concat(parts).toString() }),
      );
    });
    sent.on("error", reject);
    sent.end();
  });
}

async function metricsOf(role: "edge" | "attester" | "issuer"): Promise<string> {
  return split.sidecar(role).metrics.registry.metrics();
}

describe("three sidecars", () => {
  it("admit an attested device, and forget nothing that was spent", async () => {
    const answer = await agent.fetch(`${split.url("edge")}/hello`);
    expect(answer.status).toBe(200);
    expect(answer.token).toBeDefined();
    const authorization = `PrivateToken token="${encodeBase64Url(answer.token ?? new Uint8Array(), "padded")}"`;
    const again = await exchange({
      url: `${split.url("edge")}/`,
      method: "GET",
      headers: { authorization },
      ca: split.ca,
    });
    expect(problemIn(again).type).toBe("urn:stile:problem:token-already-spent");
  });

  it("know of each other only what their role is for", async () => {
    const { attestationResult } = await agent.attest();
    const { cnf, sub } = decodeJwt(attestationResult);
    const answer = await agent.fetch(`${split.url("edge")}/seen-by-the-edge`);
    const token = answer.token ?? new Uint8Array();
    const nonce = token.subarray(2, 34);
    const jwk = (cnf as { jwk: { x: string; y: string } }).jwk;
    const names = [
      attestationResult,
      sub ?? "",
      jwk.x,
      jwk.y,
      encodeBase64Url(token),
      encodeBase64Url(nonce),
      encodeHex(nonce),
      "seen-by-the-edge",
      "127.0.0.1",
    ];
    for (const role of ["edge", "attester", "issuer"] as const) {
      const known = [...split.lines(role), await metricsOf(role)].join("\n");
      expect(known.length).toBeGreaterThan(1_000);
      for (const name of names) expect(known.includes(name), `${role} knows ${name}`).toBe(false);
    }
    // Nor do they have each other's endpoints.
    const paths = {
      edge: ["/token-request", "/attest/tpm/challenge"],
      attester: ["/.well-known/private-token-issuer-directory", "/.stile/redeem", "/"],
      issuer: ["/attest/tpm/challenge", "/.stile/redeem", "/.well-known/jwks.json", "/"],
    };
    for (const role of ["edge", "attester", "issuer"] as const) {
      for (const path of paths[role]) {
        const url = `${split.url(role)}${path}`;
        const refused = await exchange({ url, method: "POST", headers: {}, ca: split.ca });
        expect(refused.status, `${role} ${path}`).toBe(404);
      }
    }
  });

  it("send the issuer the bytes of a request and nothing else", async () => {
    const seen: { headers: string[]; body: Buffer }[] = [];
    const { certificateFile, keyFile } = split.certificate;
    const spy = createServer(
      {
        cert: readFileSync(join(split.dir, "tls", "server.pem")),
        key: readFileSync(join(split.dir, "tls", "server.key")),
      },
      (received, response) => {
        const parts: Buffer[] = [];
        received.on("data", (part: Buffer) => parts.push(part));
        received.on("end", () => {
          seen.push({ headers: Object.keys(received.headers), body: Buffer.concat(parts) });
          response.writeHead(422).end();
        });
      },
    ).listen(0);
    onTestFinished(() => void spy.close());
    const { port } = spy.address() as AddressInfo;
    await split.stopRole("attester");
    const issuer = { url: `https://localhost:${port}`, caFile: split.caFile };
    const files = { certificateFile, keyFile, timeoutSeconds: 5 };
    const manufacturerRootsFile = join(split.dir, "roots.pem");
    const attester = { manufacturerRootsFile, issuer: { ...issuer, ...files } };
    await split.startRole("attester", { attester });
    try {
      expect(await messageOf(() => obtain(2))).toContain("422");
    } finally {
      await split.stopRole("attester");
      await split.startRole("attester");
    }
    expect(seen).toHaveLength(1);
    expect(seen[0]?.headers.toSorted()).toEqual([
      "accept",
      "connection",
      "content-length",
      "content-type",
      "host",
    ]);
    // Two requests of 259 bytes, and what counts them.
    expect(seen[0]?.body.length).toBeLessThan(2 * 259 + 8);
  });
});

describe("an issuer", () => {
  async function ask(
    client: { certificateFile: string; keyFile: string } | undefined,
  ): Promise<ExchangeAnswer> {
    const certificate = client && {
      cert: readFileSync(client.certificateFile),
      key: readFileSync(client.keyFile),
    };
    const connection = new HttpsAgent({ ...certificate });
    onTestFinished(() => connection.destroy());
    return exchange({
      url: `${split.url("issuer")}/token-request`,
      method: "POST",
      headers: { "content-type": MEDIA_TYPE_TOKEN_REQUEST },
      body: new Uint8Array(259),
      ca: split.ca,
      agent: connection,
    });
  }

  it("rejects whoever shows no certificate, or one that it does not trust", async () => {
    for (const client of [undefined, makeCertificate(split.dir, "stranger")]) {
      const answer = await ask(client);
      expect(answer.status).toBe(403);
      expect(problemIn(answer).type).toBe("urn:stile:problem:token-attester-refused");
    }
    expect((await ask(split.certificate)).status).toBe(422);
  });

  it("rejects a certificate whose key is not at hand", async () => {
    const { certificateFile } = split.certificate;
    const { keyFile } = makeCertificate(split.dir, "thief");
    await expect(ask({ certificateFile, keyFile })).rejects.toThrow();
  });

  it("can switch an attester off and on again, also across a restart", async () => {
    expect((await operator("POST", "/attesters/ours/disable")).status).toBe(204);
    expect(await messageOf(() => obtain(1))).toContain("503");
    expect((await ask(split.certificate)).status).toBe(403);
    await split.stopRole("issuer");
    await split.startRole("issuer");
    expect((await ask(split.certificate)).status).toBe(403);
    expect(JSON.parse((await operator("GET", "/attesters")).text)).toEqual({
      attesters: [{ name: "ours", enabled: false }],
    });
    expect((await operator("POST", "/attesters/theirs/disable")).status).toBe(404);
    expect((await operator("POST", "/attesters/ours/enable")).status).toBe(204);
    expect(await obtain(1)).toBe(1);
  });

  it("holds an attester to its quota", async () => {
    nextMinute();
    expect(await obtain(QUOTA)).toBe(QUOTA);
    expect(await messageOf(() => obtain(1))).toContain("503");
    expect(await metricsOf("issuer")).toContain('outcome="TOKEN_ATTESTER_QUOTA_EXCEEDED"');
    nextMinute();
    expect(await obtain(1)).toBe(1);
  });

  it("that is down stops issuance and not redemption", async () => {
    await agent.fetch(`${split.url("edge")}/`);
    await split.stopRole("issuer");
    expect(await messageOf(() => obtain(1))).toContain("503");
    expect((await agent.fetch(`${split.url("edge")}/`)).status).toBe(200);
    await split.stopRole("edge");
    await split.startRole("edge");
    expect((await agent.fetch(`${split.url("edge")}/`)).status).toBe(200);
    await split.startRole("issuer");
    expect(await obtain(1)).toBe(1);
  });
});

describe("an edge", () => {
  it("follows the rotation of its issuer's keys, and redeems under the old ones", async () => {
    const before = await challenge();
    await agent.obtainTokens(before, 2);
    // The successor is published within the first step, and the old key has ended after the second.
    for (const hours of [156, 36]) {
      split.clock.offsetMs += hours * 3_600_000;
      for (const role of ["issuer", "edge"] as const) {
        await split.stopRole(role);
        await split.startRole(role);
      }
    }
    const after = await challenge();
    const keyId = (key: Uint8Array | undefined): string =>
      createHash("sha256")
        .update(key ?? "")
        .digest("hex");
    expect(keyId(after.tokenKey)).not.toBe(keyId(before.tokenKey));
    const old = await agent.fetch(`${split.url("edge")}/`);
    expect(old.status).toBe(200);
    expect(encodeHex((old.token ?? new Uint8Array()).subarray(66, 98))).toBe(
      keyId(before.tokenKey),
    );
    expect(await obtain(1)).toBe(1);
  });

  it("does not start without keys", async () => {
    const edge = {
      hosts: ["localhost"],
      issuerName: "localhost",
      upstream: split.upstream.url,
      issuer: { url: "https://localhost:1", refreshSeconds: 10 },
    };
    const stateDir = join(split.dir, "another");
    await split.stopRole("edge");
    expect(await codeOfAsync(() => split.startRole("edge", { edge, stateDir }))).toBe(
      "TOKEN_ISSUER_UNAVAILABLE",
    );
    await split.startRole("edge");
  });
});

describe("a role", () => {
  const common = {
    publicUrl: "https://a.example",
    passphraseFile: "p",
    tls: { certificateFile: "c", keyFile: "k" },
  };
  const edge = { hosts: ["a"], issuerName: "a", upstream: "http://127.0.0.1:1" };
  const followed = { url: "https://issuer.example" };
  const attester = { manufacturerRootsFile: "r" };
  const attesters = [{ name: "a", certificateSha256: ["00".repeat(32)] }];
  const remote = { url: "https://issuer.example", certificateFile: "c", keyFile: "k" };

  it.each<[string, object]>([
    ["missing setting edge", {}],
    ["missing setting attester", { edge }],
    ["edge.issuer is not for the role joint", { edge: { ...edge, issuer: followed }, attester }],
    ["missing setting edge.issuer", { role: "edge", edge }],
    [
      "attester is not for the role edge",
      { role: "edge", edge: { ...edge, issuer: followed }, attester },
    ],
    ["missing setting attester.issuer", { role: "attester", attester }],
    [
      "edge is not for the role attester",
      { role: "attester", attester: { ...attester, issuer: remote }, edge },
    ],
    ["missing setting issuer.attesters", { role: "issuer" }],
    ["issuer.attesters is not for the role joint", { edge, attester, issuer: { attesters } }],
  ])("rejects: %s", (told, settings) => {
    expect(codeOf(() => checkConfig({ ...common, ...settings }))).toBe("SERVICE_CONFIG_INVALID");
    expect(() => checkConfig({ ...common, ...settings })).toThrow(told);
  });

  it("of an attester rejects a certificate that cannot be read", () => {
    const config = { ...remote, certificateFile: "/nowhere", timeoutSeconds: 1 };
    const limits = { maxItems: 1, maxBytes: 1 };
    expect(codeOf(() => createRemoteIssuer({ config, limits }))).toBe("SERVICE_CONFIG_INVALID");
  });
});
