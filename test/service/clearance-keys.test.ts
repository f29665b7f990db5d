/** The keys of clearances under a clock that the test turns: their life, what a crash leaves of it, and forgers. */
import { createHmac, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { CLEARANCE_COOKIE, type Clearance, createClearance } from "../../service/edge/clearance.ts";
import {
  type ClearanceKeys,
  clearanceKeySchedule,
  openClearanceKeys,
} from "../../service/edge/clearance-keys.ts";
import {
  CLEARANCE_KEYS,
  type Keystore,
  openKeystore,
  Sealer,
} from "../../service/keystore/index.ts";
import { createMetrics } from "../../service/metrics.ts";
import { checkKeySchedule } from "../../tokens/index.ts";
import { codeOfAsync } from "../support/reject.ts";

const MINUTE = 60_000;
const DAY = 86_400_000;
const HOST = "www.example.org";
const ISSUER = "https://www.example.org";
const LIFETIME_SECONDS = 1_800;
const PUBLISHED_SECONDS = 3_600;
const sealer = new Sealer(Buffer.from("a test's passphrase"));
const folders: string[] = [];
const lines: string[] = [];
const log = {
  write: (level: string, event: string, fields: object = {}): void => {
    lines.push(JSON.stringify({ level, event, ...fields }));
  },
  flush: () => undefined,
};

let nowMs = 0;
let dir = "";
/** Of an installation from before keys had a life: its one key. */
let lasting: KeyObject | undefined;

beforeEach(() => {
  nowMs = Date.UTC(2026, 0, 1);
  dir = mkdtempSync(join(tmpdir(), "stile-clearance-keys-"));
  folders.push(dir);
  lasting = undefined;
  lines.length = 0;
});
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true });
});

interface Started extends ClearanceKeys {
  readonly clearance: Clearance;
  readonly keystore: Keystore;
}

interface StartOptions {
  readonly isCopied?: boolean;
  readonly lifetimeSeconds?: number;
  readonly folder?: string;
  /** Stands between the keys and their files. */
  readonly disk?: (keystore: Keystore) => Keystore;
}

/** What a start has, after a crash too: the files. */
async function start(options: StartOptions = {}): Promise<Started> {
  const { disk = (same: Keystore) => same, folder = dir, isCopied = false } = options;
  const { lifetimeSeconds = LIFETIME_SECONDS } = options;
  const clock = (): number => nowMs;
  const keystore = disk(
    await openKeystore({ dir: folder, passphrase: sealer, kind: CLEARANCE_KEYS }),
  );
  const keys = await openClearanceKeys({
    keystore,
    schedule: clearanceKeySchedule({
      clearanceKeys: {
        activeSeconds: 10 * 86_400,
        publishedSeconds: PUBLISHED_SECONDS,
        copied: isCopied,
      },
      clearanceSeconds: lifetimeSeconds,
    }),
    isCopied,
    lasting: {
      find: () => Promise.resolve(lasting),
      remove: () => Promise.resolve(void (lasting = undefined)),
    },
    clock,
    log,
    metrics: createMetrics(),
  });
  const clearance = createClearance({ keys: keys.keyring, issuer: ISSUER, lifetimeSeconds, clock });
  return { ...keys, clearance, keystore };
}

async function grant({ clearance }: Pick<Started, "clearance">): Promise<string> {
  const granted = await clearance.grant(HOST, nowMs);
  if (granted === undefined) throw new Error("no key signs");
  return granted.jwt;
}

async function isGood({ clearance }: Pick<Started, "clearance">, jwt: string): Promise<boolean> {
  const cookie = `${CLEARANCE_COOKIE}=${jwt}`;
  const wasKnown = clearance.isKnown(HOST, cookie);
  const isValid = await clearance.isValid(HOST, cookie);
  // Nothing is known that is not valid, and what was found valid is known from then on.
  expect({ wasKnown: wasKnown && isValid, isKnown: clearance.isKnown(HOST, cookie) }).toStrictEqual(
    { wasKnown, isKnown: isValid },
  );
  return isValid;
}

