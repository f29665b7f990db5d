/**
 * Edges of one operator on one spent store, on real servers: one is cut off from the issuer, the clocks of others are
 * days off, two disagree on a key's end. None of them may end what another one uses, and no token is fresh twice.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { followIssuer } from "../../service/edge/follow-issuer.ts";
import { createMetrics } from "../../service/metrics.ts";
import {
  encodeIssuerDirectory,
  ISSUER_DIRECTORY_PATH,
  type KeyRing,
  MEDIA_TYPE_ISSUER_DIRECTORY,
  tokenKeyIdOf,
} from "../../tokens/index.ts";
import { createNodeTokenCrypto } from "../../tokens/node/index.ts";
import { makeCertificate } from "../support/split.ts";
import { type Engine, ENGINES, type RunningEngine } from "./support/engines.ts";
import { identifier } from "./support/nonces.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const crypto = createNodeTokenCrypto();
const idOf = (key: number): Uint8Array => tokenKeyIdOf(crypto, Uint8Array.of(key));

/** Keys of the issuer, by their only byte. No test uses one of another. */
let listed: readonly number[] = [];
let keys = 0;
/** When it is, as right clocks have it. */
let nowMs: number;
let folder: string;
let url: string;
let closers: (() => unknown)[];

beforeEach(() => {
  [nowMs, closers] = [Date.UTC(2026, 0, 1), []];
  listed = [(keys += 1)];
  folder = mkdtempSync(join(tmpdir(), "stile-fleet-"));
  const { certificateFile, keyFile } = makeCertificate(folder, "localhost");
  const server = createServer(
    { cert: readFileSync(certificateFile), key: readFileSync(keyFile) },
    (request, response) => {
      if (request.url !== ISSUER_DIRECTORY_PATH) {
        response.writeHead(404).end();
        return;
      }
      const tokenKeys = listed.map((key) => ({ tokenType: 2, tokenKey: Uint8Array.of(key) }));
      response.writeHead(200, { "content-type": MEDIA_TYPE_ISSUER_DIRECTORY });
      response.end(encodeIssuerDirectory({ issuerRequestUri: "/token-request", tokenKeys }));
    },
  ).listen(0);
  closers.push(() => server.close());
  url = `https://localhost:${(server.address() as AddressInfo).port}`;
});
afterEach(async () => {
  for (const close of closers.toReversed()) await close();
  rmSync(folder, { recursive: true });
});

interface Edge {
  /** How far its clock is off. */
  offMs: number;
  isCutOff: boolean;
  /** Looks at the issuer, and tells the store, as it does every few minutes. */
  readonly refresh: () => Promise<void>;
  /** What a redemption comes to: "unknown key" where the edge refuses before it asks the store. */
  readonly redeem: (key: number, nonce: number) => Promise<string>;
}

async function openEdge(
  engine: RunningEngine,
  name: string,
  redeemableSeconds = 7 * 86_400,
): Promise<Edge> {
  // Without grace: an epoch goes in the very moment in which nobody needs it.
  const store = await engine.open(name, { graceMs: 0 });
  closers.push(() => store.close());
  const stateDir = mkdtempSync(join(folder, name));
  const clock = (): number => nowMs + edge.offMs;
  let ring: KeyRing | undefined;
  const edge: Edge = {
    offMs: 0,
    isCutOff: false,
    refresh: async () => {
      const ending: (() => unknown)[] = [];
      const composition = {
        clock,
        config: {
          stateDir,
          edge: { issuerName: "issuer.example" },
          issuer: { tokenTypes: [2], directoryMaxAgeSeconds: 60, redeemableSeconds },
        },
        log: { write: () => undefined },
        metrics: createMetrics(),
        onClose: (close: () => unknown) => void ending.push(close),
        tokenCrypto: crypto,
      };
      const caFile = join(folder, "clients", "localhost.pem");
      const issuer = {
        url: edge.isCutOff ? "https://localhost:1" : url,
        caFile,
        refreshSeconds: 86_400,
      };
      const parameters = composition as unknown as Parameters<typeof followIssuer>[0];
      try {
        ({ ring } = await followIssuer(parameters, issuer, store));
      } catch (error) {
        // It has no key left that redeems; a running edge goes on to look, and so does this one.
        if (!edge.isCutOff) throw error;
      }
      for (const close of ending) close();
    },
    redeem: async (key, nonce) => {
      const tokenKeyId = idOf(key);
      if (ring?.redemptionKey(tokenKeyId) === undefined) return "unknown key";
      const request = { tokenKeyId, nonce: identifier("nonce", nonce), atMs: clock() };
      return store.spend(request).then(
        ({ outcome }) => outcome,
        (error: { readonly code?: string }) => String(error.code),
      );
    },
  };
  return edge;
}

const SHARED = ENGINES.filter(({ isShared }) => isShared);

