/** The link between worker and keeper: what crosses it, whom it believes, and what it does without a keeper. */
import { generateKeyPairSync } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Registry } from "prom-client";
import {
  createUsedSignatures,
  type UsedSignatures,
} from "../../service/edge/signatures/used-signatures.ts";
import type { KeeperFacts } from "../../service/processes/facts.ts";
import { factsFromJson, factsToJson, haveSameSecrets } from "../../service/processes/facts.ts";
import { createKeeperLink, type KeeperLink } from "../../service/processes/keeper-link.ts";
import { createKeeperLinks, type KeeperLinks } from "../../service/processes/keeper-links.ts";
import {
  createFrameReader,
  encodeFrame,
  encodeJsonFrame,
  encodeSpendAnswers,
  encodeSpendCalls,
  encodeUseCall,
  encodeVerifyCall,
  encodeYesNo,
  FRAME,
  parseSpendAnswers,
  parseSpendCalls,
  parseUseCall,
  parseVerifyCall,
  parseYesNo,
  type SpendAnswer,
  type SpendCall,
} from "../../service/processes/link-frames.ts";
import { createSharedMetrics } from "../../service/processes/shared-metrics.ts";
import { openSpentLevelStore } from "../../service/stores/index.ts";
import type { PrivateTokenVerifier, SpendRequest, SpentStore } from "../../tokens/index.ts";
import { StileError } from "../../wire/index.ts";
import { codeOf, codeOfAsync } from "../support/reject.ts";

const KEY = "ab".repeat(32);
const id32 = (fill: number): Uint8Array => new Uint8Array(32).fill(fill);
const spend = (nonce: number, binding?: number): SpendRequest => ({
  tokenKeyId: id32(1),
  nonce: id32(nonce),
  atMs: 1_795_000_000_123,
  ...(binding === undefined ? {} : { binding: id32(binding) }),
});

function someFacts(secret = 7): KeeperFacts {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const record = {
    tokenType: 2,
    tokenKeyId: id32(1),
    publicKeySpki: new Uint8Array(40).fill(9),
    publishedAtMs: 1,
    notBeforeMs: 2,
    retireAtMs: 3,
    destroyAtMs: 4,
  };
  return {
    records: [record],
    secrets: { challengeSecret: id32(secret) },
    clearanceKeys: [{ record: { ...record, tokenType: 0 }, privateKey }],
  };
}

describe("frames", () => {
  it("carry spends and their answers", () => {
    const calls: SpendCall[] = [
      { id: 0, request: spend(2) },
      { id: 2 ** 32 - 1, request: spend(3, 4) },
    ];
    expect(parseSpendCalls(encodeSpendCalls(calls))).toEqual(calls);
    const answers: SpendAnswer[] = [
      { id: 1, result: { outcome: "fresh" } },
      { id: 2, result: { outcome: "repeat", firstAtMs: 2 ** 47 + 5 } },
      { id: 3, result: { outcome: "spent" } },
      { id: 4, result: "TOKEN_KEY_UNKNOWN" },
    ];
    expect(parseSpendAnswers(encodeSpendAnswers(answers))).toEqual(answers);
    const verify = { id: 9, tokenKeyId: id32(1), input: id32(2), authenticator: id32(3) };
    expect(parseVerifyCall(encodeVerifyCall(verify))).toEqual(verify);
    for (const result of [true, false, "TOKEN_ISSUER_BUSY"] as const) {
      expect(parseYesNo(encodeYesNo({ id: 9, result }))).toEqual({ id: 9, result });
    }
    const use = { id: 9, use: { agent: "crawler", key: id32(4) } };
    expect(parseUseCall(encodeUseCall(use))).toEqual(use);
  });

  it("come whole, however they are cut", () => {
    const bytes = Buffer.concat([1, 2, 3].map((kind) => encodeFrame(kind, id32(kind))));
    for (let size = 1; size <= bytes.length; size += 1) {
      const read = createFrameReader();
      const kinds: number[] = [];
      for (let at = 0; at < bytes.length; at += size) {
        kinds.push(...read(bytes.subarray(at, at + size)).map(({ kind }) => kind));
      }
      expect(kinds).toEqual([1, 2, 3]);
    }
  });

  it("rejects what is too long, cut short or unknown", () => {
    const huge = Buffer.from([0x7f, 0xff, 0xff, 0xff, 1]);
    expect(codeOf(() => createFrameReader()(huge))).toBe("WIRE_LENGTH_OUT_OF_BOUNDS");
    const call = encodeSpendCalls([{ id: 1, request: spend(2, 3) }]);
    expect(codeOf(() => parseSpendCalls(call.subarray(0, -1)))).toBe("WIRE_TOO_SHORT");
    expect(codeOf(() => parseSpendAnswers(Uint8Array.of(0, 0, 0, 1, 3)))).toBe(
      "WIRE_VALUE_NOT_ALLOWED",
    );
    expect(codeOf(() => parseYesNo(Uint8Array.of(0, 0, 0, 1, 1, 0)))).toBe("WIRE_TRAILING_BYTES");
    const use = encodeUseCall({ id: 1, use: { agent: "a", key: id32(1) } });
    expect(codeOf(() => parseUseCall(Uint8Array.of(...use, 0)))).toBe("WIRE_TRAILING_BYTES");
    expect(codeOf(() => parseUseCall(use.subarray(0, -1)))).toBe("WIRE_TOO_SHORT");
  });

  it("carry what workers have to know, and tell other secrets from the same", () => {
    const facts = someFacts();
    const json: unknown = JSON.parse(JSON.stringify(factsToJson(facts)));
    const known = factsFromJson(json);
    expect(known.records).toEqual(facts.records);
    expect(haveSameSecrets(known.secrets, facts.secrets)).toBe(true);
    expect(haveSameSecrets(known.secrets, someFacts(8).secrets)).toBe(false);
    expect(known.clearanceKeys[0]?.record).toEqual(facts.clearanceKeys[0]?.record);
    const [was, is] = [facts, known].map(({ clearanceKeys }) => clearanceKeys[0]?.privateKey);
    expect(was !== undefined && is?.equals(was)).toBe(true);
  });
});