function kidOf(jwt: string): string {
  return (partOf(jwt, 0) as { readonly kid: string }).kid;
}

function partOf(jwt: string, index: number): object {
  return JSON.parse(Buffer.from(jwt.split(".")[index] ?? "", "base64url").toString()) as object;
}

const published = (keys: ClearanceKeys): string[] =>
  keys.keyring.all().map(({ jwk }) => jwk.kid ?? "");

function forge(head: object, claims: object, signature: (input: string) => Buffer): string {
  const input = [head, claims]
    .map((part) => Buffer.from(JSON.stringify(part)).toString("base64url"))
    .join(".");
  return `${input}.${signature(input).toString("base64url")}`;
}

const signedBy =
  (key: KeyObject, hash = "sha256") =>
  (input: string): Buffer =>
    sign(hash, Buffer.from(input), { key, dsaEncoding: "ieee-p1363" });

describe("keys of clearances", () => {
  it("are published before they sign, verify until their last clearance ends, and are gone then", async () => {
    let keys = await start();
    const signers = new Map<string, number>();
    const shownAt = new Map<string, number>();
    let running: { readonly jwt: string; readonly endsMs: number }[] = [];
    for (let step = 0; step < 31 * 72; step += 1) {
      // Every week or so the process dies and starts anew.
      if (step % 530 === 529) keys = await start();
      else await keys.tick();
      for (const kid of published(keys)) if (!shownAt.has(kid)) shownAt.set(kid, nowMs);
      const jwt = await grant(keys);
      if (!signers.has(kidOf(jwt))) signers.set(kidOf(jwt), nowMs);
      running = running.filter(({ endsMs }) => endsMs > nowMs);
      running.push({ jwt, endsMs: nowMs + LIFETIME_SECONDS * 1_000 });
      for (const { jwt: held } of running) expect(await isGood(keys, held)).toBe(true);
      expect(readdirSync(dir)).toHaveLength(published(keys).length);
      expect(published(keys).length).toBeLessThanOrEqual(2);
      nowMs += 20 * MINUTE;
    }
    expect(signers.size).toBe(4);
    const [first = "", ...later] = [...signers.keys()];
    for (const kid of later) {
      const waitedMs = (signers.get(kid) ?? 0) - (shownAt.get(kid) ?? 0);
      expect(waitedMs).toBeGreaterThanOrEqual(PUBLISHED_SECONDS * 1_000);
    }
    expect(published(keys)).not.toContain(first);
    expect(lines.join()).not.toContain("tick-failed");
  });

  it("rotate early in the same way, and no second time before the first", async () => {
    const keys = await start();
    const before = await grant(keys);
    await keys.changes?.rotate();
    expect(published(keys)).toHaveLength(2);
    expect(await codeOfAsync(async () => keys.changes?.rotate())).toBe(
      "TOKEN_KEY_ROTATION_REFUSED",
    );
    nowMs += PUBLISHED_SECONDS * 1_000 - 1;
    const last = await grant(keys);
    expect(kidOf(last)).toBe(kidOf(before));
    nowMs += 1;
    const next = await grant(keys);
    expect(kidOf(next)).not.toBe(kidOf(before));
    expect([await isGood(keys, last), await isGood(keys, next)]).toEqual([true, true]);
    nowMs += LIFETIME_SECONDS * 1_000 - 1_001;
    expect(await isGood(keys, last)).toBe(true);
    nowMs += 10 * MINUTE + 1_001;
    await keys.tick();
    expect(published(keys)).toEqual([kidOf(next)]);
    expect(readdirSync(dir)).toHaveLength(1);
  });

  it("last as long as clearances that were set to last longer since", async () => {
    const old = await grant(await start());
    nowMs += 10 * DAY - PUBLISHED_SECONDS * 1_000 - 4 * MINUTE;
    const keys = await start({ lifetimeSeconds: 86_400 });
    nowMs += PUBLISHED_SECONDS * 1_000 - 1;
    const long = await grant(keys);
    expect(kidOf(long)).toBe(kidOf(old));
    expect(published(keys)).toHaveLength(2);
    nowMs += DAY - 2_000;
    await keys.tick();
    expect(await isGood(keys, long)).toBe(true);
  });

  it("begin with the key of an installation from before, which is nowhere else afterwards", async () => {
    lasting = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
    const key = lasting;
    // Its copy is taken away only once it is in the store.
    const full = (keystore: Keystore): Keystore => ({
      ...keystore,
      save: () => Promise.reject(new Error("disk full")),
    });
    await expect(start({ disk: full })).rejects.toThrow("disk full");
    expect(lasting).toBe(key);
    const keys = await start();
    expect(lasting).toBeUndefined();
    const jwt = await grant(keys);
    const header = partOf(jwt, 0);
    expect(await isGood(keys, forge(header, partOf(jwt, 1), signedBy(key)))).toBe(true);
    // A crash came between the two: the key was revoked since, and does not come back.
    lasting = key;
    await keys.changes?.revoke(kidOf(jwt));
    const again = await start();
    expect([lasting, published(again).includes(kidOf(jwt))]).toEqual([undefined, false]);
  });

  it("rejects a schedule under which keys would have gaps or be too many", () => {
    const clearanceKeys = { activeSeconds: 3_600, publishedSeconds: 86_400, copied: false };
    for (const clearanceSeconds of [0, 86_400]) {
      const schedule = clearanceKeySchedule({ clearanceKeys, clearanceSeconds });
      expect(() => checkKeySchedule(schedule)).toThrow(RangeError);
    }
    const least = { ...clearanceKeys, publishedSeconds: 600 };
    checkKeySchedule(clearanceKeySchedule({ clearanceKeys: least, clearanceSeconds: 0 }));
  });
});