describe.each(SHARED)("edges on one $name", ({ isMissing, start }: Engine) => {
  let engine: RunningEngine;
  beforeAll(async () => {
    if (!isMissing) engine = await start();
  }, 30_000);
  afterAll(async () => {
    if (!isMissing) await engine.stop();
  });

  /** Three edges that see the first key, each with a token spent: nonces 0, 1 and 2. */
  async function openFleet(): Promise<{ key: number; a: Edge; b: Edge; c: Edge; all: Edge[] }> {
    const [key = 0] = listed;
    const all = [
      await openEdge(engine, "a"),
      await openEdge(engine, "b"),
      // One that keeps keys for longer than the others do.
      await openEdge(engine, "c", 14 * 86_400),
    ] as const;
    for (const [i, edge] of all.entries()) {
      await edge.refresh();
      expect(await edge.redeem(key, i)).toBe("fresh");
    }
    const [a, b, c] = all;
    return { key, a, b, c, all: [...all] };
  }
  const passAndRefresh = async (ms: number, edges: readonly Edge[]): Promise<void> => {
    nowMs += ms;
    for (const edge of edges) await edge.refresh();
  };
  /** The issuer lists another key instead. */
  const turnKeyOver = (): void => void (listed = [(keys += 1)]);
  const replays = async (edges: readonly Edge[], key: number): Promise<string[]> => {
    const outcomes: string[] = [];
    for (const edge of edges)
      for (const nonce of [0, 1, 2]) outcomes.push(await edge.redeem(key, nonce));
    return [...new Set(outcomes)];
  };

  it.skipIf(isMissing)("go on with a key that one which was cut off is done with", async () => {
    const { a, all, b, c, key } = await openFleet();
    a.isCutOff = true;
    await passAndRefresh(3 * DAY_MS, all);
    turnKeyOver();
    await passAndRefresh(4 * DAY_MS + HOUR_MS, all);
    // Its view of the key has ended, and it says so; then it is back, and looks once more.
    expect(await a.redeem(key, 10)).toBe("unknown key");
    a.isCutOff = false;
    await passAndRefresh(60_000, all);
    expect(await a.redeem(key, 10)).toBe("unknown key");
    expect(await b.redeem(key, 11)).toBe("fresh");
    expect(await c.redeem(key, 11)).toBe("spent");
    expect(await c.redeem(key, 12)).toBe("fresh");
    expect(await b.redeem(key, 12)).toBe("spent");
    expect(await replays([b, c], key)).toEqual(["spent"]);
  });

  it.skipIf(isMissing)(
    "go on while the clock of one is days ahead, and so does it after that",
    async () => {
      const { a, all, b, key } = await openFleet();
      turnKeyOver();
      await passAndRefresh(HOUR_MS, all);
      a.offMs = 30 * DAY_MS;
      await passAndRefresh(HOUR_MS, all);
      await passAndRefresh(HOUR_MS, all);
      expect(await a.redeem(key, 10)).toBe("unknown key");
      expect(await b.redeem(key, 11)).toBe("fresh");
      expect(await replays([b], key)).toEqual(["spent"]);
      a.offMs = 0;
      await passAndRefresh(HOUR_MS, all);
      expect(await a.redeem(key, 11)).toBe("spent");
      expect(await a.redeem(key, 12)).toBe("fresh");
      expect(await b.redeem(key, 12)).toBe("spent");
    },
  );

  it.skipIf(isMissing)("take no token twice by one whose clock is days behind", async () => {
    const { a, all, b, key } = await openFleet();
    await passAndRefresh(10 * DAY_MS, all);
    turnKeyOver();
    await passAndRefresh(HOUR_MS, all);
    a.offMs = -9 * DAY_MS;
    await passAndRefresh(HOUR_MS, all);
    // Everybody else is done with the key.
    await passAndRefresh(15 * DAY_MS, all);
    expect(await b.redeem(key, 10)).toBe("unknown key");
    expect(await replays([a], key)).toEqual(["spent"]);
    expect(await a.redeem(key, 10)).toBe("fresh");
    expect(await a.redeem(key, 10)).toBe("spent");
  });

  it.skipIf(isMissing)("keep a key for the one that needs it longest", async () => {
    const { a, all, b, c, key } = await openFleet();
    turnKeyOver();
    await passAndRefresh(HOUR_MS, all);
    await passAndRefresh(8 * DAY_MS, all);
    for (const edge of [a, b]) expect(await edge.redeem(key, 10)).toBe("unknown key");
    expect(await replays([c], key)).toEqual(["spent"]);
    expect(await c.redeem(key, 10)).toBe("fresh");
  });

  it.skipIf(isMissing)("refuse a revoked key at once, all of them", async () => {
    const { a, all, b, key } = await openFleet();
    const store = await engine.open("operator");
    closers.push(() => store.close());
    await store.dropEpoch(idOf(key));
    expect(await replays(all, key)).toEqual(["TOKEN_KEY_UNKNOWN"]);
    // Whatever they believe of the key, and however often they say so.
    await passAndRefresh(HOUR_MS, all);
    expect(await a.redeem(key, 10)).toBe("TOKEN_KEY_UNKNOWN");
    turnKeyOver();
    await passAndRefresh(8 * DAY_MS, all);
    await passAndRefresh(HOUR_MS, all);
    b.offMs = -8 * DAY_MS;
    await passAndRefresh(0, all);
    expect(await replays([a, b], key)).toEqual(["unknown key"]);
  });
});
