import { createDecipheriv, scryptSync } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { encodeSealedFile, parseSealedFile } from "../../service/keystore/sealed-file.ts";
import { Sealer } from "../../service/keystore/sealer.ts";
import { encodeUtf8 } from "../../wire/index.ts";
import { codeOf, codeOfAsync } from "../support/reject.ts";

const passphrase = encodeUtf8("correct horse battery staple");
const content = encodeUtf8("a secret of some bytes");
const sealer = new Sealer(passphrase);
let file: Uint8Array;

beforeAll(async () => {
  file = await sealer.seal("test", { name: "a", at: 1 }, content);
});

/** The file with one piece of its text replaced. */
function changed(from: string | RegExp, to: string): Uint8Array {
  const before = Buffer.from(file).toString();
  const after = before.replace(from, to);
  if (after === before) throw new Error("nothing was changed");
  return encodeUtf8(after);
}

/** The first byte of the ciphertext with one bit turned over. */
function flipped(): string {
  const first = Number.parseInt(parseSealedFile(file).ciphertext.slice(0, 2), 16);
  return (first ^ 1).toString(16).padStart(2, "0");
}

describe("sealed file", () => {
  it("opens with plain scrypt and AES-256-GCM as the header says", () => {
    const { header, iv, ciphertext, tag } = parseSealedFile(file);
    const { n, r, p, salt } = header.kdf;
    expect([n, r, p]).toEqual([131_072, 8, 1]);
    const options = { N: n, r, p, maxmem: 2 ** 28 };
    const key = scryptSync(passphrase, Buffer.from(salt, "hex"), 32, options);
    const decipher = createDecipheriv("aes-256-gcm", key, Buffer.from(iv, "hex"));
    // Written out here, so that a change of the associated data cannot go unseen.
    const aad = `{"version":1,"purpose":"test","kdf":{"name":"scrypt","n":131072,"r":8,"p":1,"salt":"${salt}"},"metadata":{"name":"a","at":1},"cipher":"aes-256-gcm"}`;
    decipher.setAAD(Buffer.from(aad)).setAuthTag(Buffer.from(tag, "hex"));
    const opened = Buffer.concat([
      decipher.update(Buffer.from(ciphertext, "hex")),
      decipher.final(),
    ]);
    expect(opened.toString()).toBe("a secret of some bytes");
  });

  it("opens what was sealed, with a new IV each time", async () => {
    const opened = await sealer.open("test", file);
    expect(opened.metadata).toEqual({ name: "a", at: 1 });
    expect(Buffer.from(opened.content)).toEqual(Buffer.from(content));
    const again = parseSealedFile(await sealer.seal("test", { name: "a", at: 1 }, content));
    expect(again.iv).not.toBe(parseSealedFile(file).iv);
    expect(encodeSealedFile(parseSealedFile(file))).toEqual(file);
  });

  it.each<[string, () => Uint8Array]>([
    ["a changed instant", () => changed(`"at": 1`, `"at": 2`)],
    ["a changed name", () => changed(`"name": "a"`, `"name": "b"`)],
    ["a changed ciphertext", () => changed(/"ciphertext": "../, `"ciphertext": "${flipped()}`)],
    ["a changed IV", () => changed(/"iv": ".{24}/, `"iv": "${"0".repeat(24)}`)],
    ["a changed tag", () => changed(/"tag": ".{32}/, `"tag": "${"0".repeat(32)}`)],
    ["a lower cost", () => changed("131072", "65536")],
    ["a cost that exhausts memory", () => changed("131072", "1048576")],
    ["a cost that is no power of two", () => changed("131072", "131073")],
    ["another block size", () => changed(`"r": 8`, `"r": 1`)],
    ["another version", () => changed(`"version": 1`, `"version": 2`)],
    ["another cipher", () => changed("aes-256-gcm", "aes-128-gcm")],
    ["another purpose", () => changed(`"test"`, `"tests"`)],
    ["an unknown member", () => changed(`"iv"`, `"x": 1,\n  "iv"`)],
    ["a repeated member", () => changed(`"version": 1,`, `"version": 1,\n  "version": 1,`)],
    ["a missing member", () => changed(/ {2}"iv".*\n/, "")],
    ["nested metadata", () => changed(`"at": 1`, `"at": [1]`)],
    ["an array as metadata", () => changed(/"metadata": \{[^}]*\}/, `"metadata": []`)],
    ["a member that is no own one", () => changed(`"name": "a"`, `"__proto__": "a"`)],
    ["other white space", () => changed("{\n", "{ \n")],
    ["upper-case hexadecimal", () => changed(/"tag": ".{32}/, `"tag": "${"A".repeat(32)}`)],
    ["a truncated file", () => file.subarray(0, -20)],
    ["a file that lacks its last byte", () => file.subarray(0, -1)],
    ["an empty file", () => new Uint8Array(0)],
    ["a file that is no text", () => new Uint8Array(64).fill(0xff)],
    ["a large file", () => new Uint8Array(64 * 1024 + 1)],
  ])("rejects %s", async (_, make) => {
    expect(await codeOfAsync(() => sealer.open("test", make()))).toBe("TOKEN_KEY_STORE_INVALID");
  });

  it("rejects a file at every truncation", () => {
    for (let length = 0; length < file.length; length += 1) {
      const code = codeOf(() => parseSealedFile(file.subarray(0, length)));
      expect(code).toBe("TOKEN_KEY_STORE_INVALID");
    }
  });

  it("rejects the wrong passphrase and another purpose", async () => {
    const other = new Sealer(encodeUtf8("correct horse battery stapler"));
    expect(await codeOfAsync(() => other.open("test", file))).toBe("TOKEN_KEY_STORE_INVALID");
    expect(await codeOfAsync(() => sealer.open("tests", file))).toBe("TOKEN_KEY_STORE_INVALID");
  });

  it("rejects a short passphrase", () => {
    expect(() => new Sealer(encodeUtf8("seven b"))).toThrow(RangeError);
  });

  it("rejects files of more stores than anyone copies together, without deriving for each", async () => {
    const fresh = new Sealer(passphrase);
    const codes: string[] = [];
    const results = Array.from({ length: 5 }, (_, i) =>
      codeOfAsync(() =>
        fresh.open("test", changed(/"salt": ".{32}/, `"salt": "${String(i).repeat(32)}`)),
      ),
    );
    codes.push(...(await Promise.all(results)));
    expect(new Set(codes)).toEqual(new Set(["TOKEN_KEY_STORE_INVALID"]));
    await expect(fresh.open("test", file)).rejects.toThrow("too many stores");
  });
});
