/** Known-weak keys and vulnerable firmware (checklist A10). */
import { createPublicKey, generateKeyPairSync } from "node:crypto";
import { describe, expect, it } from "vitest";
import {
  checkFirmware,
  exactVersion,
  type FirmwarePolicy,
  parseTpmVersion,
  parseTrustedRoots,
  type TpmFirmware,
  VULNERABLE_FIRMWARE,
  verifyEkCertificate,
} from "../../attest/ek/index.ts";
import { hasRocaFingerprint } from "../../attest/keys/roca.ts";
import { checkAkPublic, encodeTpm2bPublic, hashRow, parseTpm2bPublic } from "../../attest/index.ts";
import { codeOf, codeOfAsync } from "../support/reject.ts";
import { createDerCa } from "./support/der-certificate.ts";
import { rocaModulus, rsaSpkiOf } from "./support/roca.ts";

const WEAK = "ATTEST_KEY_WEAK";
const REFUSED = "ATTEST_FIRMWARE_REFUSED";

/** Test data of crocs-muni/roca (MIT), the detector of the flaw's finders. */
const FLAGGED_THERE = [
  // roca/tests/data/mod03.txt
  Buffer.from(
    "9dcd7420e420c270a68060eb8b5aa7457a9f6648f86fafed2775cc1f79ae962f1e63f1b9e51c55f9ea6fdc7332e9b0058c9ff2eb1fc89855029cf6aafe21e689feb38ac9ffb12f1ce371bb5d0e9aae64161abce74b4244bf68f1edb4411f756a097c8929c14740245ea355f8332d1aa36bb50c7dcb4505da8de02e4e53d38f8df06097da7524df0df93db48eac8cc4af2d3a16257eb2b2adca6ba464e5974fa92550d31b1babf161e7692d00b86e3dd886ecab4abfbe1a8f8cc263ff4af55cdb45f4249a5193925f5e983d762f0b6800943eb0267b08f42ed311ce1f5c86eacbc8ce4d3cb7a2fee1ef5641423a1cf4114e5ecf50034a60a412523af9e6f4aa11",
    "hex",
  ),
  // roca/tests/data/pubkey03.pem
  modulusOf(
    "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEBqcWmh9uPsqMPgt/43aFUwpHvJ7BLJeGFuKsgxMal9gSFn+We3lSgr3wOcoiACtcZO7cxpb8eEXDXocZpMNQeo+sh3t97ivXUKpHDT3IEW5bv1XyxgjAd3MJpZ+VQjpq4iZhtV+g33+cPmfw3xJj0PBfDubBkz3BEQ9egM+A6ghaXqr8w+ynufTOzdnllqJBY47OXVL06HAB9KKI7DPp5+dcRrG5MS093sGNLHs1oWRrwPH1TtipfLZEWPU70+PJoMa5GHthexfeIxRI//BLIdCD9z+odG0pSw1IYJPs5mDSHObYqmG2OdrIom8Lri8BtE4FHhRuDoHGD0hBVn5BjIQIDAQAB",
  ),
];
/**
 * roca/tests/test_fingerprint.py, `test_fake_mods`: pass the test that looks at each prime alone and are
 * not of the flawed generator.
 */
const PASSED_THERE = [
  72414128973967872688332736535017614208620368242015797102796086827882754006260204061799547004983731426777596445658889886861027045033760014948048067467947960318205453778973975867532910489227970143091184725760290172935872752222320334100097730483600892686353719855397381316384244147860260153198611313067061116317n,
  138345973265163614694352477004469191286459111070564516299381495188624946671065451924677704628892476011773201612117597303315530745738015579159106259811204610647347662150159814774894784524366138220226431598991937057442020694466365850170057813627445465881816985939192840583168136876337135351417253708364245923133n,
  60828061238058485055546209519792949600733446820687109700021551748017165461584398468231416589035982737511901116540885252089750919566836183252857475484338913841291095222387779067564971983760619814471104385614285949705697261702933899278537712383849527252611987939947273446907728942539157463443880598175266703887n,
];

function modulusOf(base64: string): Uint8Array {
  const der = Buffer.from(base64, "base64");
  const { n = "" } = createPublicKey({ key: der, format: "der", type: "spki" }).export({
    format: "jwk",
  });
  return Buffer.from(n, "base64url");
}

const MADE = [rocaModulus("one"), rocaModulus("two")] as const;

