/** EK certificates that are well signed and malformed in one place: what no tool can be told to make. */
import { generateKeyPairSync, sign } from "node:crypto";
import { describe, expect, it } from "vitest";
import { parseTrustedRoots, verifyEkCertificate } from "../../attest/ek/index.ts";
import { concatBytes, decodeHex, encodeUtf8 } from "../../wire/index.ts";
import { codeOfAsync } from "../support/reject.ts";

const AT_MS = Date.UTC(2026, 0, 1);
const INVALID = "ATTEST_EK_CERTIFICATE_INVALID";
const NOT_ALLOWED = "ATTEST_ALGORITHM_NOT_ALLOWED";

type Der = Uint8Array;

function der(tag: number, ...content: Der[]): Der {
  const body = concatBytes(content);
  const { length } = body;
  const size =
    length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return concatBytes([Uint8Array.of(tag, ...size), body]);
}
const hex = (text: string): Der => decodeHex(text.replaceAll(" ", ""));
const seq = (...content: Der[]): Der => der(0x30, ...content);
const set = (...content: Der[]): Der => der(0x31, ...content);
const bits = (bytes: Der, unused = 0): Der => der(0x03, Uint8Array.of(unused), bytes);
const utf8 = (text: string): Der => der(0x0c, encodeUtf8(text));
const TRUE = hex("0101ff");
const FALSE = hex("010100");
const NULL = hex("0500");
const ONE = hex("020101");

const OID = {
  ecdsaWithSha256: hex("06082a8648ce3d040302"),
  keyUsage: hex("0603551d0f"),
  subjectAltName: hex("0603551d11"),
  basicConstraints: hex("0603551d13"),
  certificatePolicies: hex("0603551d20"),
  extKeyUsage: hex("0603551d25"),
};
const tcg = (branch: number, arc: number): Der => Uint8Array.of(6, 5, 0x67, 0x81, 5, branch, arc);
const NAME = seq(set(seq(hex("0603550403"), utf8("Root"))));
const VALIDITY = seq(
  der(0x17, encodeUtf8("250101000000Z")),
  der(0x18, encodeUtf8("99991231235959Z")),
);

const extension = (oid: Der, value: Der, ...critical: Der[]): Der =>
  seq(oid, ...critical, der(0x04, value));
const attribute = (arc: number, text: Der): Der => seq(tcg(2, arc), text);
const MODEL = attribute(2, utf8("ST33"));
const identity = (model: Der): Der =>
  seq(
    der(
      0xa4,
      seq(set(attribute(1, utf8("id:53544D20"))), set(model), set(attribute(3, utf8("1")))),
    ),
  );
const usage = (bit: number): Der => bits(Uint8Array.of(bit), 31 - Math.clz32(bit));

interface Parts {
  readonly version: Der;
  readonly inner: Der;
  readonly outer: Der;
  readonly validity: Der;
  readonly spki: Der;
  readonly beforeExtensions: Der;
  readonly basicConstraints: Der;
  readonly keyUsage: Der;
  readonly names: Der;
  readonly more: readonly Der[];
  readonly afterExtensions: Der;
  readonly encodeSignature: (signature: Der) => Der;
  readonly end: Der;
}
const parts: Parts = {
  version: der(0xa0, hex("020102")),
  inner: seq(OID.ecdsaWithSha256),
  outer: seq(OID.ecdsaWithSha256),
  validity: VALIDITY,
  spki: new Uint8Array(0),
  beforeExtensions: new Uint8Array(0),
  basicConstraints: seq(),
  keyUsage: usage(0x08),
  names: identity(MODEL),
  more: [],
  afterExtensions: new Uint8Array(0),
  encodeSignature: (signature) => bits(signature),
  end: new Uint8Array(0),
};

const rootKeys = generateKeyPairSync("ec", { namedCurve: "P-256" });
const ekKeys = generateKeyPairSync("ec", { namedCurve: "P-256" });
const spkiOf = (keys: typeof ekKeys): Der =>
  new Uint8Array(keys.publicKey.export({ type: "spki", format: "der" }));
const EK_SPKI = spkiOf(ekKeys);