describe("a revoked key", () => {
  it("verifies nothing from the call on, remembered or not, and another signs at once", async () => {
    const keys = await start();
    const known = await grant(keys);
    nowMs += 1_000;
    const unknown = await grant(keys);
    expect(await isGood(keys, known)).toBe(true);
    const done = keys.changes?.revoke(kidOf(known));
    expect([await isGood(keys, known), await isGood(keys, unknown)]).toEqual([false, false]);
    expect(published(keys)).not.toContain(kidOf(known));
    await done;
    const next = await grant(keys);
    expect(await isGood(keys, next)).toBe(true);
    expect(readdirSync(dir)).toHaveLength(1);
    const after = await start();
    expect([await isGood(after, known), await isGood(after, next)]).toEqual([false, true]);
    expect(await codeOfAsync(async () => keys.changes?.revoke(kidOf(known)))).toBe(
      "SERVICE_NOT_FOUND",
    );
  });

  it("is not remembered by a check that was under way", async () => {
    const keys = await start();
    const jwt = await grant(keys);
    const checks = Promise.all([isGood(keys, jwt), isGood(keys, jwt)]);
    await keys.changes?.revoke(kidOf(jwt));
    expect(await checks).toEqual([false, false]);
    expect(await isGood(keys, jwt)).toBe(false);
  });

  it("has one fill in that signs until the published one does", async () => {
    const keys = await start();
    const first = await grant(keys);
    await keys.changes?.rotate();
    const waiting = published(keys).find((kid) => kid !== kidOf(first));
    await keys.changes?.revoke(kidOf(first));
    const bridge = await grant(keys);
    expect([kidOf(first), waiting]).not.toContain(kidOf(bridge));
    nowMs += PUBLISHED_SECONDS * 1_000;
    expect(kidOf(await grant(keys))).toBe(waiting);
    expect(await isGood(keys, bridge)).toBe(false);
    nowMs -= MINUTE * 31;
    expect(await isGood(keys, bridge)).toBe(true);
  });

  it("stays dead where it cannot be erased, which is said, and tried again", async () => {
    let isBroken = true;
    const keys = await start({
      disk: (keystore) => ({
        ...keystore,
        remove: (id) => (isBroken ? Promise.reject(new Error("read-only")) : keystore.remove(id)),
      }),
    });
    const jwt = await grant(keys);
    await expect(keys.changes?.revoke(kidOf(jwt))).rejects.toThrow("read-only");
    expect(await isGood(keys, jwt)).toBe(false);
    await keys.tick();
    expect(lines.at(-1)).toContain("clearance-keys.tick-failed");
    expect(await isGood(keys, await grant(keys))).toBe(true);
    isBroken = false;
    await keys.tick();
    expect(readdirSync(dir)).toHaveLength(1);
    expect(await isGood(await start(), jwt)).toBe(false);
  });
});

