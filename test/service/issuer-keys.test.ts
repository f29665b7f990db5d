/** The life of issuer keys under a clock that the test turns: 400 hours of it, with crashes in between. */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createIssuerKeys, type IssuerKeys } from "../../service/keys/issuer-keys.ts";
import { type Keystore, openKeystore } from "../../service/keystore/index.ts";
import { createMetrics } from "../../service/metrics.ts";
import { SigningPool } from "../../service/signing/index.ts";
import {
  createKeyRing,
  type KeyRing,
  type KeySchedule,
  TOKEN_TYPE_BLIND_RSA,
} from "../../tokens/index.ts";
import { encodeHex } from "../../wire/index.ts";
import { codeOfAsync } from "../support/reject.ts";

const HOUR = 3_600_000;
const schedule: KeySchedule = {
  tokenType: TOKEN_TYPE_BLIND_RSA,
  directoryLifetimeMs: HOUR,
  activeMs: 100 * HOUR,
  overlapMs: 2 * HOUR,
  retiredMs: 50 * HOUR,
};

const dir = mkdtempSync(join(tmpdir(), "stile-issuer-keys-"));
const pool = new SigningPool({ threads: 1 });
let nowMs = Date.UTC(2026, 0, 1);
let keystore: Keystore;
const revoked: string[] = [];
const directoryLog = {
  revoke: (id: Uint8Array): Promise<void> => {
    revoked.push(encodeHex(id));
    return Promise.resolve();
  },
  revoked: (): readonly string[] => revoked,
};
const dropped: string[] = [];
/** As the last tick told the store. */
const keptUntilMs = new Map<string, number>();
const lines: string[] = [];

beforeAll(async () => {
  keystore = await openKeystore({ dir, passphrase: Buffer.from("a test's passphrase") });
});
afterAll(async () => {
  await pool.close();
  rmSync(dir, { recursive: true });
});

/** What a start after a crash has: the files, and an empty ring. */
function restarted(tokenTypes?: readonly number[]): { keys: IssuerKeys; ring: KeyRing } {
  const ring = createKeyRing({ records: [], clock: () => nowMs });
  const keys = createIssuerKeys({
    ring,
    keystore,
    pool,
    directoryLog,
    schedule,
    ...(tokenTypes && { tokenTypes }),
    clock: () => nowMs,
    spentStore: {
      dropEpoch: (id) => {
        dropped.push(encodeHex(id));
        return Promise.resolve();
      },
      keepEpoch: (id, forMs) => {
        keptUntilMs.set(encodeHex(id), nowMs + forMs);
        return Promise.resolve(true);
      },
      dropPastEpochs: () => Promise.resolve(0),
    },
    log: {
      write: (level, event, fields) => lines.push(JSON.stringify({ level, event, ...fields })),
      flush: () => undefined,
    },
    metrics: createMetrics(),
  });
  return { keys, ring };
}

