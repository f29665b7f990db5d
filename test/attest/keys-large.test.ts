/**
 * EKs of every default template and AKs and device keys of every size (checklist A11, B, C): made, and
 * their credentials opened, by tpm2-tools on a software TPM where its library has the algorithm.
 */
import {
  constants,
  createDecipheriv,
  generateKeyPairSync,
  type KeyObject,
  privateDecrypt,
} from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import {
  checkAkPublic,
  checkDeviceKeyPublic,
  checkEkPublic,
  computeName,
  curveRow,
  encodeTpm2bPublic,
  encodeTpmlPcrSelection,
  hashRow,
  type HashRow,
  kdfa,
  makeCredential,
  parseTpm2bPublic,
  type TpmtPublic,
  type TpmtPublicFields,
  verifyQuote,
} from "../../attest/index.ts";
import { EK_TEMPLATES } from "../../attest/keys/ek-templates.ts";
import { createNodeAttestCrypto } from "../../attest/node/index.ts";
import { Reader, Writer } from "../../wire/index.ts";
import { seededRandom } from "../support/attester.ts";
import { codeOf, codeOfAsync } from "../support/reject.ts";
import { useSwtpm } from "../support/swtpm.ts";
import { tool } from "../support/tpm2-tools.ts";
import { ekPolicies } from "./support/ek-policies.ts";

const TEMPLATE_INVALID = "ATTEST_EK_TEMPLATE_INVALID";
const NOT_ALLOWED = "ATTEST_ALGORITHM_NOT_ALLOWED";
const HASH_ALG = { sha1: 4, sha256: 0xb, sha384: 0xc, sha512: 0xd } as const;
const CURVE_ID = { "P-256": 3, "P-384": 4, "P-521": 5 } as const;
const LOW = 0x0003_00b2;
const HIGH = 0x0003_00f2;
const AK_ATTRIBUTES = 0x0005_0072;
const DEVICE_ATTRIBUTES = 0x0004_0072;

const crypto = createNodeAttestCrypto();
const random = seededRandom("keys");
const hash = (name: keyof typeof HASH_ALG): HashRow =>
  hashRow(HASH_ALG[name]) ?? expect.unreachable(name);

/** A modulus that is odd and of full size; what it is made of does not matter here. */
function modulusOf(bits: number): Uint8Array {
  const bytes = seededRandom(`modulus ${bits}`)(bits / 8);
  bytes[0] = 0xc1;
  bytes[bytes.length - 1] = 0x01;
  return bytes;
}

function pointOn(namedCurve: keyof typeof CURVE_ID): { x: Uint8Array; y: Uint8Array } {
  const { x, y } = generateKeyPairSync("ec", { namedCurve }).publicKey.export({ format: "jwk" });
  const bytes = (text = ""): Uint8Array => new Uint8Array(Buffer.from(text, "base64url"));
  return { x: bytes(x), y: bytes(y) };
}

function fieldsOf(row: (typeof EK_TEMPLATES)[number]): TpmtPublicFields {
  const isLow = row.id.startsWith("L");
  const nameAlg = hash(row.nameAlg);
  const policies = ekPolicies(nameAlg);
  const common = {
    nameAlg,
    objectAttributes: isLow ? LOW : HIGH,
    authPolicy: isLow ? policies.a : policies.b,
    symmetric: { algorithm: 6, keyBits: row.symmetricBits, mode: 0x43 },
    scheme: undefined,
  } as const;
  if (typeof row.key === "number") {
    const unique = modulusOf(row.key);
    return { ...common, type: 1, keyBits: row.key, exponent: 0, unique };
  }
  const curve = curveRow(CURVE_ID[row.key]) ?? expect.unreachable(row.key);
  return { ...common, type: 0x23, curve, unique: pointOn(row.key) };
}

const areaOf = (fields: TpmtPublicFields): TpmtPublic =>
  parseTpm2bPublic(encodeTpm2bPublic(fields));
const judge = (fields: TpmtPublicFields): string => codeOf(() => checkEkPublic(areaOf(fields)));

