/** The named rows for manufacturers' faults: each refused when not named, accepted and reported when it is. */
import { createHash, generateKeyPairSync } from "node:crypto";
import { describe, expect, it } from "vitest";
import {
  EK_CERTIFICATE_ODDITIES,
  type EkCertificateOddity,
  parseTrustedRoots,
  type VerifiedEkCertificate,
  verifyEkCertificate,
} from "../../attest/ek/index.ts";
import { concatBytes, decodeHex } from "../../wire/index.ts";
import { codeOfAsync } from "../support/reject.ts";
import {
  createDerCa,
  type DerCa,
  seq,
  set,
  tpmAttribute,
  utf8,
} from "./support/der-certificate.ts";

const AT_MS = Date.UTC(2026, 0, 1);
const INVALID = "ATTEST_EK_CERTIFICATE_INVALID";
const ALL_ROWS = Object.keys(EK_CERTIFICATE_ODDITIES) as EkCertificateOddity[];

const spkiOf = (type: "ec" | "rsa"): Uint8Array => {
  const { publicKey } =
    type === "ec"
      ? generateKeyPairSync("ec", { namedCurve: "P-256" })
      : generateKeyPairSync("rsa", { modulusLength: 2048 });
  return new Uint8Array(publicKey.export({ type: "spki", format: "der" }));
};
const ECC = spkiOf("ec");
const RSA = spkiOf("rsa");

const plain = createDerCa();
/** CN before O before C, each longer than the next: Nuvoton's order, which is descending. */
const UNORDERED = seq(
  set(
    seq(decodeHex("0603550403"), utf8("Nuvoton TPM Root CA")),
    seq(decodeHex("0603550406"), utf8("TW")),
  ),
);
const unordered = createDerCa(UNORDERED);

const withLength = (bytes: Uint8Array): Uint8Array =>
  concatBytes([Uint8Array.of(0x10, 0x01, 0x00, bytes.length >> 8, bytes.length & 0xff), bytes]);

function oaepOf(rsaSpki: Uint8Array): Uint8Array {
  const identifier = decodeHex("06092a864886f70d010107");
  // After the outer header (4 bytes) and rsaEncryption (15 bytes) comes the BIT STRING.
  return seq(seq(identifier), rsaSpki.subarray(19));
}

interface Case {
  readonly ca?: DerCa;
  readonly der: Uint8Array;
  readonly spki?: Uint8Array;
}

const CASES: Record<EkCertificateOddity, Case> = {
  "nv-index-padding": { der: concatBytes([plain.issue(ECC), new Uint8Array(300).fill(0xff)]) },
  "nv-index-header": { der: withLength(plain.issue(ECC)) },
  "set-of-order": { ca: unordered, der: unordered.issue(ECC) },
  "padded-serial-number": {
    der: plain.issue(ECC, { serialNumber: decodeHex("020400000006") }),
  },
  "rsaes-oaep-key": {
    der: plain.issue(oaepOf(RSA), { keyUsage: "keyEncipherment" }),
    spki: RSA,
  },
  "san-not-critical": { der: plain.issue(ECC, { sanCritical: false }) },
  "no-ext-key-usage": { der: plain.issue(ECC, { extKeyUsage: "absent" }) },
  "unregistered-manufacturer": { der: plain.issue(ECC, { manufacturer: "id:00001014" }) },
};

async function verify(
  { ca = plain, der, spki = ECC }: Case,
  acceptOddities?: readonly EkCertificateOddity[],
): Promise<VerifiedEkCertificate> {
  return verifyEkCertificate({
    certificates: [der],
    ekPublicKeySpki: spki,
    ekKeyType: spki === RSA ? "rsa" : "ecc",
    roots: await parseTrustedRoots(ca.rootPem),
    atMs: AT_MS,
    ...(acceptOddities === undefined ? {} : { acceptOddities }),
  });
}

describe("the rows", () => {
  it("has a case for each", () => {
    expect(Object.keys(CASES)).toStrictEqual(ALL_ROWS);
  });

  it.each(ALL_ROWS)(
    "A1, A6, A7, A8: refuses %s unless it is named, by every other name",
    async (row) => {
      expect(await codeOfAsync(() => verify(CASES[row]))).toBe(INVALID);
      const others = ALL_ROWS.filter((other) => other !== row);
      expect(await codeOfAsync(() => verify(CASES[row], others))).toBe(INVALID);
    },
  );

  it.each(ALL_ROWS)("accepts %s where it is named, and reports it alone", async (row) => {
    const verified = await verify(CASES[row], ALL_ROWS);
    expect(verified.oddities).toStrictEqual([row]);
    expect((await verify(CASES[row], [row])).oddities).toStrictEqual([row]);
    expect(verified.spki).toStrictEqual(CASES[row].spki ?? ECC);
  });

  it("reports none for a certificate that needs none, whatever is named", async () => {
    expect((await verify({ der: plain.issue(ECC) }, ALL_ROWS)).oddities).toStrictEqual([]);
  });

  it("reports two rows of one certificate", async () => {
    const odd = plain.issue(ECC, { sanCritical: false, extKeyUsage: "absent" });
    const rows: EkCertificateOddity[] = ["san-not-critical", "no-ext-key-usage"];
    expect((await verify({ der: odd }, rows)).oddities).toStrictEqual(rows);
    expect(await codeOfAsync(() => verify({ der: odd }, rows.slice(1)))).toBe(INVALID);
  });
});

