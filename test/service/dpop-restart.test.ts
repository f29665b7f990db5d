/**
 * Proofs of the device key across a restart of the attester: what was seen before it is refused after it, and a
 * device that goes on with the result it has notices nothing.
 */
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { expect, it, onTestFinished } from "vitest";
import { attest, connectTransport, createDpopProof, openDevice } from "../../attest/agent/index.ts";
import { openAgent } from "../../service/agent/agent.ts";
import type { ExchangeAnswer } from "../../service/agent/exchange.ts";
import { type Sidecar, startSidecar } from "../../service/sidecar.ts";
import { openManufacturerCa, startSwtpm, type Swtpm } from "../../swtpm/index.ts";
import { MEDIA_TYPE_TOKEN_REQUEST } from "../../tokens/index.ts";
import { problemIn, startTestSidecar, type TestSidecar } from "../support/sidecar.ts";

const log = { write: () => undefined, flush: () => undefined };
const clock = Date.now;
const random = (length: number): Uint8Array => Uint8Array.from(randomBytes(length));

async function openTarget(): Promise<TestSidecar> {
  const target = await startTestSidecar();
  onTestFinished(() => target.stop());
  return target;
}

/** On the same state and port, as a new process would. */
async function restart(target: TestSidecar): Promise<Sidecar> {
  await target.sidecar.stop();
  const next = await startSidecar(target.config, { clock, log });
  onTestFinished(() => next.stop());
  return next;
}

async function openTpm({ dir }: TestSidecar): Promise<Swtpm> {
  const ca = await openManufacturerCa({ clock, folder: join(dir, "manufacturer") });
  const tpm = await startSwtpm({ ca, ekAlgorithms: ["ecc"] });
  onTestFinished(() => tpm.stop());
  return tpm;
}

async function metricsOf({ operatorAddress }: Sidecar): Promise<string> {
  return (await fetch(`${operatorAddress}/metrics`)).text();
}

/** A machine that is busy with other tests sheds load, before it looks at a proof. */
const SHED = /status 503/;
async function tokensOf(obtain: () => Promise<number>): Promise<number> {
  for (let tries = 0; tries < 50; tries += 1) {
    const got = await obtain().catch((error: unknown) => String(error));
    if (typeof got === "number") return got;
    if (!SHED.test(got)) throw new Error(got);
    await delay(100);
  }
  throw new Error("the service did not recover");
}

it("the agent's next token request is answered, by one more exchange and no new attestation", async () => {
  const target = await openTarget();
  const tpm = await openTpm(target);
  const walletDir = mkdtempSync(join(tmpdir(), "stile-wallet-"));
  onTestFinished(() => rmSync(walletDir, { recursive: true }));
  const { ca, url } = target;
  const { tcti } = tpm;
  const options = { attester: url, ca, tcti, walletDir, clock, random };
  const agent = await openAgent({ ...options, ekAlgorithm: "ecc" });
  onTestFinished(() => agent.close());
  const challenge = await agent.challengeOf(`${url}/`);
  expect(await tokensOf(() => agent.obtainTokens(challenge, 2))).toBe(2);
  expect(await metricsOf(target.sidecar)).not.toContain("ATTEST_PROOF_NONCE_REQUIRED");

  const next = await restart(target);
  expect(await tokensOf(() => agent.obtainTokens(challenge, 3))).toBe(3);
  const metrics = await metricsOf(next);
  expect(metrics).toMatch(/token_requests_total\{outcome="ATTEST_PROOF_NONCE_REQUIRED"\} [1-9]/);
  expect(metrics).toMatch(/token_requests_total\{outcome="OK"\} 1\n/);
  expect(metrics).not.toMatch(/attestations_total\{.*outcome="OK"/);
});

it("rejects a proof that was seen before it, and says what it wants instead", async () => {
  const target = await openTarget();
  const device = await openDevice({ tcti: (await openTpm(target)).tcti, ekAlgorithm: "ecc" });
  onTestFinished(() => device.close());
  const transport = await connectTransport({ origin: target.url, ca: target.ca, timeoutMs: 9_000 });
  const { attestationResult: accessToken } = await attest({ device, transport, clock });
  transport.close();
  const uri = `${target.url}/token-request`;
  const proofOf = (nonce?: string): Promise<string> =>
    createDpopProof({ device, method: "POST", uri, accessToken, nonce, clock, random });
  const send = async (dpop: string): Promise<ExchangeAnswer> => {
    const answer = await target.post("/token-request", new Uint8Array(259), {
      authorization: `DPoP ${accessToken}`,
      dpop,
      "content-type": MEDIA_TYPE_TOKEN_REQUEST,
    });
    if (answer.status !== 503) return answer;
    await delay(100);
    return send(dpop);
  };
  const typeOf = (answer: ExchangeAnswer): string =>
    `${answer.status} ${problemIn(answer).type.replace("urn:stile:problem:", "")}`;

  const seen = await proofOf();
  // What it asks for is no token of ours, which is found out after the proof.
  const believed = "422 token-type-unsupported";
  expect(typeOf(await send(seen))).toBe(believed);
  expect(typeOf(await send(seen))).toBe("401 attest-proof-invalid");
  await restart(target);
  const refused = await send(seen);
  expect(typeOf(refused)).toBe("401 attest-proof-nonce-required");
  expect(refused.headers["www-authenticate"]).toBe('DPoP error="use_dpop_nonce", algs="ES256"');
  const nonce = String(refused.headers["dpop-nonce"]);
  expect(nonce).toMatch(/^[\w-]{22}$/);
  const again = await proofOf(nonce);
  expect(typeOf(await send(again))).toBe(believed);
  expect(typeOf(await send(again))).toBe("401 attest-proof-invalid");
  expect(typeOf(await send(seen))).toBe("401 attest-proof-nonce-required");
});