describe("the EK templates", () => {
  it("are those of Annex B, with the policies that their definitions give", () => {
    for (const row of EK_TEMPLATES) expect(checkEkPublic(areaOf(fieldsOf(row)))).toBe(row.id);
    expect(EK_TEMPLATES).toHaveLength(8);
  });

  it("A11: refuses each template with any bit of its attributes changed", () => {
    for (const row of EK_TEMPLATES) {
      const fields = fieldsOf(row);
      for (let bit = 0; bit < 32; bit += 1) {
        const objectAttributes = (fields.objectAttributes ^ (1 << bit)) >>> 0;
        expect(judge({ ...fields, objectAttributes }), `${row.id} bit ${bit}`).toBe(
          TEMPLATE_INVALID,
        );
      }
    }
  });

  it("A11: refuses another policy, another name hash, cipher, scheme or exponent", () => {
    for (const row of EK_TEMPLATES) {
      const fields = fieldsOf(row);
      const other = hash(row.nameAlg === "sha384" ? "sha512" : "sha384");
      const policies = ekPolicies(hash(row.nameAlg));
      const swapped = row.id.startsWith("L") ? policies.b : policies.a;
      const wrong: TpmtPublicFields[] = [
        { ...fields, authPolicy: swapped },
        { ...fields, authPolicy: new Uint8Array() },
        { ...fields, nameAlg: other },
        { ...fields, nameAlg: hash("sha1") },
        { ...fields, nameAlg: other, authPolicy: ekPolicies(other).b },
        { ...fields, symmetric: { algorithm: 6, keyBits: 192, mode: 0x43 } },
        { ...fields, symmetric: undefined },
      ];
      if (fields.type === 1) wrong.push({ ...fields, exponent: 3 });
      wrong.push({
        ...fields,
        scheme: { scheme: fields.type === 1 ? 0x17 : 0x19, hashAlg: other },
      });
      for (const changed of wrong) expect(judge(changed), row.id).toBe(TEMPLATE_INVALID);
      if (fields.type === 1)
        expect(judge({ ...fields, exponent: 65_537 })).toBe("nothing was thrown");
    }
  });

  it("A11: refuses a size or curve under the parameters of another template", () => {
    const byId = (id: string): TpmtPublicFields =>
      fieldsOf(EK_TEMPLATES.find((row) => row.id === id) ?? expect.unreachable(id));
    const p384 = curveRow(CURVE_ID["P-384"])!;
    for (const id of ["L-1", "H-1", "H-6"]) {
      const fields = byId(id);
      if (fields.type !== 1) expect.unreachable(id);
      const keyBits = fields.keyBits === 2048 ? 3072 : 2048;
      expect(judge({ ...fields, keyBits, unique: modulusOf(keyBits) })).toBe(TEMPLATE_INVALID);
    }
    for (const id of ["L-2", "H-2", "H-4"]) {
      const fields = byId(id);
      if (fields.type === 1) expect.unreachable(id);
      expect(judge({ ...fields, curve: p384, unique: pointOn("P-384") })).toBe(TEMPLATE_INVALID);
    }
  });

  it("B5: refuses a template in place of a key", () => {
    const fields = fieldsOf(EK_TEMPLATES[0]!);
    if (fields.type !== 1) expect.unreachable("L-1");
    expect(judge({ ...fields, unique: new Uint8Array() })).toBe("ATTEST_STRUCTURE_INVALID");
    expect(judge({ ...fields, unique: new Uint8Array(256) })).toBe("ATTEST_STRUCTURE_INVALID");
  });
});