const log = { write: () => undefined, flush: () => undefined };
let dir: string;
let path: string;
let store: SpentStore;
const open: (() => Promise<unknown>)[] = [];

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), "stile-link-"));
  path = join(dir, "link.sock");
  store = await openSpentLevelStore({ folder: join(dir, "spent") });
});
afterEach(async () => {
  for (const close of open.splice(0).toReversed()) await close();
  await store.close();
  rmSync(dir, { recursive: true, force: true });
});

function memory(): UsedSignatures {
  const crawler = { name: "crawler", jwksFile: "", components: [], maxAgeSeconds: 300 };
  const agents = [{ ...crawler, nonce: "optional" } as const];
  return createUsedSignatures({ agents, waitMs: 0, clock: Date.now });
}

async function keeper(
  options: {
    readonly spentStore?: SpentStore;
    readonly privateVerifier?: PrivateTokenVerifier;
    readonly usedSignatures?: UsedSignatures;
    facts?: KeeperFacts;
  } = {},
): Promise<KeeperLinks> {
  const facts = options.facts ?? someFacts();
  const links = createKeeperLinks({
    path,
    key: KEY,
    facts: () => facts,
    spentStore: options.spentStore ?? store,
    privateVerifier: options.privateVerifier,
    usedSignatures: options.usedSignatures ?? memory(),
    metrics: createSharedMetrics(),
    log,
  });
  await links.listen();
  open.push(() => links.goAway(0));
  return links;
}

function worker(waitMs = 5_000, onFacts = (_facts: KeeperFacts): void => undefined): KeeperLink {
  const link = createKeeperLink({
    path,
    key: KEY,
    worker: 1,
    waitMs,
    monotonicMs: () => performance.now(),
    onFacts,
    metrics: () => new Registry().getMetricsAsJSON(),
    log,
  });
  open.push(() => link.close());
  return link;
}

/** A keeper that spends as it should, but ends before it answers. */
async function dyingKeeper(): Promise<Server> {
  const server = createServer((socket: Socket) => {
    const read = createFrameReader();
    socket.on("error", () => undefined);
    socket.on("data", (chunk: Buffer) => {
      for (const { body, kind } of read(chunk)) {
        if (kind === FRAME.hello)
          socket.write(encodeJsonFrame(FRAME.facts, factsToJson(someFacts())));
        if (kind !== FRAME.spends) continue;
        const spends = parseSpendCalls(body).map(({ request }) => store.spend(request));
        void Promise.all(spends).then(() => {
          server.close();
          socket.destroy();
        });
      }
    });
  }).listen(path);
  await once(server, "listening");
  return server;
}

