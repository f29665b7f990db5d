/** The pinned bundle of manufacturers (checklist A2, A12), also made of the captured corpora. */
import { createHash, generateKeyPairSync, X509Certificate } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import {
  type ManufacturerBundle,
  parseManufacturerBundle,
  verifyEkCertificate,
} from "../../attest/ek/index.ts";
import { concatBytes, encodeUtf8 } from "../../wire/index.ts";
import { codeOfAsync } from "../support/reject.ts";
import { readSharedJson, sharedDir, sharedMissing } from "../support/shared.ts";
import { createDerCa } from "./support/der-certificate.ts";

const INVALID = "ATTEST_ROOT_BUNDLE_INVALID";
const UNTRUSTED = "ATTEST_EK_CHAIN_UNTRUSTED";
const VERSION = "2026-11";
const AT_MS = Date.UTC(2024, 0, 1);

const pinOf = (bytes: Uint8Array): { version: string; sha256: string } => ({
  version: VERSION,
  sha256: createHash("sha256").update(bytes).digest("hex"),
});
const parse = (bytes: Uint8Array): Promise<ManufacturerBundle> =>
  parseManufacturerBundle(bytes, pinOf(bytes));
const jsonOf = (value: unknown): Uint8Array => encodeUtf8(JSON.stringify(value));
const base64Of = (pem: string): string => pem.replaceAll(/-----[A-Z ]+-----|\s/g, "");