describe("a crash", () => {
  /** Dies at its nth change of the disk, before or after it: nothing later happens. */
  function dying(at: number, isAfter: boolean): (keystore: Keystore) => Keystore {
    let changes = 0;
    return (keystore) => {
      const step = async (change: () => Promise<void>): Promise<void> => {
        changes += 1;
        if (changes > at || (changes === at && !isAfter)) throw new Error("died");
        await change();
        if (changes === at) throw new Error("died");
      };
      return {
        load: () => keystore.load(),
        save: (record, key) => step(() => keystore.save(record, key)),
        remove: (id) => step(() => keystore.remove(id)),
      };
    };
  }

  type Change = (keys: Started, jwt: string) => Promise<unknown>;
  const changes: Readonly<Record<string, Change>> = {
    rotating: async (keys) => keys.changes?.rotate(),
    revoking: async (keys, jwt) => keys.changes?.revoke(kidOf(jwt)),
    "the scheduled rotation": (keys) => {
      nowMs += 10 * DAY - PUBLISHED_SECONDS * 1_000 - 2 * MINUTE;
      return keys.tick();
    },
    "destroying the one before": async (keys) => {
      await keys.changes?.rotate();
      nowMs += 2 * DAY;
      return keys.tick();
    },
  };

  it.each(Object.entries(changes))("while %s loses nothing", async (what, change) => {
    for (let at = 1; at <= 4; at += 1) {
      for (const isAfter of [false, true]) {
        const folder = mkdtempSync(join(dir, "at-"));
        nowMs = Date.UTC(2026, 0, 1);
        const jwt = await grant(await start({ folder }));
        const keys = await start({ folder, disk: dying(at, isAfter) });
        const held = published(keys);
        const isDone = await change(keys, jwt).then(
          () => true,
          () => false,
        );
        const shown = published(keys);
        const after = await start({ folder });
        // One signs, whatever was shown to verifiers is still there, and a clearance is good until it ends.
        expect(await isGood(after, await grant(after))).toBe(true);
        if (what === "revoking") {
          if (isDone) expect(await isGood(after, jwt)).toBe(false);
        } else {
          expect(published(after)).toEqual(expect.arrayContaining(shown));
          const isOver = nowMs > Date.UTC(2026, 0, 1);
          expect(await isGood(after, jwt)).toBe(!isOver);
          if (!isOver) expect(published(after)).toEqual(expect.arrayContaining(held));
        }
        await after.tick();
        expect(readdirSync(folder)).toHaveLength(published(after).length);
      }
    }
  });
});