function certificate(subject: Der, changes: Partial<Parts>, extensions: readonly Der[]): Der {
  const it: Parts = { ...parts, ...changes };
  const tbs = seq(
    concatBytes([it.version, ONE, it.inner, NAME, it.validity, subject, it.spki]),
    concatBytes([
      it.beforeExtensions,
      der(0xa3, seq(...extensions, ...it.more)),
      it.afterExtensions,
    ]),
  );
  const signature = new Uint8Array(sign("sha256", tbs, rootKeys.privateKey));
  return seq(tbs, it.outer, it.encodeSignature(signature), it.end);
}

const ROOT = certificate(NAME, { spki: spkiOf(rootKeys) }, [
  extension(OID.basicConstraints, seq(TRUE), TRUE),
  extension(OID.keyUsage, usage(0x04), TRUE),
]);

async function judge(changes: Partial<Parts>, ekKeyType: "rsa" | "ecc" = "ecc"): Promise<string> {
  const it: Parts = { ...parts, spki: EK_SPKI, ...changes };
  const leaf = certificate(seq(), it, [
    extension(OID.basicConstraints, it.basicConstraints, TRUE),
    extension(OID.keyUsage, it.keyUsage, TRUE),
    extension(OID.extKeyUsage, seq(tcg(8, 1))),
    extension(OID.subjectAltName, it.names, TRUE),
  ]);
  const base64 = Buffer.from(ROOT).toString("base64");
  const pem = `-----BEGIN CERTIFICATE-----\n${base64}\n-----END CERTIFICATE-----\n`;
  const roots = await parseTrustedRoots(pem);
  return codeOfAsync(() =>
    verifyEkCertificate({
      certificates: [leaf],
      ekPublicKeySpki: it.spki,
      ekKeyType,
      roots,
      atMs: AT_MS,
    }),
  );
}

const unknown = (arc: number, ...critical: Der[]): Der =>
  extension(Uint8Array.of(6, 3, 0x2a, 3, arc), NULL, ...critical);

const INTEGER = (bytes: Der): Der => der(0x02, bytes);
const RSA = seq(hex("06092a864886f70d010101"), NULL);
const modulus = (last: number): Der =>
  INTEGER(concatBytes([hex("00"), new Uint8Array(255).fill(0xc5), Uint8Array.of(last)]));
const rsaKey = (algorithm: Der, ...numbers: Der[]): Der => seq(algorithm, bits(seq(...numbers)));
const E = hex("0203010001");
const EC = hex("06072a8648ce3d0201");
const P256 = hex("06082a8648ce3d030107");
const POINT = EK_SPKI.subarray(-65);

it("accepts the certificate that the cases change", async () => {
  expect(await judge({})).toBe("nothing was thrown");
  expect(await judge({ more: [unknown(1), unknown(2, FALSE)] })).toBe("nothing was thrown");
  const rsa = { spki: rsaKey(RSA, modulus(1), E), keyUsage: usage(0x20) };
  expect(await judge(rsa, "rsa")).toBe("nothing was thrown");
});