describe("the fingerprint of CVE-2017-15361", () => {
  it("is on the keys that the finders' detector flags, and on keys of that structure", () => {
    for (const modulus of [...FLAGGED_THERE, ...MADE])
      expect(hasRocaFingerprint(modulus)).toBe(true);
  });

  it("is not on moduli that match prime by prime with contradicting exponents", () => {
    for (const modulus of PASSED_THERE) {
      const bytes = Buffer.from(modulus.toString(16).padStart(256, "0"), "hex");
      expect(hasRocaFingerprint(bytes)).toBe(false);
    }
  });

  it("is on none of 200 keys of OpenSSL", () => {
    for (let count = 0; count < 200; count += 1) {
      const { publicKey } = generateKeyPairSync("rsa", { modulusLength: 512 });
      const { n = "" } = publicKey.export({ format: "jwk" });
      expect(hasRocaFingerprint(Buffer.from(n, "base64url"))).toBe(false);
    }
  });

  it("is not on nothing, on zero, nor on a multiple of a small prime", () => {
    for (const bytes of [[], [0], [2], [6, 30]])
      expect(hasRocaFingerprint(Uint8Array.from(bytes))).toBe(false);
  });

  it("A10: refuses an EK with it, under a certificate that is otherwise good", async () => {
    const ca = createDerCa();
    const roots = await parseTrustedRoots(ca.rootPem);
    const judge = (spki: Uint8Array): Promise<unknown> =>
      verifyEkCertificate({
        certificates: [ca.issue(spki, { keyUsage: "keyEncipherment" })],
        ekPublicKeySpki: spki,
        ekKeyType: "rsa",
        roots,
        atMs: Date.UTC(2026, 0, 1),
      });
    expect(await codeOfAsync(() => judge(rsaSpkiOf(MADE[0])))).toBe(WEAK);
    const { publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
    const good = new Uint8Array(publicKey.export({ type: "spki", format: "der" }));
    expect(await judge(good)).toMatchObject({ spki: good });
  });

  it("A10: refuses an AK with it", () => {
    const SHA256 = hashRow(0x000b)!;
    const area = (unique: Uint8Array) =>
      parseTpm2bPublic(
        encodeTpm2bPublic({
          type: 0x0001,
          nameAlg: SHA256,
          objectAttributes: 0x0005_0072,
          authPolicy: new Uint8Array(),
          symmetric: undefined,
          scheme: { scheme: 0x0014, hashAlg: SHA256 },
          keyBits: 2048,
          exponent: 0,
          unique,
        }),
      );
    expect(codeOf(() => checkAkPublic(area(MADE[1]), { allowSha1: false }))).toBe(WEAK);
  });
});

const refuseAffected: FirmwarePolicy = { refuse: "affected" };
const INFINEON = "id:49465800";
const ST = "id:53544D20";
const NUVOTON = "id:4E544300";
const INTEL = "id:494E5443";
const words = (...parts: [number, number, number, number]): bigint =>
  parts.reduce((value, part) => (value << 16n) | BigInt(part), 0n);
const quoted = (
  manufacturer: string,
  parts: [number, number, number, number],
  keyTypes: TpmFirmware["keyTypes"] = ["rsa", "ecc"],
): TpmFirmware => ({ manufacturer, version: exactVersion(words(...parts)), keyTypes });
const certified = (manufacturer: string, text: string): TpmFirmware => ({
  manufacturer,
  version: parseTpmVersion(text),
  keyTypes: ["rsa", "ecc"],
});

describe("tpmVersion of an EK certificate", () => {
  it("is the first half of the version, in words or, at Infineon, in bytes", () => {
    const st = parseTpmVersion("id:00490004");
    expect(st).toStrictEqual({ lowest: words(73, 4, 0, 0), highest: words(73, 4, 0xffff, 0xffff) });
    expect(parseTpmVersion("id:0755")?.lowest).toBe(words(7, 85, 0, 0));
    expect(parseTpmVersion("id:073d")?.lowest).toBe(words(7, 61, 0, 0));
    for (const text of ["", "7.61", "id:7.61", "id:00", "id:0049000400000000", "ID:0755"])
      expect(parseTpmVersion(text)).toBeUndefined();
  });
});

describe("vulnerable firmware", () => {
  const affected: readonly [string, TpmFirmware][] = [
    ["CVE-2017-15361", quoted(INFINEON, [7, 61, 2785, 0])],
    ["CVE-2017-15361", certified(INFINEON, "id:053D")],
    ["CVE-2019-16863", certified(ST, "id:00490004")],
    ["CVE-2019-16863", quoted(ST, [74, 16, 1, 2])],
    ["CVE-2020-25082", quoted(NUVOTON, [7, 2, 0, 1])],
    ["CVE-2023-1017", quoted(NUVOTON, [1, 3, 2, 8])],
    ["CVE-2025-2884", quoted(INFINEON, [15, 21, 0, 0])],
  ];
  it.each(affected)("A10, D8: refuses %s", (cve, firmware) => {
    expect(codeOf(() => checkFirmware(firmware, refuseAffected))).toBe(REFUSED);
    const findings = checkFirmware(firmware, { refuse: "none" });
    expect(findings).toMatchObject([{ cve, certainty: "affected" }]);
  });

  const fine: readonly [string, TpmFirmware][] = [
    ["Infineon 7.62", quoted(INFINEON, [7, 62, 0, 0])],
    ["Infineon 7.85", certified(INFINEON, "id:0755")],
    ["ST 73.20", certified(ST, "id:00490014")],
    ["Nuvoton 7.2.2.0", quoted(NUVOTON, [7, 2, 2, 0])],
    ["ROCA's firmware with ECC keys only", quoted(INFINEON, [7, 61, 0, 0], ["ecc"])],
    ["TPM-FAIL's firmware with RSA keys only", quoted(ST, [73, 4, 0, 0], ["rsa"])],
    ["another vendor's same number", quoted("id:49424D00", [7, 61, 0, 0])],
  ];
  it.each(fine)("finds nothing in %s", (_name, firmware) => {
    expect(checkFirmware(firmware, { refuse: "possible" })).toStrictEqual([]);
  });

  it("says possible where the version cannot be told, and refuses that only on demand", () => {
    const undecided: readonly [string, TpmFirmware][] = [
      ["CVE-2019-11090", quoted(INTEL, [600, 7, 0, 0])],
      ["CVE-2020-25082", certified(NUVOTON, "id:00070002")],
    ];
    for (const [cve, firmware] of undecided) {
      const findings = checkFirmware(firmware, refuseAffected);
      expect(findings).toMatchObject([{ cve, certainty: "possible" }]);
      expect(codeOf(() => checkFirmware(firmware, { refuse: "possible" }))).toBe(REFUSED);
    }
    const unreadable = certified(INFINEON, "7.61");
    expect(checkFirmware(unreadable, refuseAffected)).toHaveLength(2);
    expect(codeOf(() => checkFirmware(unreadable, { refuse: "possible" }))).toBe(REFUSED);
  });

  it("ignores impacts by name, and still reports them", () => {
    const policy: FirmwarePolicy = { refuse: "affected", ignore: ["denial-of-service"] };
    const findings = checkFirmware(quoted(NUVOTON, [1, 3, 2, 8]), policy);
    expect(findings).toMatchObject([{ impact: "denial-of-service" }]);
    expect(codeOf(() => checkFirmware(quoted(ST, [73, 4, 0, 0]), policy))).toBe(REFUSED);
  });

  it("A10: refuses what the operator's own rows name", () => {
    const row = {
      ...VULNERABLE_FIRMWARE[0]!,
      manufacturer: INTEL,
      versions: { from: "600", to: "600.7" },
    };
    const policy: FirmwarePolicy = { refuse: "affected", rows: [row] };
    expect(codeOf(() => checkFirmware(quoted(INTEL, [600, 7, 9, 9]), policy))).toBe(REFUSED);
    expect(checkFirmware(quoted(INTEL, [600, 8, 0, 0]), policy)).toHaveLength(1);
  });

  it("says affected once, whatever other rows of the same vulnerability say", () => {
    const vague = { ...VULNERABLE_FIRMWARE[0]!, versions: undefined };
    const findings = checkFirmware(quoted(INFINEON, [7, 61, 0, 0]), {
      refuse: "none",
      rows: [vague],
    });
    expect(findings).toMatchObject([{ cve: "CVE-2017-15361", certainty: "affected" }]);
  });

  it("D8: refuses what is older than the policy's oldest version, or may be", () => {
    const policy: FirmwarePolicy = { refuse: "none", oldest: { [INFINEON]: "7.85.4555" } };
    expect(codeOf(() => checkFirmware(quoted(INFINEON, [7, 85, 4554, 9]), policy))).toBe(REFUSED);
    expect(codeOf(() => checkFirmware(certified(INFINEON, "id:0755"), policy))).toBe(REFUSED);
    expect(codeOf(() => checkFirmware(certified(INFINEON, "7.85"), policy))).toBe(REFUSED);
    expect(checkFirmware(quoted(INFINEON, [7, 85, 4555, 0]), policy)).toStrictEqual([]);
    expect(checkFirmware(quoted(ST, [1, 0, 0, 0]), policy)).toStrictEqual([]);
  });

  it("rejects a policy with versions of no known form as the caller's mistake", () => {
    for (const oldest of ["", "7.x", "1.2.3.4.5", "65536", "-1"]) {
      const policy: FirmwarePolicy = { refuse: "none", oldest: { [ST]: oldest } };
      expect(() => checkFirmware(quoted(ST, [1, 0, 0, 0]), policy)).toThrow(RangeError);
    }
  });

  it("has rows whose versions can be read, with a source each", () => {
    for (const row of VULNERABLE_FIRMWARE) {
      expect(row.manufacturer).toMatch(/^id:[0-9A-F]{8}$/);
      expect(row.source.length).toBeGreaterThan(8);
      const policy: FirmwarePolicy = { refuse: "affected", rows: [row] };
      const anything = { ...row, version: exactVersion(0n) };
      expect(() => checkFirmware(anything, policy)).not.toThrow(RangeError);
    }
  });
});
