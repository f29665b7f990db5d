import {
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { openKeystore, openSecrets } from "../../service/keystore/index.ts";
import type { IssuerKeyRecord } from "../../tokens/index.ts";
import { type BlindRsaKeyPair, generateBlindRsaKey, rawRsaSign } from "../../tokens/node/index.ts";
import { encodeHex, encodeUtf8 } from "../../wire/index.ts";
import { codeOfAsync } from "../support/reject.ts";
import { voprfKey } from "../tokens/voprf-fixtures.ts";
import { testFolder } from "../stores/support/folder.ts";

const passphrase = encodeUtf8("correct horse battery staple");
const INVALID = "TOKEN_KEY_STORE_INVALID";
let pairs: readonly BlindRsaKeyPair[] = [];

beforeAll(async () => {
  pairs = await Promise.all(Array.from({ length: 8 }, () => generateBlindRsaKey()));
});

function recordOf({ tokenKeyId, publicKeySpki }: BlindRsaKeyPair, start = 1_000): IssuerKeyRecord {
  return {
    tokenType: 2,
    tokenKeyId,
    publicKeySpki,
    publishedAtMs: start,
    notBeforeMs: start + 1,
    retireAtMs: start + 2,
    destroyAtMs: start + 3,
  };
}

async function filled(dir: string, count: number): Promise<void> {
  const keystore = await openKeystore({ dir, passphrase });
  for (const pair of pairs.slice(0, count)) await keystore.save(recordOf(pair), pair.privateKey);
}

describe("keystore", () => {
  it("gives back 8 keys after a restart, with one key derivation", async () => {
    const dir = join(testFolder(), "deep", "keys");
    await filled(dir, 8);
    const before = process.cpuUsage();
    const keys = await (await openKeystore({ dir, passphrase })).load();
    // Eight derivations would take some three seconds of one core. Of this process: others may keep it waiting.
    const { system, user } = process.cpuUsage(before);
    expect((system + user) / 1_000).toBeLessThan(2_000);
    const salts = readdirSync(dir).map((name) => {
      return /"salt": "([0-9a-f]{32})"/.exec(readFileSync(join(dir, name), "utf8"))?.[1];
    });
    expect(new Set(salts).size).toBe(1);
    const sorted = [...pairs].sort((a, b) => Buffer.compare(a.tokenKeyId, b.tokenKeyId));
    expect(keys.map(({ record }) => record)).toEqual(sorted.map((pair) => recordOf(pair)));
    const message = new Uint8Array(256).fill(1);
    for (const [i, { privateKey }] of keys.entries()) {
      expect(rawRsaSign(privateKey, message)).toEqual(rawRsaSign(sorted[i]!.privateKey, message));
    }
  });

  it("writes files for the owner alone, without the private key in the clear", async () => {
    const dir = join(testFolder(), "keys");
    await filled(dir, 1);
    const [name = ""] = readdirSync(dir);
    expect(name).toBe(`${encodeHex(pairs[0]!.tokenKeyId)}.json`);
    expect(statSync(dir).mode & 0o777).toBe(0o700);
    expect(statSync(join(dir, name)).mode & 0o777).toBe(0o600);
    const text = readFileSync(join(dir, name), "latin1");
    const { d = "", p = "" } = pairs[0]!.privateKey.export({ format: "jwk" });
    for (const secret of [d, p]) {
      expect(text).not.toContain(secret.slice(4, 40));
      expect(text).not.toContain(Buffer.from(secret, "base64url").toString("hex").slice(4, 40));
    }
  });

  it("keeps the scalars of private types, sealed, and only with their own record", async () => {
    const dir = testFolder();
    const keystore = await openKeystore({ dir, passphrase });
    const [p384, ristretto] = [voprfKey(1), voprfKey(5)];
    for (const { record, privateKey } of [p384, ristretto]) await keystore.save(record, privateKey);
    const loaded = await (await openKeystore({ dir, passphrase })).load();
    expect(loaded).toHaveLength(2);
    for (const { record, privateKey } of [p384, ristretto]) {
      const found = loaded.find((key) => key.record.tokenType === record.tokenType);
      expect(found?.record).toEqual(record);
      expect(found?.privateKey.equals(privateKey)).toBe(true);
      const text = readdirSync(dir).map((name) => readFileSync(join(dir, name), "latin1"));
      expect(text.join()).not.toContain(privateKey.export().toString("hex").slice(8, 40));
    }
    for (const [record, privateKey] of [
      [p384.record, ristretto.privateKey],
      [ristretto.record, voprfKey(5).privateKey],
      [{ ...ristretto.record, tokenType: 2 }, ristretto.privateKey],
      [ristretto.record, pairs[0]!.privateKey],
      [recordOf(pairs[0]!), ristretto.privateKey],
    ] as const) {
      await expect(keystore.save(record, privateKey)).rejects.toThrow(RangeError);
    }
  });

  it("replaces a record and removes a key with what a crash left of writing it", async () => {
    const dir = testFolder();
    const { privateKey, tokenKeyId } = pairs[0]!;
    const keystore = await openKeystore({ dir, passphrase });
    await keystore.save(recordOf(pairs[0]!), privateKey);
    await keystore.save(recordOf(pairs[0]!, 5), privateKey);
    expect((await keystore.load()).map(({ record }) => record)).toEqual([recordOf(pairs[0]!, 5)]);
    writeFileSync(join(dir, `${encodeHex(tokenKeyId)}.json.00ff.partial`), "half");
    expect(await keystore.load()).toHaveLength(1);
    await keystore.remove(tokenKeyId);
    await keystore.remove(tokenKeyId);
    expect(readdirSync(dir)).toEqual([]);
  });

  it("rejects the whole store for one spoilt, swapped, misnamed or foreign file", async () => {
    const dir = testFolder();
    await filled(dir, 3);
    const keystore = await openKeystore({ dir, passphrase });
    const [first = "", second = ""] = readdirSync(dir).map((name) => join(dir, name));
    const whole = readFileSync(second);
    const attempts: readonly (() => void)[] = [
      () => writeFileSync(second, whole.subarray(0, 500)),
      () =>
        writeFileSync(second, whole.toString().replace(`"retireAtMs": 1002`, `"retireAtMs": 9002`)),
      () => writeFileSync(second, whole.toString().replace(`"tokenType": 2`, `"tokenType": 1`)),
      () => writeFileSync(second, readFileSync(first)),
      () => writeFileSync(join(dir, "notes.json"), "{}"),
      () => writeFileSync(join(dir, `${"0".repeat(64)}.json`), whole),
    ];
    for (const attempt of attempts) {
      attempt();
      expect(await codeOfAsync(() => keystore.load())).toBe(INVALID);
      for (const name of readdirSync(dir)) {
        if (name.startsWith("0".repeat(64)) || name === "notes.json") {
          renameSync(join(dir, name), join(dir, `${name}.away`));
        }
      }
      writeFileSync(second, whole);
      expect(await keystore.load()).toHaveLength(3);
    }
  });

  it("rejects the wrong passphrase before it seals anything under it", async () => {
    const dir = testFolder();
    await filled(dir, 1);
    const wrong = encodeUtf8("incorrect horse");
    expect(await codeOfAsync(() => openKeystore({ dir, passphrase: wrong }))).toBe(INVALID);
  });

  it("rejects a private key that is not that of the record", async () => {
    const keystore = await openKeystore({ dir: testFolder(), passphrase });
    const record = recordOf(pairs[0]!);
    await expect(keystore.save(record, pairs[1]!.privateKey)).rejects.toBeInstanceOf(RangeError);
    const otherType = { ...record, tokenType: 1 };
    await expect(keystore.save(otherType, pairs[0]!.privateKey)).rejects.toBeInstanceOf(RangeError);
  });
});

describe("secrets", () => {
  it("creates a secret once, also for calls and stores at the same time, and keeps it", async () => {
    const dir = testFolder();
    let created = 0;
    const create = (): Uint8Array => {
      created += 1;
      return new Uint8Array(32).fill(created);
    };
    const stores = await Promise.all([
      openSecrets({ dir, passphrase }),
      openSecrets({ dir, passphrase }),
    ]);
    const all = await Promise.all(
      [...stores, ...stores].map((secrets) => secrets.getOrCreate("challenge-secret", create)),
    );
    for (const secret of all) expect(secret).toEqual(all[0]);
    const later = await openSecrets({ dir, passphrase });
    const before = created;
    expect(await later.getOrCreate("challenge-secret", create)).toEqual(all[0]);
    expect(created).toBe(before);
    expect(await later.getOrCreate("pseudonym", create)).not.toEqual(all[0]);
    expect(readdirSync(dir).sort()).toEqual(["challenge-secret.json", "pseudonym.json"]);
  });

  it("rejects a spoilt or swapped secret and never makes a new one in its place", async () => {
    const dir = testFolder();
    const secrets = await openSecrets({ dir, passphrase });
    await secrets.getOrCreate("a", () => new Uint8Array(32).fill(1));
    await secrets.getOrCreate("b", () => new Uint8Array(32).fill(2));
    writeFileSync(join(dir, "a.json"), readFileSync(join(dir, "b.json")));
    const create = (): Uint8Array => {
      throw new Error("it must not be made again");
    };
    expect(await codeOfAsync(() => secrets.getOrCreate("a", create))).toBe(INVALID);
    writeFileSync(join(dir, "a.json"), "");
    expect(await codeOfAsync(() => secrets.getOrCreate("a", create))).toBe(INVALID);
    expect(await secrets.getOrCreate("b", create)).toEqual(new Uint8Array(32).fill(2));
    expect(await codeOfAsync(() => openSecrets({ dir, passphrase }))).toBe(INVALID);
  });

  it("rejects the wrong passphrase, names that are paths, and secrets without bytes", async () => {
    const dir = testFolder();
    const secrets = await openSecrets({ dir, passphrase });
    await secrets.getOrCreate("a", () => new Uint8Array(1));
    const wrong = encodeUtf8("incorrect horse");
    expect(await codeOfAsync(() => openSecrets({ dir, passphrase: wrong }))).toBe(INVALID);
    for (const name of ["../a", "A", "", "a/b", "a.json"]) {
      const made = secrets.getOrCreate(name, () => new Uint8Array(1));
      await expect(made).rejects.toBeInstanceOf(RangeError);
    }
    for (const length of [0, 8_193]) {
      const made = secrets.getOrCreate("length", () => new Uint8Array(length));
      await expect(made).rejects.toBeInstanceOf(RangeError);
    }
    expect(existsSync(join(dir, "length.json"))).toBe(false);
  });
});