describe("issuer keys", () => {
  it("rotate without a gap, survive restarts, and are gone when they are destroyed", async () => {
    let { keys, ring } = restarted();
    await keys.start();
    const first = ring.signingKey(TOKEN_TYPE_BLIND_RSA);
    expect(first).toBeDefined();
    let changes = 0;
    let signing = first;
    for (let hour = 1; hour <= 400; hour += 1) {
      nowMs += HOUR;
      // Every 37th hour the process dies and starts anew.
      if (hour % 37 === 0) {
        ({ keys, ring } = restarted());
        await keys.start();
      } else await keys.tick();
      const current = ring.signingKey(TOKEN_TYPE_BLIND_RSA);
      if (current === undefined) throw new Error(`no key signs in hour ${hour}`);
      if (
        signing === undefined ||
        encodeHex(current.tokenKeyId) !== encodeHex(signing.tokenKeyId)
      ) {
        changes += 1;
        // Whoever cached the directory before it knew the key has asked again by now.
        expect(nowMs - current.publishedAtMs).toBeGreaterThanOrEqual(schedule.directoryLifetimeMs);
      }
      signing = current;
      expect(keys.list().length).toBeLessThanOrEqual(4);
      expect(readdirSync(dir)).toHaveLength(keys.list().length);
    }
    expect(changes).toBe(4);
    // The store was told of each key how long it redeems, and to drop none of them by this clock.
    expect(keptUntilMs.get(encodeHex(first?.tokenKeyId ?? new Uint8Array()))).toBe(
      first?.destroyAtMs,
    );
    expect(dropped).toEqual([]);
    const past = [...keptUntilMs].filter(([, untilMs]) => untilMs <= nowMs);
    expect(past.length).toBeGreaterThan(0);
    for (const [id] of past) expect(readdirSync(dir).join()).not.toContain(id);
    expect(lines.join()).not.toContain("tick-failed");
  });

  it("keep what they have when a tick fails, and say so without the cause's words", async () => {
    const { keys, ring } = restarted();
    await keys.start();
    const before = keys.list();
    const save = keystore.save.bind(keystore);
    keystore.save = () => Promise.reject(new Error("disk full at /secret/place"));
    nowMs = Math.max(...before.map((key) => Date.parse(key.retireAt))) - schedule.overlapMs;
    await keys.tick();
    expect(lines.at(-1)).toContain("keys.tick-failed");
    expect(lines.at(-1)).not.toContain("secret");
    expect(ring.signingKey(TOKEN_TYPE_BLIND_RSA)).toBeDefined();
    keystore.save = save;
    await keys.tick();
    expect(keys.list().length).toBeGreaterThan(1);
  });

  it("make keys of every type that is served, name the library, and let a dropped type die out", async () => {
    let { keys, ring } = restarted([5, 1, 2]);
    await keys.start();
    for (const [type, length] of [
      [1, 49],
      [2, 342],
      [5, 32],
    ] as const) {
      const record = ring.signingKey(type);
      expect(record?.publicKeySpki).toHaveLength(length);
      if (type === 2 || record === undefined) continue;
      const { tokenKeyId, publicKeySpki } = record;
      expect((await pool.blindSign(tokenKeyId, publicKeySpki)).length).toBeGreaterThan(length);
    }
    const named = lines.filter((line) => line.includes("keys.voprf-engine"));
    expect(named).toHaveLength(2);
    expect(named.join()).toMatch(/openssl 3.*libsodium|libsodium.*openssl 3/);
    const before = encodeHex(ring.signingKey(5)?.tokenKeyId ?? new Uint8Array());

    ({ keys, ring } = restarted([2]));
    await keys.start();
    expect(encodeHex(ring.signingKey(5)?.tokenKeyId ?? new Uint8Array())).toBe(before);
    nowMs += schedule.activeMs + schedule.retiredMs;
    await keys.tick();
    expect(keys.list().every(({ tokenType }) => tokenType === 2)).toBe(true);
    expect(keptUntilMs.get(before)).toBeLessThanOrEqual(nowMs);
    expect(readdirSync(dir).join()).not.toContain(before);
    expect(ring.signingKey(2)).toBeDefined();
  });

  it("rotate before their time, with a successor that is listed before it signs", async () => {
    let { keys, ring } = restarted();
    await keys.start();
    const [before] = keys.list();
    await keys.rotate();
    const [successor, shortened] = keys.list();
    expect([successor?.state, shortened?.state]).toEqual(["published", "active"]);
    expect(Date.parse(successor?.notBefore ?? "")).toBe(nowMs + schedule.directoryLifetimeMs);
    expect(shortened?.tokenKeyId).toBe(before?.tokenKeyId);
    const ends = nowMs + schedule.directoryLifetimeMs + schedule.overlapMs;
    expect(Date.parse(shortened?.retireAt ?? "")).toBe(ends);
    // Neither the plan nor a restart takes it back, and a second rotation has to wait.
    await keys.tick();
    expect(await codeOfAsync(() => keys.rotate())).toBe("TOKEN_KEY_ROTATION_REFUSED");
    expect(await codeOfAsync(() => keys.rotate(1))).toBe("SERVICE_NOT_FOUND");
    const shown = keys.list();
    ({ keys, ring } = restarted());
    await keys.start();
    expect(keys.list()).toEqual(shown);
    nowMs += schedule.directoryLifetimeMs;
    expect(encodeHex(ring.signingKey(2)?.tokenKeyId ?? new Uint8Array())).toBe(
      successor?.tokenKeyId,
    );
    nowMs += schedule.overlapMs;
    await keys.tick();
    expect(keys.list().map(({ state }) => state)).toEqual(["active", "retired"]);
  });

  it("are revoked at once, with a successor, and do not come back after a crash", async () => {
    let { keys, ring } = restarted();
    await keys.start();
    const old = ring.signingKey(2);
    const id = encodeHex(old?.tokenKeyId ?? new Uint8Array());
    await keys.revoke(id);
    expect(revoked).toContain(id);
    expect(ring.redemptionKey(old?.tokenKeyId ?? new Uint8Array())).toBeUndefined();
    expect(ring.signingKey(2)).toBeDefined();
    expect(readdirSync(dir).join()).not.toContain(id);
    expect(await codeOfAsync(() => keys.revoke(id))).toBe("SERVICE_NOT_FOUND");
    // A crash after the log's entry and before anything else.
    const next = encodeHex(ring.signingKey(2)?.tokenKeyId ?? new Uint8Array());
    revoked.push(next);
    ({ keys, ring } = restarted());
    await keys.start();
    expect(keys.list().map(({ tokenKeyId }) => tokenKeyId)).not.toContain(next);
    expect(ring.signingKey(2)).toBeDefined();
  });

  it("leave no gap where a key is revoked while its successor waits", async () => {
    const { keys, ring } = restarted();
    await keys.start();
    await keys.rotate();
    const waiting = keys.list().find(({ state }) => state === "published");
    await keys.revoke(encodeHex(ring.signingKey(2)?.tokenKeyId ?? new Uint8Array()));
    const bridge = ring.signingKey(2);
    expect(bridge?.retireAtMs).toBe(Date.parse(waiting?.notBefore ?? "") + schedule.overlapMs);
    const shown = keys.list();
    await keys.tick();
    expect(keys.list()).toEqual(shown);
    nowMs = Date.parse(waiting?.notBefore ?? "");
    expect(encodeHex(ring.signingKey(2)?.tokenKeyId ?? new Uint8Array())).toBe(waiting?.tokenKeyId);
  });

  it("are dead although followers cannot be told yet, and the operator hears of it", async () => {
    const { keys, ring } = restarted();
    await keys.start();
    const key = ring.signingKey(2)?.tokenKeyId ?? new Uint8Array();
    const { revoke } = directoryLog;
    directoryLog.revoke = () => Promise.reject(new Error("disk full"));
    await expect(keys.revoke(encodeHex(key))).rejects.toThrow("disk full");
    expect(revoked).not.toContain(encodeHex(key));
    directoryLog.revoke = revoke;
    await keys.tick();
    await keys.tick();
    expect(revoked.filter((id) => id === encodeHex(key))).toHaveLength(1);
    expect(ring.redemptionKey(key)).toBeUndefined();
    expect(readdirSync(dir).join()).not.toContain(encodeHex(key));
    expect(ring.signingKey(2)).toBeDefined();
  });

  it("are not brought back by a rotation that was under way when they were revoked", async () => {
    const { keys, ring } = restarted();
    await keys.start();
    nowMs = Math.max(...keys.list().map(({ notBefore }) => Date.parse(notBefore)));
    const old = ring.signingKey(2)?.tokenKeyId ?? new Uint8Array();
    const id = encodeHex(old);
    const save = keystore.save.bind(keystore);
    let revocation: Promise<void> | undefined;
    // While the rotation writes the successor; the new end of the old key's life is still to be written.
    keystore.save = async (record, privateKey) => {
      revocation ??= keys.revoke(id);
      await save(record, privateKey);
    };
    await keys.rotate();
    keystore.save = save;
    expect(revocation).toBeDefined();
    await revocation;
    expect(ring.redemptionKey(old)).toBeUndefined();
    expect(keys.list().map(({ tokenKeyId }) => tokenKeyId)).not.toContain(id);
    expect(readdirSync(dir).join()).not.toContain(id);
    expect(ring.signingKey(2)).toBeDefined();
  });
});