describe("a link", () => {
  it("spends in the keeper's store, for several workers", async () => {
    await keeper();
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const [first, second] = [worker(), worker()];
    const outcomes = await Promise.all(
      Array.from({ length: 64 }, (_, i) => (i % 2 === 0 ? first : second).spend(spend(i >> 1, i))),
    );
    const fresh = outcomes.filter(({ outcome }) => outcome === "fresh");
    expect([fresh.length, outcomes.length]).toEqual([32, 64]);
    expect(await first.spend(spend(200, 1))).toEqual({ outcome: "fresh" });
    expect(await second.spend(spend(200, 1))).toEqual({
      outcome: "repeat",
      firstAtMs: spend(200).atMs,
    });
  });

  it("gives a peer without the key nothing, and cuts it", async () => {
    await keeper();
    const hellos = [
      encodeJsonFrame(FRAME.hello, { key: "cd".repeat(32), worker: 1 }),
      encodeJsonFrame(FRAME.hello, { key: KEY.slice(2), worker: 1 }),
      encodeJsonFrame(FRAME.hello, { worker: 1 }),
      encodeFrame(FRAME.spends, encodeSpendCalls([{ id: 1, request: spend(9) }])),
      Buffer.from("GET / HTTP/1.1\r\n\r\n"),
    ];
    for (const hello of hellos) {
      const peer = connect(path);
      peer.write(hello);
      expect((await peer.toArray()).length).toBe(0);
    }
    expect(await store.spend(spend(9))).toEqual({ outcome: "fresh" });
  });

  it("asks the next keeper what the one before took with it: once is admitted, never twice", async () => {
    const server = await dyingKeeper();
    const link = worker();
    const bound = link.spend(spend(1, 5));
    const unbound = link.spend(spend(2));
    await once(server, "close");
    await keeper();
    // The dead keeper's store had both: the same caller is answered again, one without a name is not.
    expect(await bound).toEqual({ outcome: "repeat", firstAtMs: spend(1).atMs });
    expect(await unbound).toEqual({ outcome: "spent" });
    expect(await link.spend(spend(1, 6))).toEqual({ outcome: "spent" });
  });

  it("lets a keeper that goes answer what it has, and keeps what comes meanwhile for the next", async () => {
    const held: (() => void)[] = [];
    const slow: SpentStore = {
      ...store,
      spend: async (request) => {
        await new Promise<void>((resolve) => held.push(resolve));
        return store.spend(request);
      },
    };
    const first = await keeper({ spentStore: slow });
    const link = worker();
    const early = link.spend(spend(1));
    await expect.poll(() => held.length).toBe(1);
    const gone = first.goAway(5_000);
    const state = (): Promise<string> =>
      Promise.race([link.whenUp().then(() => "up"), delay(5).then(() => "down")]);
    await expect.poll(state).toBe("down");
    const late = link.spend(spend(1, 2));
    held[0]?.();
    expect(await early).toEqual({ outcome: "fresh" });
    await gone;
    await keeper();
    expect(await late).toEqual({ outcome: "spent" });
  });

  it("rejects what a confused worker says, and serves the others", async () => {
    await keeper();
    const link = worker();
    await link.whenUp();
    const metric = { help: "x", type: "counter", aggregator: "sum", values: [] };
    const confused: readonly Buffer[] = [
      encodeFrame(FRAME.verify, Uint8Array.of(1)),
      encodeFrame(FRAME.spends, Uint8Array.of(1)),
      encodeFrame(FRAME.use, Uint8Array.of(1)),
      ...[
        {},
        [null],
        [{ ...metric, name: "x\ny" }],
        [{ ...metric, name: "x", aggregator: "toString" }],
        [{ ...metric, name: "x", values: [{ labels: { "a\n": "b" }, value: 1 }] }],
        [{ ...metric, name: "x", values: [{ labels: {}, value: "1" }] }],
      ].map((samples) => encodeJsonFrame(FRAME.metrics, samples)),
    ];
    for (const [i, frame] of confused.entries()) {
      const socket = connect(path);
      socket.write(encodeJsonFrame(FRAME.hello, { key: KEY, worker: 10 + i }));
      await once(socket, "data");
      socket.write(frame);
      await once(socket, "close");
    }
    expect(await link.spend(spend(1))).toEqual({ outcome: "fresh" });
  });

  it("fails closed where no keeper comes in time", async () => {
    const link = worker(150);
    expect(await codeOfAsync(() => link.spend(spend(1)))).toBe("TOKEN_STORE_UNAVAILABLE");
    expect(await codeOfAsync(() => link.whenUp())).toBe("SERVICE_OVERLOADED");
  });

  it("passes on why a keeper refuses, and no other error of its", async () => {
    const errors = [new StileError("TOKEN_KEY_UNKNOWN", "gone"), new TypeError("a secret")];
    const failing: SpentStore = { ...store, spend: () => Promise.reject(errors.shift()) };
    await keeper({ spentStore: failing });
    const link = worker();
    expect(await codeOfAsync(() => link.spend(spend(1)))).toBe("TOKEN_KEY_UNKNOWN");
    expect(await codeOfAsync(() => link.spend(spend(1)))).toBe("TOKEN_STORE_UNAVAILABLE");
    expect(await codeOfAsync(() => link.verifyPrivate(id32(1), id32(2), id32(3)))).toBe(
      "TOKEN_KEY_UNKNOWN",
    );
  });

  it("lets one of several workers use a signature, and none where that cannot be told", async () => {
    const first = await keeper();
    const links = [worker(), worker()];
    const useAll = (agent: string): Promise<boolean[]> =>
      Promise.all(
        Array.from({ length: 32 }, (_, i) =>
          links[i % 2]!.useOnce({ agent, key: id32((i >> 1) % 4) }),
        ),
      );
    expect((await useAll("crawler")).filter((isFirst) => isFirst)).toHaveLength(4);
    // Of an agent that only the workers know nothing is remembered: nothing is let in.
    expect((await useAll("other")).filter((isFirst) => isFirst)).toHaveLength(0);
    await first.goAway(0);
    const failing = { useOnce: () => Promise.reject(new TypeError("a secret")) };
    await keeper({ usedSignatures: failing });
    const use = { agent: "crawler", key: id32(9) };
    expect(await codeOfAsync(() => links[0]!.useOnce(use))).toBe("TOKEN_STORE_UNAVAILABLE");
  });

  it("has private tokens verified by the keeper", async () => {
    const asked: number[] = [];
    const privateVerifier: PrivateTokenVerifier = {
      verifyPrivate: (keyId, input, authenticator) => {
        asked.push(keyId[0] ?? 0, input.length, authenticator.length);
        return Promise.resolve(authenticator[0] === 3);
      },
    };
    await keeper({ privateVerifier });
    const link = worker();
    const input = new Uint8Array(98).fill(2);
    const verify = (fill: number): Promise<boolean> =>
      link.verifyPrivate(id32(1), input, new Uint8Array(48).fill(fill));
    expect(await Promise.all([verify(3), verify(4)])).toEqual([true, false]);
    expect(asked).toEqual([1, 98, 48, 1, 98, 48]);
  });

  it("tells each change of the keys", async () => {
    const facts = { ...someFacts(), records: [...someFacts().records] };
    const links = await keeper({ facts });
    const seen: number[] = [];
    const link = worker(5_000, ({ records }) => seen.push(records.length));
    await link.whenUp();
    facts.records.length = 0;
    links.tellFacts();
    await expect.poll(() => seen).toEqual([1, 0]);
  });
});

describe("metrics of several processes", () => {
  const samples = (value: number): unknown[] => [
    {
      name: "stile_x_total",
      help: "x",
      type: "counter",
      aggregator: "sum",
      values: [{ labels: {}, value }],
    },
    {
      name: "stile_g",
      help: "g",
      type: "gauge",
      aggregator: "sum",
      values: [{ labels: {}, value }],
    },
  ];

  it("are added, and what an ended worker had counted stays", async () => {
    const shared = createSharedMetrics();
    const read = async (): Promise<string[]> => {
      const all = await shared.all(new Registry(), () => []);
      return (await all.metrics()).split("\n").filter((line) => line.startsWith("stile_"));
    };
    shared.take(1, samples(2));
    shared.take(2, samples(3));
    expect(await read()).toEqual(["stile_x_total 5", "stile_g 5"]);
    shared.end(1);
    expect(await read()).toEqual(["stile_x_total 5", "stile_g 3"]);
    shared.take(2, samples(4));
    shared.end(2);
    shared.take(3, samples(10));
    expect(await read()).toEqual(["stile_x_total 16", "stile_g 10"]);
    expect(await read()).toEqual(["stile_x_total 16", "stile_g 10"]);
  });
});