const running = useSwtpm([]);
const folder = mkdtempSync(join(tmpdir(), "stile-large-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const at = (name: string): string => join(folder, name);
const read = (name: string): Uint8Array => new Uint8Array(readFileSync(at(name)));
const run = (name: string, ...words: string[]): Promise<Buffer> =>
  tool(running.swtpm.tcti, name, ...words);

const SIGN = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign";
const DECRYPT = "fixedtpm|fixedparent|sensitivedataorigin|adminwithpolicy|restricted|decrypt";

async function createKey(
  file: string,
  algorithm: string,
  nameAlg: string,
  attributes: string,
  ...more: string[]
): Promise<TpmtPublic> {
  const words = [
    "-Q",
    "-C",
    "e",
    "-G",
    algorithm.includes(":aes") ? algorithm : `${algorithm}:null`,
    "-g",
    nameAlg,
    "-a",
    attributes,
  ];
  await run("tpm2_createprimary", ...words, ...more, "-c", at(`${file}.ctx`));
  await run("tpm2_readpublic", "-Q", "-c", at(`${file}.ctx`), "-o", at(`${file}.pub`));
  await run("tpm2_flushcontext", "-t");
  return parseTpm2bPublic(read(`${file}.pub`));
}

async function createEk(row: (typeof EK_TEMPLATES)[number]): Promise<TpmtPublic> {
  const fields = fieldsOf(row);
  writeFileSync(at("policy"), fields.authPolicy);
  const key = typeof row.key === "number" ? `rsa${row.key}` : `ecc${row.key.slice(2)}`;
  const attributes = row.id.startsWith("L") ? DECRYPT : `${DECRYPT}|userwithauth`;
  const algorithm = `${key}:null:aes${row.symmetricBits}cfb`;
  return createKey("ek", algorithm, row.nameAlg, attributes, "-L", at("policy"));
}

/** The tool loads both keys from their contexts; the EK by its empty auth, or by policy A. */
async function activate(isLow: boolean, blob: Uint8Array, secret: Uint8Array): Promise<Uint8Array> {
  const file = new Writer().u32(0xbadc_c0de).u32(1).bytes(blob).bytes(secret).finish();
  writeFileSync(at("credential"), file);
  const words = ["-Q", "-c", at("ak.ctx"), "-C", at("ek.ctx"), "-i", at("credential")];
  if (!isLow) {
    await run("tpm2_activatecredential", ...words, "-o", at("secret"));
  } else {
    await run("tpm2_startauthsession", "--policy-session", "-S", at("session"));
    await run("tpm2_policysecret", "-Q", "-S", at("session"), "-c", "e");
    const auth = ["-P", `session:${at("session")}`];
    await run("tpm2_activatecredential", ...words, ...auth, "-o", at("secret"));
    await run("tpm2_flushcontext", at("session"));
  }
  await run("tpm2_flushcontext", "-t");
  return read("secret");
}

describe("credentials of the templates, opened by tpm2-tools", () => {
  // libtpms 0.9 makes no RSA-4096 keys.
  const rows = EK_TEMPLATES.filter(({ id }) => id !== "H-7");
  it.each(rows.map((row) => [row.id, row] as const))(
    "C1, C3: refuses an AK of another Name with %s, and activates the right one",
    async (id, row) => {
      const ek = await createEk(row);
      expect(checkEkPublic(ek)).toBe(id);
      const ak = await createKey("ak", "ecc256:ecdsa-sha256", "sha256", `${SIGN}|restricted`);
      const name = computeName(ak, crypto);
      const secret = random(ek.nameAlg.digestBytes);
      const isLow = id.startsWith("L");
      const made = await makeCredential({ crypto, random, ek, name, secret });
      expect(await activate(isLow, made.credentialBlob, made.encryptedSecret)).toStrictEqual(
        secret,
      );
      const otherName = Uint8Array.from(name, (byte, index) => (index === 9 ? byte ^ 1 : byte));
      const other = await makeCredential({ crypto, random, ek, name: otherName, secret });
      await expect(activate(isLow, other.credentialBlob, other.encryptedSecret)).rejects.toThrow();
      await run("tpm2_flushcontext", "-t");
      await run("tpm2_flushcontext", "-l");
    },
  );

  it("C1: H-7 opens with the private key by OpenSSL and Part 1's derivations", async () => {
    const { publicKey, privateKey } = generateKeyPairSync("rsa", { modulusLength: 4096 });
    const unique = Buffer.from(publicKey.export({ format: "jwk" }).n ?? "", "base64url");
    const row = EK_TEMPLATES.find(({ id }) => id === "H-7") ?? expect.unreachable("H-7");
    const fields = fieldsOf(row);
    if (fields.type !== 1) expect.unreachable("H-7");
    const ek = areaOf({ ...fields, unique: new Uint8Array(unique) });
    expect(checkEkPublic(ek)).toBe("H-7");
    const name = random(34);
    const secret = random(48);
    const made = await makeCredential({ crypto, random, ek, name, secret });
    expect(openCredential(privateKey, ek.nameAlg, name, made)).toStrictEqual(secret);
  });

  it("C2: refuses a secret that is longer than the digest, or under 16 bytes, as the caller's mistake", async () => {
    const ek = areaOf(fieldsOf(EK_TEMPLATES.find(({ id }) => id === "H-3")!));
    const options = { crypto, random, ek, name: random(34) };
    await expect(makeCredential({ ...options, secret: random(49) })).rejects.toThrow(RangeError);
    await expect(makeCredential({ ...options, secret: random(15) })).rejects.toThrow(RangeError);
    const made = await makeCredential({ ...options, secret: random(48) });
    expect(made.credentialBlob.length).toBe(2 + 2 + 48 + 2 + 48);
  });
});

/** Part 1 §24: what the TPM does. */
function openCredential(
  key: KeyObject,
  nameAlg: HashRow,
  name: Uint8Array,
  made: { readonly credentialBlob: Uint8Array; readonly encryptedSecret: Uint8Array },
): Uint8Array {
  const sealed = new Reader(made.encryptedSecret, "TPM2B_ENCRYPTED_SECRET").vec16("secret", 1, 512);
  const seed = privateDecrypt(
    {
      key,
      padding: constants.RSA_PKCS1_OAEP_PADDING,
      oaepHash: nameAlg.name,
      oaepLabel: Buffer.from("IDENTITY\0"),
    },
    sealed,
  );
  const reader = new Reader(made.credentialBlob, "TPM2B_ID_OBJECT");
  const inner = new Reader(reader.vec16("credential", 1, 300), "TPMS_ID_OBJECT");
  const integrity = inner.vec16("integrityHMAC", 1, 64);
  const encIdentity = inner.rest("encIdentity");
  const empty = new Uint8Array();
  const bits = nameAlg.digestBytes * 8;
  const macKey = kdfa(crypto, nameAlg, seed, "INTEGRITY", empty, empty, bits);
  const message = new Writer().bytes(encIdentity).bytes(name).finish();
  expect(integrity).toStrictEqual(crypto.hmac(nameAlg.name, macKey, message));
  const aesKey = kdfa(crypto, nameAlg, seed, "STORAGE", name, empty, 256);
  const cipher = createDecipheriv("aes-256-cfb", aesKey, new Uint8Array(16));
  const plain = new Uint8Array(cipher.update(encIdentity));
  return new Reader(plain, "TPM2B_DIGEST").vec16("buffer", 1, 64);
}

const schemeOf = (kind: string): string =>
  ["rsassa", "rsapss", "ecdsa"].find((name) => kind.includes(name)) ?? expect.unreachable(kind);
const PCRS = [0, 7, 16];
const akKinds = [
  ["rsa2048:rsassa-sha256", "sha256"],
  ["rsa2048:rsapss-sha384", "sha384"],
  ["rsa3072:rsassa-sha384", "sha384"],
  ["rsa3072:rsapss-sha256", "sha256"],
  ["ecc256:ecdsa-sha256", "sha256"],
  ["ecc384:ecdsa-sha384", "sha384"],
  ["ecc384:ecdsa-sha512", "sha512"],
] as const;

describe("quotes over two banks by AKs of every kind", () => {
  it.each(akKinds)(
    "D1, D5, D6: %s verifies; a changed signature or bank order is refused",
    async (kind, alg) => {
      const ak = await createKey("ak", kind, alg, `${SIGN}|restricted`);
      checkAkPublic(ak, { allowSha1: false });
      const extraData = random(32);
      const hex = Buffer.from(extraData).toString("hex");
      const selection = `sha256:${PCRS.join(",")}+sha384:${PCRS.join(",")}`;
      const files = ["-m", at("quote"), "-s", at("signature"), "-o", at("pcrs")];
      const hashOfScheme = kind.split("-")[1] ?? expect.unreachable(kind);
      await run(
        "tpm2_quote",
        "-Q",
        "-c",
        at("ak.ctx"),
        "-l",
        selection,
        "-q",
        hex,
        "-g",
        hashOfScheme,
        "--scheme",
        schemeOf(kind),
        ...files,
        "-F",
        "values",
      );
      const banks = (["sha256", "sha384"] as const).map((bank) => ({ hash: bank, pcrs: PCRS }));
      const bytes = new Reader(read("pcrs"), "values");
      const pcrValues = banks.flatMap((bank) =>
        PCRS.map((pcr) => ({
          hash: bank.hash,
          pcr,
          value: bytes.bytes("value", hash(bank.hash).digestBytes),
        })),
      );
      const check = {
        ak,
        quote: { attest: read("quote"), signature: read("signature") },
        extraData,
        pcrSelection: encodeTpmlPcrSelection(banks),
        pcrValues,
        crypto,
      };
      expect((await verifyQuote(check)).pcrValues).toHaveLength(6);
      const signature = Uint8Array.from(check.quote.signature);
      signature[signature.length - 1] = (signature.at(-1) ?? 0) ^ 1;
      const forged = { ...check, quote: { ...check.quote, signature } };
      expect(await codeOfAsync(() => verifyQuote(forged))).toBe("ATTEST_SIGNATURE_INVALID");
      const pcrSelection = encodeTpmlPcrSelection(banks.toReversed());
      const reordered = { ...check, pcrSelection };
      expect(await codeOfAsync(() => verifyQuote(reordered))).toBe("ATTEST_PCR_SELECTION_MISMATCH");
    },
  );

  it("B1, B2: refuses an AK on P-521, with SHA-1, and one that signs outside data", async () => {
    const p521 = await createKey("ak", "ecc521:ecdsa-sha512", "sha512", `${SIGN}|restricted`);
    expect(codeOf(() => checkAkPublic(p521, { allowSha1: false }))).toBe(NOT_ALLOWED);
    const sha1 = await createKey("ak", "ecc256:ecdsa-sha1", "sha256", `${SIGN}|restricted`);
    expect(codeOf(() => checkAkPublic(sha1, { allowSha1: false }))).toBe(NOT_ALLOWED);
    expect(codeOf(() => checkAkPublic(sha1, { allowSha1: true }))).toBe("nothing was thrown");
    const free = await createKey("ak", "ecc256:ecdsa-sha256", "sha256", SIGN);
    expect(codeOf(() => checkAkPublic(free, { allowSha1: false }))).toBe(
      "ATTEST_KEY_ATTRIBUTES_INVALID",
    );
  });
});

describe("device keys", () => {
  const kinds = [
    ["ecc256:ecdsa-sha256", "ES256"],
    ["ecc256:null", "ES256"],
    ["ecc384:ecdsa-sha384", "ES384"],
    ["rsa2048:rsapss-sha256", "PS256"],
    ["rsa3072:rsassa-sha256", "RS256"],
  ] as const;
  it.each(kinds)(
    "B1, B2: %s is for %s, and refused where that is not accepted",
    async (kind, name) => {
      const area = await createKey("dk", kind, "sha256", SIGN);
      expect(checkDeviceKeyPublic(area, ["ES256", "ES384", "PS256", "RS256"])).toBe(name);
      const others = (["ES256", "ES384", "PS256", "RS256"] as const).filter((it) => it !== name);
      expect(codeOf(() => checkDeviceKeyPublic(area, others))).toBe(NOT_ALLOWED);
      const byDefault = codeOf(() => checkDeviceKeyPublic(area));
      expect(byDefault).toBe(name === "ES256" ? "nothing was thrown" : NOT_ALLOWED);
    },
  );

  it("B2: refuses RSA with 1024 bits, another exponent, and SHA-1 as name hash", () => {
    const fields = {
      type: 1,
      nameAlg: hash("sha256"),
      objectAttributes: DEVICE_ATTRIBUTES,
      authPolicy: new Uint8Array(),
      symmetric: undefined,
      scheme: undefined,
      keyBits: 2048,
      exponent: 0,
      unique: modulusOf(2048),
    } as const;
    const judgeKey = (changed: TpmtPublicFields): string =>
      codeOf(() => checkDeviceKeyPublic(areaOf(changed), ["PS256"]));
    expect(judgeKey(fields)).toBe("nothing was thrown");
    expect(judgeKey({ ...fields, keyBits: 1024, unique: modulusOf(1024) })).toBe(NOT_ALLOWED);
    expect(judgeKey({ ...fields, exponent: 3 })).toBe(NOT_ALLOWED);
    const symmetric = { algorithm: 6, keyBits: 128, mode: 0x43 } as const;
    expect(judgeKey({ ...fields, symmetric })).toBe(NOT_ALLOWED);
    expect(judgeKey({ ...fields, nameAlg: hash("sha1") })).toBe(NOT_ALLOWED);
    expect(judgeKey({ ...fields, objectAttributes: AK_ATTRIBUTES })).toBe(
      "ATTEST_KEY_ATTRIBUTES_INVALID",
    );
  });
});