describe("fields of the certificate", () => {
  const cases: readonly [string, Partial<Parts>][] = [
    ["version 2", { version: der(0xa0, hex("020101")) }],
    ["two versions", { version: der(0xa0, hex("020102"), ONE) }],
    ["no version", { version: new Uint8Array(0) }],
    ["a signature algorithm that is not repeated", { outer: seq(OID.ecdsaWithSha256, NULL) }],
    [
      "parameters of ECDSA",
      { inner: seq(OID.ecdsaWithSha256, NULL), outer: seq(OID.ecdsaWithSha256, NULL) },
    ],
    [
      "three times",
      {
        validity: seq(
          hex("170d3235303130313030303030305a"),
          hex("170d3235303130313030303030305a"),
          NULL,
        ),
      },
    ],
    ["an issuerUniqueID", { beforeExtensions: hex("81020000") }],
    ["a field after the extensions", { afterExtensions: NULL }],
    ["a field after the signature", { end: NULL }],
    [
      "unused bits of the signature",
      { encodeSignature: (it) => bits(concatBytes([it, hex("00")]), 1) },
    ],
    ["three numbers in the signature", { encodeSignature: () => bits(seq(ONE, ONE, ONE)) }],
    [
      "a negative number in the signature",
      { encodeSignature: () => bits(seq(ONE, hex("0201ff"))) },
    ],
    [
      "bytes after the signature's numbers",
      { encodeSignature: (it) => bits(concatBytes([it, NULL])) },
    ],
    ["an extension twice", { more: [unknown(1), unknown(1)] }],
    ["33 extensions", { more: Array.from({ length: 29 }, (_, arc) => unknown(arc)) }],
    ["an extension of four fields", { more: [seq(hex("06022a03"), FALSE, der(4, NULL), NULL)] }],
    ["an extension without a value", { more: [seq(hex("06022a03"), TRUE)] }],
    ["pathLenConstraint without cA", { basicConstraints: seq(hex("020100")) }],
    ["a third field of basicConstraints", { basicConstraints: seq(TRUE, hex("020100"), NULL) }],
    ["bytes after keyUsage", { keyUsage: concatBytes([usage(0x08), NULL]) }],
    ["a model that is not UTF-8", { names: identity(attribute(2, der(0x0c, hex("c328")))) }],
    ["an empty model", { names: identity(attribute(2, utf8(""))) }],
    [
      "a model in another string type",
      { names: identity(attribute(2, der(0x13, encodeUtf8("ST33")))) },
    ],
    ["an attribute of three fields", { names: identity(seq(tcg(2, 2), utf8("ST33"), NULL)) }],
    ["an attribute without a value", { names: identity(seq(tcg(2, 2))) }],
    ["two names in one directoryName", { names: seq(der(0xa4, seq(), seq())) }],
  ];
  it.each(cases)("A1, A3, A4, A7: refuses %s", async (_name, changes) => {
    expect(await judge(changes)).toBe(INVALID);
  });

  it("A4: refuses certificatePolicies that cannot be read", async () => {
    const more = [extension(OID.certificatePolicies, NULL, TRUE)];
    expect(await judge({ more })).toBe(INVALID);
  });
});

describe("public keys", () => {
  const cases: readonly [string, Der, string][] = [
    ["RSA with exponent 3", rsaKey(RSA, modulus(1), hex("020103")), NOT_ALLOWED],
    ["RSA with an even exponent", rsaKey(RSA, modulus(1), hex("0203010002")), NOT_ALLOWED],
    [
      "RSA with an exponent of 40 bits",
      rsaKey(RSA, modulus(1), hex("02050100000001")),
      NOT_ALLOWED,
    ],
    ["RSA with an even modulus", rsaKey(RSA, modulus(2), E), NOT_ALLOWED],
    ["RSA of 2047 bits", rsaKey(RSA, INTEGER(new Uint8Array(256).fill(0x41)), E), NOT_ALLOWED],
    ["RSA of 8193 bits", rsaKey(RSA, INTEGER(new Uint8Array(1025).fill(1)), E), NOT_ALLOWED],
    [
      "RSA with a negative modulus",
      rsaKey(RSA, INTEGER(new Uint8Array(256).fill(0xc5)), E),
      INVALID,
    ],
    ["RSA with three numbers", rsaKey(RSA, modulus(1), E, ONE), INVALID],
    ["RSA without NULL", rsaKey(seq(hex("06092a864886f70d010101")), modulus(1), E), INVALID],
    ["Ed25519", seq(seq(hex("06032b6570")), bits(new Uint8Array(32))), NOT_ALLOWED],
    ["EC without a curve", seq(seq(EC), bits(POINT)), NOT_ALLOWED],
    ["EC with explicit parameters", seq(seq(EC, seq(ONE)), bits(POINT)), NOT_ALLOWED],
    [
      "a compressed point",
      seq(seq(EC, P256), bits(concatBytes([hex("02"), POINT.subarray(1, 33)]))),
      INVALID,
    ],
    ["a point that is too short", seq(seq(EC, P256), bits(POINT.subarray(0, 64))), INVALID],
    ["unused bits", seq(seq(EC, P256), bits(concatBytes([POINT, hex("00")]), 1)), INVALID],
    ["a third field", seq(seq(EC, P256), bits(POINT), NULL), INVALID],
  ];
  it.each(cases)("A5, A8: refuses %s", async (_name, spki, code) => {
    expect(await judge({ spki })).toBe(code);
  });
});