describe("a clearance", () => {
  it("rejects whatever is not signed by the live key that it names, as it says", async () => {
    const keys = await start();
    await keys.changes?.rotate();
    const [next, first] = keys.keyring.all();
    if (first === undefined || next === undefined) throw new Error("expected two keys");
    const good = await grant(keys);
    const [header, claims] = [partOf(good, 0), partOf(good, 1)];
    expect(header).toEqual({ alg: "ES256", typ: "stile-clearance+jwt", kid: first.kid });
    const by = (key: KeyObject, change: object): string =>
      forge({ ...header, ...change }, claims, signedBy(key));
    const pem = first.publicKey.export({ format: "pem", type: "spki" });
    const stranger = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const p384 = generateKeyPairSync("ec", { namedCurve: "P-384" });
    const ed = generateKeyPairSync("ed25519").privateKey;
    const bad = {
      "a kid that is unknown": by(first.privateKey, { kid: "A".repeat(22) }),
      "no kid": by(first.privateKey, { kid: undefined }),
      "a kid of a prototype": by(first.privateKey, { kid: "constructor" }),
      "a kid that is no text": by(first.privateKey, { kid: [first.kid] }),
      "another's kid": by(first.privateKey, { kid: next.kid }),
      "another's signature": by(next.privateKey, {}),
      "a stranger's signature": by(stranger.privateKey, {}),
      "a key that it brings": by(stranger.privateKey, {
        jwk: stranger.publicKey.export({ format: "jwk" }),
      }),
      "no signature": forge({ ...header, alg: "none" }, claims, () => Buffer.alloc(0)),
      "the public key as a secret": forge({ ...header, alg: "HS256" }, claims, (input) =>
        createHmac("sha256", pem).update(input).digest(),
      ),
      "another curve": forge(
        { ...header, alg: "ES384" },
        claims,
        signedBy(p384.privateKey, "sha384"),
      ),
      EdDSA: forge({ ...header, alg: "EdDSA" }, claims, (input) =>
        sign(null, Buffer.from(input), ed),
      ),
    };
    for (const [what, jwt] of Object.entries(bad))
      expect(await isGood(keys, jwt), what).toBe(false);
    for (const [what, jwt] of Object.entries({
      "as ours": by(first.privateKey, {}),
      // Another edge's clock may be ahead.
      "by the published one": by(next.privateKey, { kid: next.kid }),
    })) {
      expect(await isGood(keys, jwt), what).toBe(true);
    }
  });

  it("rejects what a destroyed key has signed, whenever it was to end", async () => {
    const keys = await start();
    const jwt = await grant(keys);
    const key = keys.keyring.find(kidOf(jwt));
    if (key === undefined) throw new Error("expected a key");
    const endless = forge(
      partOf(jwt, 0),
      { ...partOf(jwt, 1), exp: 9_999_999_999 },
      signedBy(key.privateKey),
    );
    await keys.changes?.rotate();
    expect(await isGood(keys, endless)).toBe(true);
    nowMs = key.record.destroyAtMs + DAY;
    // By the clock alone: nothing has looked at the plan since.
    expect(published(keys)).not.toContain(key.kid);
    expect(await isGood(keys, endless)).toBe(false);
  });
});

describe("copied keys", () => {
  it("follow what is in the folder, and are made by the other edge alone", async () => {
    const maker = await start();
    const copy = await start({ isCopied: true });
    expect(copy.changes).toBeUndefined();
    const jwt = await grant(maker);
    expect([await isGood(copy, jwt), await isGood(maker, await grant(copy))]).toEqual([true, true]);
    await maker.changes?.rotate();
    await copy.tick();
    expect(published(copy)).toEqual(published(maker));
    nowMs += PUBLISHED_SECONDS * 1_000;
    expect(kidOf(await grant(copy))).toBe(kidOf(await grant(maker)));
    await maker.changes?.revoke(kidOf(jwt));
    await copy.tick();
    expect(await isGood(copy, jwt)).toBe(false);
  });

  it("stay as they are while what is in the folder cannot be read, and that is said", async () => {
    const maker = await start();
    const copy = await start({ isCopied: true });
    const jwt = await grant(maker);
    writeFileSync(join(dir, `${"0".repeat(64)}.json`), "half of one");
    await copy.tick();
    expect(lines.at(-1)).toContain("clearance-keys.tick-failed");
    expect(await isGood(copy, jwt)).toBe(true);
  });

  it("rejects a start without any, and gives no clearance once none signs", async () => {
    expect(await codeOfAsync(() => start({ isCopied: true }))).toBe("SERVICE_CONFIG_INVALID");
    await start();
    const copy = await start({ isCopied: true });
    nowMs += 11 * DAY;
    await copy.tick();
    expect(lines.at(-1)).toContain("SERVICE_CONFIG_INVALID");
    expect(await copy.clearance.grant(HOST, nowMs)).toBeUndefined();
  });
});
