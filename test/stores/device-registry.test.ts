/** The device registry: what it remembers, refuses, forgets and survives. */
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import type { DeviceEntry } from "../../attest/index.ts";
import {
  type DeviceRegistryStore,
  openDeviceRegistry,
} from "../../service/stores/device-registry.ts";
import { openClassicLevel } from "../../service/stores/level.ts";
import { codeOfAsync } from "../support/reject.ts";

const DAY_MS = 86_400_000;
const manufacturer = "id:49424D20";
const record: DeviceEntry["record"] = {
  clockInfo: { clock: 2n ** 60n, resetCount: 7, restartCount: 2 ** 32 - 1, safe: true },
  firmwareVersion: 2n ** 64n - 1n,
  qualifiedSigner: new Uint8Array(34).fill(3),
  counters: "plain",
};
const entry = (pseudonym: string, deviceClass = "default"): DeviceEntry => ({
  pseudonym,
  manufacturer,
  deviceClass,
  record,
});
const device = (pseudonym: string): { pseudonym: string; manufacturer: string } => ({
  pseudonym,
  manufacturer,
});

const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
});

function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "stile-registry-"));
  cleanups.push(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

async function open(
  folder: string,
  clock: () => number = () => 0,
  openLevel = openClassicLevel,
): Promise<DeviceRegistryStore> {
  const registry = await openDeviceRegistry({ folder, retentionDays: 30, clock, openLevel });
  cleanups.push(() => registry.close());
  return registry;
}

describe("a device registry", () => {
  it("returns what was recorded, also after a restart, and the newest", async () => {
    const folder = newFolder();
    const first = await open(folder);
    expect(await first.lookUp(device("a"))).toBeUndefined();
    await first.record(entry("a"));
    const later = { ...record, counters: "blurred" as const, firmwareVersion: 1n };
    await first.record({ ...entry("a"), record: later });
    await first.close();
    const second = await open(folder);
    expect(await second.lookUp(device("a"))).toEqual(later);
    expect(await second.lookUp(device("b"))).toBeUndefined();
    expect(await second.checkAdmissible("a")).toBe("default");
    expect(await second.checkAdmissible("b")).toBeUndefined();
  });

  it("keeps no pseudonym in the clear", async () => {
    const folder = newFolder();
    const registry = await open(folder);
    const pseudonym = "pseudonym-that-must-not-be-kept";
    await registry.record(entry(pseudonym));
    await registry.revoke({ kind: "device", pseudonym });
    await registry.close();
    const kept = readdirSync(folder).map((name) => readFileSync(join(folder, name), "latin1"));
    expect(kept.join("")).toContain(manufacturer);
    expect(kept.join("")).not.toContain(pseudonym);
  });

  it.each([
    ["a device", { kind: "device", pseudonym: "a" }, 1],
    ["a manufacturer", { kind: "manufacturer", name: manufacturer }, 2],
    ["a class", { kind: "class", name: "gold" }, 2],
  ] as const)("rejects what is revoked: %s", async (_name, target, refused) => {
    const folder = newFolder();
    const before = await open(folder);
    await before.record(entry("a", "gold"));
    await before.record(entry("b", "gold"));
    await before.revoke(target);
    await before.revoke(target);
    await before.close();
    const registry = await open(folder);
    expect(await registry.revocations()).toHaveLength(1);
    for (const pseudonym of ["a", "b"].slice(0, refused)) {
      expect(await codeOfAsync(() => registry.lookUp(device(pseudonym)))).toBe(
        "ATTEST_DEVICE_REVOKED",
      );
      expect(await codeOfAsync(() => registry.checkAdmissible(pseudonym))).toBe(
        "ATTEST_DEVICE_REVOKED",
      );
      expect(await codeOfAsync(() => registry.record(entry(pseudonym, "gold")))).toBe(
        "ATTEST_DEVICE_REVOKED",
      );
    }
    if (refused === 1) expect(await registry.checkAdmissible("b")).toBe("gold");
    await registry.reinstate(target);
    expect(await registry.revocations()).toEqual([]);
    expect(await registry.lookUp(device("a"))).toEqual(record);
  });

  it("rejects the new of a revoked manufacturer or class, and no others", async () => {
    const registry = await open(newFolder());
    await registry.revoke({ kind: "manufacturer", name: "id:00000001" });
    await registry.revoke({ kind: "class", name: "gold" });
    const other = { pseudonym: "x", manufacturer: "id:00000001" };
    expect(await codeOfAsync(() => registry.lookUp(other))).toBe("ATTEST_DEVICE_REVOKED");
    expect(await codeOfAsync(() => registry.record(entry("x", "gold")))).toBe(
      "ATTEST_DEVICE_REVOKED",
    );
    await registry.record(entry("x", "silver"));
    expect(await registry.checkAdmissible("x")).toBe("silver");
  });

  it("forgets who was not seen for the retention time, and no revocation", async () => {
    let nowMs = 1_000 * DAY_MS;
    const registry = await open(newFolder(), () => nowMs);
    for (let i = 0; i < 1_500; i += 1) await registry.record(entry(`old ${i}`));
    await registry.revoke({ kind: "device", pseudonym: "old 1" });
    nowMs += 30 * DAY_MS;
    await registry.record(entry("old 0"));
    expect(await registry.sweep()).toBe(0);
    nowMs += DAY_MS;
    expect(await registry.sweep()).toBe(1_499);
    expect(await registry.sweep()).toBe(0);
    expect(await registry.lookUp(device("old 0"))).toEqual(record);
    expect(await registry.lookUp(device("old 2"))).toBeUndefined();
    expect(await codeOfAsync(() => registry.lookUp(device("old 1")))).toBe("ATTEST_DEVICE_REVOKED");
  });

  it("fails closed where a record is damaged, for that device alone", async () => {
    const folder = newFolder();
    const first = await open(folder);
    await first.record(entry("a"));
    await first.record(entry("b"));
    await first.close();
    const level = await openClassicLevel(folder, { createIfMissing: false });
    const keys = await level.keys(Uint8Array.of(0x64), Uint8Array.of(0x65), 10);
    const [damaged] = keys;
    if (damaged === undefined) throw new TypeError("two records expected");
    await level.writeDurably([{ key: damaged, value: Uint8Array.of(1, 2, 3) }]);
    await level.close();
    const registry = await open(folder);
    const outcomes = await Promise.all(
      ["a", "b"].map((pseudonym) => codeOfAsync(() => registry.lookUp(device(pseudonym)))),
    );
    expect(outcomes.filter((code) => code === "ATTEST_REGISTRY_UNAVAILABLE")).toHaveLength(1);
  });

  it("fails closed where it cannot be opened, and in a second process", async () => {
    const folder = newFolder();
    await open(folder);
    expect(await codeOfAsync(() => open(folder))).toBe("ATTEST_REGISTRY_UNAVAILABLE");
    const file = join(newFolder(), "file");
    writeFileSync(file, "");
    expect(await codeOfAsync(() => open(file))).toBe("ATTEST_REGISTRY_UNAVAILABLE");
  });

  it("refuses after it was closed", async () => {
    const registry = await open(newFolder());
    await registry.close();
    expect(await codeOfAsync(() => registry.lookUp(device("a")))).toBe(
      "ATTEST_REGISTRY_UNAVAILABLE",
    );
  });
});
