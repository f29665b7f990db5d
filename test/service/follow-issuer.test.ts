/** An edge that follows an issuer whose answers are slow, or hold keys that no edge may have. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import type { ServerResponse } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterEach, beforeEach, expect, it } from "vitest";
import { type FollowedKeys, followIssuer } from "../../service/edge/follow-issuer.ts";
import { createMetrics } from "../../service/metrics.ts";
import {
  encodeIssuerDirectory,
  ISSUER_DIRECTORY_PATH,
  MEDIA_TYPE_ISSUER_DIRECTORY,
} from "../../tokens/index.ts";
import { createNodeTokenCrypto } from "../../tokens/node/index.ts";
import { makeCertificate } from "../support/split.ts";

const REFRESH_SECONDS = 0.02;
/** What the issuer lists, and how long it takes to say so. */
let listed: readonly number[] = [];
let answerMs = 0;
/** Requests for its directory that have no answer yet: now, and most of them. */
let open = 0;
let mostOpen = 0;
let events: string[];
let folder: string;
let closers: (() => unknown)[];
let url: string;

beforeEach(async () => {
  [listed, answerMs, open, mostOpen, events, closers] = [[1], 0, 0, 0, [], []];
  folder = mkdtempSync(join(tmpdir(), "stile-follow-"));
  const { certificateFile, keyFile } = makeCertificate(folder, "localhost");
  const server = createServer(
    { cert: readFileSync(certificateFile), key: readFileSync(keyFile) },
    (request, response) => {
      // It keeps no log.
      if (request.url !== ISSUER_DIRECTORY_PATH) response.writeHead(404).end();
      else void answer(response);
    },
  ).listen(0);
  closers.push(() => server.close());
  url = `https://localhost:${(server.address() as AddressInfo).port}`;
});
afterEach(async () => {
  for (const close of closers.toReversed()) close();
  // An answer on its way would be counted as one of the next test's.
  await expect.poll(() => open).toBe(0);
  rmSync(folder, { recursive: true });
});

async function answer(response: ServerResponse): Promise<void> {
  open += 1;
  mostOpen = Math.max(mostOpen, open);
  await delay(answerMs);
  open -= 1;
  const tokenKeys = listed.map((n) => ({ tokenType: 2, tokenKey: Uint8Array.of(n) }));
  response.writeHead(200, { "content-type": MEDIA_TYPE_ISSUER_DIRECTORY });
  response.end(encodeIssuerDirectory({ issuerRequestUri: "/token-request", tokenKeys }));
}

function follow(): Promise<FollowedKeys> {
  const composition = {
    clock: Date.now,
    config: {
      stateDir: folder,
      edge: { issuerName: "issuer.example" },
      issuer: { tokenTypes: [2], directoryMaxAgeSeconds: 60, redeemableSeconds: 3_600 },
    },
    log: { write: (_level: string, event: string) => void events.push(event) },
    metrics: createMetrics(),
    onClose: (close: () => unknown) => void closers.push(close),
    tokenCrypto: createNodeTokenCrypto(),
  };
  const caFile = join(folder, "clients", "localhost.pem");
  const issuer = { url, caFile, refreshSeconds: REFRESH_SECONDS };
  return followIssuer(composition as unknown as Parameters<typeof followIssuer>[0], issuer, {
    dropEpoch: () => Promise.resolve(),
    dropPastEpochs: () => Promise.resolve(0),
    keepEpoch: () => Promise.resolve(true),
  });
}

it("rejects a directory of too many keys, and learns the next ones all the same", async () => {
  const keys = await follow();
  const known = keys.list().map(({ tokenKeyId }) => tokenKeyId);
  expect(known).toHaveLength(1);
  listed = Array.from({ length: 9 }, (_, n) => n + 1);
  await expect.poll(() => events).toContain("keys.follow-failed");
  expect(keys.list().map(({ tokenKeyId }) => tokenKeyId)).toEqual(known);
  listed = [1, 2];
  await expect.poll(() => keys.list().length).toBe(2);
});

it("asks once at a time, however slow the issuer is", async () => {
  const keys = await follow();
  answerMs = 150;
  listed = [1, 2];
  await expect.poll(() => keys.list().length).toBe(2);
  expect(mostOpen).toBe(1);
});
