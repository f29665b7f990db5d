/** What an attester charges a device for: the tokens that it got, whatever it asked for. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fastify from "fastify";
import { expect, it, onTestFinished } from "vitest";
import {
  type AttesterRoutesOptions,
  registerAttesterRoutes,
} from "../../service/attester/routes.ts";
import { createMetrics } from "../../service/metrics.ts";
import { type AllowanceStore, openAllowanceStore } from "../../service/stores/index.ts";
import {
  type IssuanceResult,
  MEDIA_TYPE_GENERIC_BATCH_REQUEST,
  MEDIA_TYPE_GENERIC_BATCH_RESPONSE,
} from "../../tokens/index.ts";
import { StileError } from "../../wire/index.ts";

const LIMIT = 5;
const DEVICE = { pseudonym: "a device", atMs: 1_000 };

/** An attester whose issuer would give `examined` tokens, and then does what `issue` says. */
async function statusAfter(
  examined: number,
  issue: () => Promise<IssuanceResult>,
  allowances: AllowanceStore,
): Promise<number> {
  const app = fastify();
  const options: Partial<AttesterRoutesOptions> = {
    resultVerifier: {
      verify: () =>
        Promise.resolve({
          kind: "verified-attestation-result",
          attestedBy: "tpm",
          subject: DEVICE.pseudonym,
        } as Awaited<ReturnType<AttesterRoutesOptions["resultVerifier"]["verify"]>>),
    },
    dpopVerifier: { verify: () => Promise.resolve(), nonce: () => "" },
    registry: { checkAdmissible: () => Promise.resolve(undefined) },
    classLimits: new Map(),
    issuer: { examine: () => examined, issue },
    allowances,
    clock: () => DEVICE.atMs,
    metrics: createMetrics(),
  };
  registerAttesterRoutes(app, options as AttesterRoutesOptions);
  const url = await app.listen({ host: "127.0.0.1", port: 0 });
  const answer = await fetch(`${url}/token-request`, {
    method: "POST",
    headers: { authorization: "DPoP x", "content-type": MEDIA_TYPE_GENERIC_BATCH_REQUEST },
    body: Uint8Array.of(0),
  });
  await answer.arrayBuffer();
  await app.close();
  return answer.status;
}

const issuing = (issued: number) => (): Promise<IssuanceResult> =>
  Promise.resolve({
    status: 206,
    mediaType: MEDIA_TYPE_GENERIC_BATCH_RESPONSE,
    body: Uint8Array.of(0),
    issued,
  });

async function openAllowances(): Promise<AllowanceStore> {
  const folder = mkdtempSync(join(tmpdir(), "stile-charges-"));
  const allowances = await openAllowanceStore({ folder, limit: LIMIT, windowMs: 60_000 });
  onTestFinished(async () => {
    await allowances.close();
    rmSync(folder, { recursive: true });
  });
  return allowances;
}

async function expectLeft(allowances: AllowanceStore, count: number): Promise<void> {
  expect(await allowances.charge({ ...DEVICE, count })).toEqual({ remaining: 0 });
}

it("gives back what a batch that was issued in part, or not at all, was charged", async () => {
  const allowances = await openAllowances();
  expect(await statusAfter(3, issuing(2), allowances)).toBe(206);
  const busy = new StileError("TOKEN_ISSUER_BUSY", "later");
  expect(await statusAfter(3, () => Promise.reject(busy), allowances)).toBe(500);
  await expectLeft(allowances, LIMIT - 2);
});

it("charges for a request whose key came to its time meanwhile, or withholds all", async () => {
  const allowances = await openAllowances();
  expect(await statusAfter(1, issuing(3), allowances)).toBe(206);
  expect(await statusAfter(1, issuing(3), allowances)).toBe(500);
  await expectLeft(allowances, LIMIT - 3);
});
