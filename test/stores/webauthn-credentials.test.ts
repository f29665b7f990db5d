/** The store of WebAuthn credentials: what it remembers, refuses, forgets and survives. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import type { StoredCredential } from "../../attest/webauthn-enrolment/index.ts";
import { openClassicLevel } from "../../service/stores/level.ts";
import {
  openWebAuthnCredentials,
  type WebAuthnCredentialStore,
} from "../../service/stores/webauthn-credentials.ts";
import { codeOfAsync } from "../support/reject.ts";

const DAY_MS = 86_400_000;
const handle = (name: number): Uint8Array => new Uint8Array(32).fill(name);
const credential: StoredCredential = {
  publicKey: new Uint8Array(77).fill(5),
  signCount: 2 ** 32 - 2,
  backupEligible: true,
  pseudonym: "p".repeat(43),
  aaguid: "08987058-cadc-4b81-b6e1-30de50dcbe96",
  format: "android-key",
  trust: "anchored",
};

const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
});

function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "stile-webauthn-"));
  cleanups.push(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

async function open(
  folder: string,
  clock: () => number = () => 0,
  openLevel = openClassicLevel,
): Promise<WebAuthnCredentialStore> {
  const store = await openWebAuthnCredentials({ folder, retentionDays: 30, clock, openLevel });
  cleanups.push(() => store.close());
  return store;
}

describe("a store of WebAuthn credentials", () => {
  it("returns what was added, also after a restart, and the newest counter", async () => {
    const folder = newFolder();
    const first = await open(folder);
    await first.add(handle(1), credential);
    const low = { ...credential, format: "packed", trust: "unanchored", signCount: 0 } as const;
    await first.add(handle(2), { ...low, backupEligible: false });
    await first.recordUse(handle(1), 2 ** 32 - 1);
    await first.close();
    const second = await open(folder);
    expect(await second.lookUp(handle(1))).toMatchObject({
      ...credential,
      signCount: 2 ** 32 - 1,
    });
    expect(await second.lookUp(handle(2))).toMatchObject({ ...low, backupEligible: false });
  });

  it("rejects a credential that it does not know, or knows already", async () => {
    const store = await open(newFolder());
    const unknown = "ATTEST_WEBAUTHN_CREDENTIAL_UNKNOWN";
    expect(await codeOfAsync(() => store.lookUp(handle(1)))).toBe(unknown);
    expect(await codeOfAsync(() => store.recordUse(handle(1), 1))).toBe(unknown);
    await store.add(handle(1), credential);
    expect(await codeOfAsync(() => store.add(handle(1), credential))).toBe(
      "ATTEST_WEBAUTHN_CREDENTIAL_EXISTS",
    );
  });

  it("rejects a counter that does not go up; of many at once with one counter, one is accepted", async () => {
    const store = await open(newFolder());
    await store.add(handle(1), { ...credential, signCount: 5 });
    for (const signCount of [0, 4, 5]) {
      expect(await codeOfAsync(() => store.recordUse(handle(1), signCount))).toBe(
        "ATTEST_WEBAUTHN_COUNTER_INVALID",
      );
    }
    const codes = await Promise.all(
      Array.from({ length: 20 }, () => codeOfAsync(() => store.recordUse(handle(1), 6))),
    );
    expect(codes.filter((code) => code === "nothing was thrown")).toHaveLength(1);
    // An authenticator without a counter says 0 each time.
    await store.add(handle(2), { ...credential, signCount: 0 });
    await store.recordUse(handle(2), 0);
    await store.recordUse(handle(2), 0);
  });

  it("forgets what did not attest for the retention time, whether or not it was swept", async () => {
    let nowMs = 100 * DAY_MS;
    const store = await open(newFolder(), () => nowMs);
    for (let i = 0; i < 5; i += 1) await store.add(handle(i), { ...credential, signCount: 0 });
    nowMs += 30 * DAY_MS;
    await store.recordUse(handle(0), 1);
    expect(await store.sweep()).toBe(0);
    nowMs += DAY_MS;
    expect(await codeOfAsync(() => store.lookUp(handle(1)))).toBe(
      "ATTEST_WEBAUTHN_CREDENTIAL_UNKNOWN",
    );
    // A forgotten credential may be registered again.
    await store.add(handle(1), credential);
    expect(await store.sweep()).toBe(3);
    expect(await store.lookUp(handle(0))).toMatchObject({ signCount: 1 });
    expect(await store.sweep()).toBe(0);
  });

  it("writes no credential id, and of a handle a half", async () => {
    const folder = newFolder();
    const store = await open(folder);
    const id = Uint8Array.from({ length: 32 }, (_, i) => 0xa0 + i);
    await store.add(id, credential);
    await store.close();
    const written = Buffer.concat(
      readdirSync(folder).map((name) => readFileSync(join(folder, name))),
    );
    expect(written.includes(id.subarray(0, 16))).toBe(true);
    expect(written.includes(id.subarray(0, 17))).toBe(false);
  });

  it("rejects everything while its disk fails, and where a record is damaged", async () => {
    const folder = newFolder();
    let isBroken = false;
    const store = await open(folder, undefined, async (at, options) => {
      const level = await openClassicLevel(at, options);
      return {
        ...level,
        getMany: (keys) => (isBroken ? Promise.reject(new Error("disk")) : level.getMany(keys)),
      };
    });
    const unavailable = "ATTEST_WEBAUTHN_STORE_UNAVAILABLE";
    await store.add(handle(1), credential);
    isBroken = true;
    expect(await codeOfAsync(() => store.lookUp(handle(1)))).toBe(unavailable);
    await store.close();
    const level = await openClassicLevel(folder, { createIfMissing: false });
    const [key] = await level.keys(Uint8Array.of(0), Uint8Array.of(255), 1);
    const [value] = await level.getMany([key ?? Uint8Array.of()]);
    for (const damaged of [
      (value ?? Uint8Array.of()).subarray(0, 40),
      Buffer.concat([Uint8Array.of(9), (value ?? Uint8Array.of()).subarray(1)]),
      Buffer.concat([
        (value ?? Uint8Array.of()).subarray(0, 10),
        Buffer.of(7),
        (value ?? Uint8Array.of()).subarray(11),
      ]),
    ]) {
      const damagedFolder = newFolder();
      const other = await openClassicLevel(damagedFolder, { createIfMissing: true });
      await other.writeDurably([{ key: key ?? Uint8Array.of(), value: damaged }]);
      await other.close();
      const reopened = await open(damagedFolder, () => 1_000 * DAY_MS);
      expect(await codeOfAsync(() => reopened.lookUp(handle(1)))).toBe(unavailable);
      expect(await codeOfAsync(() => reopened.add(handle(1), credential))).toBe(unavailable);
      // Not swept either: to forget it would be to forget its counter.
      expect(await reopened.sweep()).toBe(0);
    }
    await level.close();
  });

  it("rejects a second process, and a retention time of none", async () => {
    const folder = newFolder();
    await open(folder);
    expect(await codeOfAsync(() => open(folder))).toBe("ATTEST_WEBAUTHN_STORE_UNAVAILABLE");
    const none = { folder: newFolder(), retentionDays: 0, clock: () => 0 };
    await expect(openWebAuthnCredentials(none)).rejects.toThrow(RangeError);
  });
});