/** TPMSpecification: family, level 0, revision. */
const specification = (family: string, revision: string): Uint8Array =>
  seq(
    decodeHex("06056781050210"),
    set(seq(utf8(family), decodeHex("020100"), decodeHex(revision))),
  );

describe("the deny list", () => {
  it("A9: refuses a denied key that the certificate names RSAES-OAEP", async () => {
    const hash = createHash("sha256").update(RSA).digest("hex");
    const denied = { certificates: [], spkiSha256: new Set([hash]) };
    const code = await codeOfAsync(async () =>
      verifyEkCertificate({
        certificates: [CASES["rsaes-oaep-key"].der],
        ekPublicKeySpki: RSA,
        ekKeyType: "rsa",
        roots: await parseTrustedRoots(plain.rootPem),
        atMs: AT_MS,
        acceptOddities: ["rsaes-oaep-key"],
        revocation: { mode: "off", lists: [], denied },
      }),
    );
    expect(code).toBe("ATTEST_EK_REVOKED");
  });
});

describe("tpmSpecification", () => {
  const judge = (...attributes: readonly Uint8Array[]): Promise<VerifiedEkCertificate> =>
    verify({ der: plain.issue(ECC, { directoryAttributes: seq(...attributes) }) }, ALL_ROWS);

  it("is reported, beside attributes that say nothing of the TPM", async () => {
    const other = seq(decodeHex("060355040a"), set(utf8("ST")));
    const verified = await judge(other, specification("2.0", "0202009f"));
    expect(verified.specification).toStrictEqual({ family: "2.0", level: 0, revision: 159 });
    expect((await judge(other)).specification).toBeUndefined();
  });

  it("A6, A7: refuses the EK certificate of a TPM 1.2, and two or malformed specifications", async () => {
    const good = specification("2.0", "020174");
    const refused: readonly (readonly Uint8Array[])[] = [
      [specification("1.2", "020174")],
      [specification("2.00", "020174")],
      [good, good],
      [specification("2.0", "0201ff")],
      [seq(decodeHex("06056781050210"))],
      [seq(decodeHex("06056781050210"), set())],
      [seq(decodeHex("06056781050210"), set(seq(utf8("2.0"))))],
    ];
    for (const attributes of refused)
      expect(await codeOfAsync(() => judge(...attributes))).toBe(INVALID);
    expect((await judge(good)).specification?.revision).toBe(116);
  });
});

describe("what no row excuses", () => {
  const refused: readonly [string, Uint8Array][] = [
    ["A6: refuses another extKeyUsage", plain.issue(ECC, { extKeyUsage: "other" })],
    ["A7: refuses a manufacturer that is no number", plain.issue(ECC, { manufacturer: "id:STM" })],
    [
      "A7: refuses a manufacturer twice in one RDN",
      plain.issue(ECC, {
        rdns: [
          set(tpmAttribute(1, "id:494E5443"), tpmAttribute(1, "id:53544D20")),
          set(tpmAttribute(2, "M"), tpmAttribute(3, "id:00010001")),
        ],
      }),
    ],
    ["A1: refuses a serial number of 0", plain.issue(ECC, { serialNumber: decodeHex("020100") })],
    ["A1: refuses a negative serial", plain.issue(ECC, { serialNumber: decodeHex("0201ff") })],
    [
      "A1: refuses a serial number of 21 bytes",
      plain.issue(ECC, { serialNumber: decodeHex(`0215${"11".repeat(21)}`) }),
    ],
    [
      "A1: refuses a serial number padded to 21 bytes",
      plain.issue(ECC, { serialNumber: decodeHex(`0215${"00".repeat(20)}06`) }),
    ],
    [
      "A1: refuses a header whose length passes the end",
      withLength(plain.issue(ECC)).subarray(0, -1),
    ],
    [
      "A1: refuses a header that states one byte more than there is",
      Uint8Array.from(withLength(plain.issue(ECC)), (byte, index) =>
        index === 4 ? byte + 1 : byte,
      ),
    ],
    ["A1: refuses a header alone", Uint8Array.of(0x10, 0x01, 0x00)],
    [
      "A1: refuses other bytes behind the length of a header",
      concatBytes([withLength(plain.issue(ECC)), Uint8Array.of(1)]),
    ],
    ["A1: refuses mixed padding", concatBytes([plain.issue(ECC), Uint8Array.of(0xff, 0x00)])],
  ];
  it.each(refused)("%s", async (_title, der) => {
    expect(await codeOfAsync(() => verify({ der }, ALL_ROWS))).toBe(INVALID);
  });

  it("A2: refuses an unordered certificate under a root of another name", async () => {
    const code = await codeOfAsync(() =>
      verify({ ca: plain, der: unordered.issue(ECC) }, ALL_ROWS),
    );
    expect(code).toBe("ATTEST_EK_CHAIN_UNTRUSTED");
  });

  it("takes header and padding together, each under its own name", async () => {
    const der = concatBytes([withLength(plain.issue(ECC)), new Uint8Array(8).fill(0xff)]);
    const rows: EkCertificateOddity[] = ["nv-index-padding", "nv-index-header"];
    expect((await verify({ der }, rows)).oddities).toStrictEqual(rows);
    expect(await codeOfAsync(() => verify({ der }, ["nv-index-header"]))).toBe(INVALID);
  });

  it("takes a serial number of 20 bytes, and one whose leading zero is a sign", async () => {
    for (const hex of [`0214${"11".repeat(20)}`, "02020080"]) {
      const der = plain.issue(ECC, { serialNumber: decodeHex(hex) });
      expect((await verify({ der })).oddities, hex).toEqual([]);
    }
  });
});