const ca = createDerCa();
const other = createDerCa();
const { publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const spki = new Uint8Array(publicKey.export({ type: "spki", format: "der" }));
const ST = "id:53544D20";
const INFINEON = "id:49465800";

interface Row {
  readonly name: string;
  readonly vendorIds?: readonly string[];
  readonly anchors: readonly string[];
  readonly intermediates?: readonly string[];
}
const bundle = (manufacturers: readonly Row[]): Uint8Array =>
  jsonOf({ format: "stile-manufacturers/1", version: VERSION, manufacturers });

async function judge(bytes: Uint8Array, manufacturer: string): Promise<string> {
  const { roots } = await parse(bytes);
  return codeOfAsync(() =>
    verifyEkCertificate({
      certificates: [ca.issue(spki, { manufacturer })],
      ekPublicKeySpki: spki,
      ekKeyType: "ecc",
      roots,
      atMs: Date.UTC(2026, 0, 1),
    }),
  );
}

describe("a bundle", () => {
  it("is read as PEM or as JSON", async () => {
    const pem = encodeUtf8(`# manufacturers\n${ca.rootPem}`);
    expect(await parse(pem)).toMatchObject({ version: VERSION, manufacturers: [] });
    expect(await judge(pem, ST)).toBe("nothing was thrown");
    const json = bundle([{ name: "ST", anchors: [base64Of(ca.rootPem)] }]);
    const parsed = await parse(json);
    expect(parsed.manufacturers).toMatchObject([{ name: "ST", vendorIds: [], intermediates: [] }]);
    expect(await judge(json, ST)).toBe("nothing was thrown");
  });

  it("A2: refuses a file that is not the pinned one, in any byte", async () => {
    const bytes = encodeUtf8(ca.rootPem);
    const pin = pinOf(bytes);
    for (let index = 0; index < bytes.length; index += 1) {
      const changed = Uint8Array.from(bytes, (byte, i) => (i === index ? byte ^ 1 : byte));
      expect(await codeOfAsync(() => parseManufacturerBundle(changed, pin))).toBe(INVALID);
    }
    const longer = concatBytes([bytes, encodeUtf8("\n")]);
    expect(await codeOfAsync(() => parseManufacturerBundle(longer, pin))).toBe(INVALID);
    expect(await codeOfAsync(() => parseManufacturerBundle(bytes.subarray(1), pin))).toBe(INVALID);
  });

  it("A2: refuses another version than the pinned one", async () => {
    const bytes = bundle([{ name: "ST", anchors: [base64Of(ca.rootPem)] }]);
    const pin = { ...pinOf(bytes), version: "2026-10" };
    expect(await codeOfAsync(() => parseManufacturerBundle(bytes, pin))).toBe(INVALID);
  });

  it("rejects a pin that is no digest as the caller's mistake", async () => {
    const bytes = encodeUtf8(ca.rootPem);
    for (const sha256 of ["", "00", "AB".repeat(32)]) {
      await expect(parseManufacturerBundle(bytes, { version: "1", sha256 })).rejects.toThrow(
        RangeError,
      );
    }
  });

  it("A2: refuses an EK of another vendor than its root is for", async () => {
    const anchors = [base64Of(ca.rootPem)];
    const confined = bundle([{ name: "ST", vendorIds: [ST], anchors }]);
    expect(await judge(confined, ST)).toBe("nothing was thrown");
    expect(await judge(confined, INFINEON)).toBe(UNTRUSTED);
    const shared = bundle([
      { name: "ST", vendorIds: [ST], anchors },
      { name: "Infineon", vendorIds: [INFINEON], anchors },
    ]);
    expect(await judge(shared, INFINEON)).toBe("nothing was thrown");
    expect((await parse(shared)).roots.anchors).toHaveLength(1);
  });

  it("A2: refuses an EK whose root is only among the intermediates", async () => {
    const listed = bundle([
      { name: "ST", anchors: [base64Of(other.rootPem)], intermediates: [base64Of(ca.rootPem)] },
    ]);
    expect(await judge(listed, ST)).toBe(UNTRUSTED);
  });

  it("A1: refuses what it does not understand", async () => {
    const anchors = [base64Of(ca.rootPem)];
    const good = { format: "stile-manufacturers/1", version: VERSION, manufacturers: [] };
    const row = { name: "ST", anchors };
    const bad: readonly unknown[] = [
      good,
      { ...good, format: "stile-manufacturers/2", manufacturers: [row] },
      { ...good, manufacturers: [row], more: 1 },
      { ...good, manufacturers: row },
      { ...good, manufacturers: [null] },
      { ...good, manufacturers: [{ ...row, name: "" }] },
      { ...good, manufacturers: [{ ...row, more: 1 }] },
      { ...good, manufacturers: [{ ...row, vendorIds: ["STM"] }] },
      { ...good, manufacturers: [{ ...row, vendorIds: ["id:53544d20"] }] },
      { ...good, manufacturers: [{ ...row, anchors: [1] }] },
      { ...good, manufacturers: [{ ...row, anchors: ["AAAA"] }] },
      { ...good, manufacturers: [{ ...row, anchors: ["*"] }] },
      { ...good, manufacturers: [{ name: "ST" }] },
      { ...good, manufacturers: Array.from({ length: 257 }, () => row) },
      { ...good, manufacturers: [{ ...row, intermediates: "x" }] },
    ];
    for (const value of bad) {
      const text = JSON.stringify(value).slice(0, 120);
      expect(await codeOfAsync(() => parse(jsonOf(value))), text).toBe(INVALID);
    }
    const texts = [
      "",
      "{",
      "text",
      "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ];
    for (const text of texts)
      expect(await codeOfAsync(() => parse(encodeUtf8(text)))).toBe(INVALID);
    expect(await codeOfAsync(() => parse(Uint8Array.of(0xff, 0xfe)))).toBe(INVALID);
    const large = new Uint8Array(16 * 1024 * 1024 + 1);
    const pin = { version: VERSION, sha256: "00".repeat(32) };
    expect(await codeOfAsync(() => parseManufacturerBundle(large, pin))).toBe(INVALID);
  });
});

describe.skipIf(sharedMissing)("a bundle of the captured manufacturers", () => {
  const folder = join(sharedDir, "corpora", "manufacturer-roots");
  const read = (name: string): string => readFileSync(join(folder, name), "utf8");
  const samples = sharedMissing
    ? []
    : (readSharedJson("corpora/ek-certs/keylime.json") as { name: string; der: string }[]);
  const st = Buffer.from(
    samples.find(({ name }) => name === "st_ecdsa_sha256_der")?.der ?? "",
    "base64",
  );

  const verify = async (bytes: Uint8Array): Promise<unknown> => {
    const { roots } = await parse(bytes);
    return verifyEkCertificate({
      certificates: [new Uint8Array(st)],
      ekPublicKeySpki: new Uint8Array(
        new X509Certificate(st).publicKey.export({ type: "spki", format: "der" }),
      ),
      ekKeyType: "ecc",
      roots,
      atMs: AT_MS,
    });
  };

  it("reads all 51 as PEM, and as JSON with one manufacturer for each prefix", async () => {
    const names = readdirSync(folder).filter((name) => name.endsWith(".pem"));
    const pem = await parse(encodeUtf8(names.map(read).join("\n")));
    const prefixes = [
      ...new Set(names.map((name) => name.split("_")[0]?.replace(/\d+\.pem$/, "") ?? name)),
    ];
    const rows = prefixes.map((prefix) => {
      const own = names.filter((name) => name.startsWith(prefix)).map(read);
      const isRoot = (text: string): boolean => {
        const x509 = new X509Certificate(text);
        return x509.subject === x509.issuer && x509.verify(x509.publicKey);
      };
      return {
        name: prefix,
        anchors: own.filter(isRoot).map((text) => base64Of(text.slice(text.indexOf("-----BEGIN")))),
        intermediates: own
          .filter((text) => !isRoot(text))
          .map((text) => base64Of(text.slice(text.indexOf("-----BEGIN")))),
      };
    });
    const json = await parse(bundle(rows));
    const print = ({ roots }: ManufacturerBundle): Set<string> =>
      new Set(roots.anchors.map(({ der }) => Buffer.from(der).toString("base64")));
    expect(print(json)).toStrictEqual(print(pem));
    expect(json.roots.intermediates).toHaveLength(pem.roots.intermediates.length);
  });

  it("anchors ST's ECC intermediate by name, whose own root is not public", async () => {
    const anchors = [base64Of(read("STM_ECC_01I.pem"))];
    const named = bundle([{ name: "ST", vendorIds: [ST], anchors }]);
    expect(await verify(named)).toMatchObject({ manufacturer: ST, model: "ST33HTPHAHB4" });
    const wrong = bundle([{ name: "Infineon", vendorIds: [INFINEON], anchors }]);
    expect(await codeOfAsync(() => verify(wrong))).toBe(UNTRUSTED);
  });
});
