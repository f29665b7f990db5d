/**
 * TPM2_CertifyCreation and qualified Names (checklist D2 to D4, D9, D10) on evidence that tpm2-tools had a
 * software TPM make; and each refusal, with an AK that OpenSSL plays.
 */
import { generateKeyPairSync, sign } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  computeName,
  encodeTpm2bPublic,
  encodeTpmlPcrSelection,
  encodeTpmtSignature,
  hashRow,
  parseTpm2bPublic,
  type TpmtPublic,
  verifyCertify,
  verifyQuote,
} from "../../attest/index.ts";
import { createNodeAttestCrypto } from "../../attest/node/index.ts";
import { hierarchyName, hierarchyOfSigner } from "../../attest/quote/qualified-signer.ts";
import { type CreationCheck, verifyCreation } from "../../attest/quote/verify-creation.ts";
import { parseTpmsAttestCreation } from "../../attest/structures/attest.ts";
import { parseTpmsCreationData } from "../../attest/structures/creation-data.ts";
import { computeQualifiedName } from "../../attest/structures/name.ts";
import { concatBytes, Reader, Writer } from "../../wire/index.ts";
import { codeOf, codeOfAsync } from "../support/reject.ts";
import { useSwtpm } from "../support/swtpm.ts";
import { tool } from "../support/tpm2-tools.ts";

const crypto = createNodeAttestCrypto();
const SHA256 = hashRow(0x000b) ?? expect.unreachable("SHA-256");
const NAME_MISMATCH = "ATTEST_NAME_MISMATCH";

const running = useSwtpm([]);
const folder = mkdtempSync(join(tmpdir(), "stile-creation-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const at = (name: string): string => join(folder, name);
const read = (name: string): Uint8Array => new Uint8Array(readFileSync(at(name)));
const run = (name: string, ...words: string[]): Promise<Buffer> =>
  tool(running.swtpm.tcti, name, ...words);
const keyOf = (name: string): TpmtPublic => parseTpm2bPublic(read(`${name}.pub`));

const SIGN = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign";
const STORAGE = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|decrypt";
const EXTRA = "c0ffee";
const extraData = new Uint8Array(Buffer.from(EXTRA, "hex"));

async function primary(name: string, hierarchy: string, ...words: string[]): Promise<void> {
  await run("tpm2_createprimary", "-Q", "-C", hierarchy, ...words, "-c", at(`${name}.ctx`));
  await describeKey(name);
}

/** The TPM's own qualified Name beside the public area. */
async function describeKey(name: string): Promise<void> {
  // A TPM has room for three transient objects.
  await run("tpm2_flushcontext", "-t");
  const files = ["-o", at(`${name}.pub`), "-q", at(`${name}.qname`)];
  await run("tpm2_readpublic", "-Q", "-c", at(`${name}.ctx`), ...files);
  await run("tpm2_flushcontext", "-t");
}

async function certifyCreation(name: string): Promise<void> {
  const creation = ["-d", at(`${name}.hash`), "-t", at(`${name}.ticket`), "-q", EXTRA];
  const out = ["--attestation", at(`${name}.attest`), "-o", at(`${name}.signature`)];
  const keys = ["-C", at("ak.ctx"), "-c", at(`${name}.ctx`), "-g", "sha256", "-s", "ecdsa"];
  await run("tpm2_certifycreation", ...keys, ...creation, ...out, "-f", "tss");
  await run("tpm2_flushcontext", "-t");
}

/** The tool keeps TPM2B_CREATION_DATA. */
function creationDataOf(name: string): Uint8Array {
  const reader = new Reader(read(`${name}.data`), "TPM2B_CREATION_DATA");
  const data = reader.vec16("creationData", 1, 1000);
  reader.end();
  return data;
}

function checkOf(name: string): CreationCheck {
  return {
    ak: keyOf("ak"),
    creation: { attest: read(`${name}.attest`), signature: read(`${name}.signature`) },
    extraData,
    created: keyOf(name),
    creationData: creationDataOf(name),
    crypto,
  };
}

beforeAll(async () => {
  await primary("ak", "e", "-G", "ecc256:ecdsa-sha256:null", "-a", `${SIGN}|restricted`);
  await primary("owner-ak", "o", "-G", "ecc256:ecdsa-sha256:null", "-a", `${SIGN}|restricted`);
  await primary("parent", "o", "-G", "ecc256:null:aes128cfb", "-a", STORAGE);
  const creation = [
    "--creation-data",
    at("child.data"),
    "-d",
    at("child.hash"),
    "-t",
    at("child.ticket"),
  ];
  const parts = ["-u", at("child.pub"), "-r", at("child.priv")];
  const words = ["-G", "ecc256:ecdsa-sha256:null", "-a", SIGN, "-q", "abcd", "-l", "sha256:0,7"];
  await run("tpm2_create", "-Q", "-C", at("parent.ctx"), ...words, ...parts, ...creation);
  await run("tpm2_flushcontext", "-t");
  await run("tpm2_load", "-Q", "-C", at("parent.ctx"), ...parts, "-c", at("child.ctx"));
  await describeKey("child");
  await certifyCreation("child");
  const primaryFiles = [
    "--creation-data",
    at("top.data"),
    "-d",
    at("top.hash"),
    "-t",
    at("top.ticket"),
  ];
  await primary("top", "p", "-G", "ecc256:ecdsa-sha256:null", "-a", SIGN, ...primaryFiles);
  await certifyCreation("top");
  await run("tpm2_createek", "-Q", "-c", at("ek.ctx"), "-G", "ecc", "-u", at("ek.pub"));
  const ak = ["-c", at("ek-ak.ctx"), "-u", at("ek-ak.pub"), "-n", at("ek-ak.name")];
  await run(
    "tpm2_createak",
    "-Q",
    "-C",
    at("ek.ctx"),
    "-G",
    "ecc",
    "-g",
    "sha256",
    "-s",
    "ecdsa",
    ...ak,
  );
  await run("tpm2_flushcontext", "-t");
  await describeKey("ek");
  await describeKey("ek-ak");
});

describe("a creation that a TPM certified", () => {
  it("verifies for a child, with its parent, PCRs and the qualified Names of the TPM", async () => {
    const akQualifiedName = computeQualifiedName(keyOf("ak"), hierarchyName("endorsement"), crypto);
    const verified = await verifyCreation({
      ...checkOf("child"),
      parent: keyOf("parent"),
      akQualifiedName,
    });
    const { creationData } = verified;
    expect(verified.qualifiedName).toStrictEqual(read("child.qname"));
    expect(creationData.parentName).toStrictEqual(computeName(keyOf("parent"), crypto));
    expect(creationData.parentQualifiedName).toStrictEqual(read("parent.qname"));
    expect(creationData.outsideInfo).toStrictEqual(Uint8Array.of(0xab, 0xcd));
    expect(creationData.pcrSelect.banks).toMatchObject([{ hash: SHA256, pcrs: [0, 7] }]);
    expect(creationData.pcrDigest).toStrictEqual(crypto.hash("sha256", new Uint8Array(64)));
    expect(creationData.locality).toBe(1);
  });

  it("verifies for a primary, whose parent is the handle of its hierarchy", async () => {
    const { creationData, qualifiedName } = await verifyCreation(checkOf("top"));
    expect(creationData.parentNameAlg).toBeUndefined();
    expect(creationData.parentName).toStrictEqual(hierarchyName("platform"));
    expect(creationData.pcrSelect.banks).toStrictEqual([]);
    expect(qualifiedName).toStrictEqual(read("top.qname"));
  });

  it("D1, D10: refuses each changed byte of the attestation and of the creation data", async () => {
    const check = checkOf("child");
    const { attest } = check.creation;
    for (let index = 0; index < attest.length; index += 1) {
      const changed = Uint8Array.from(attest, (byte, i) => (i === index ? byte ^ 1 : byte));
      const creation = { ...check.creation, attest: changed };
      const code = await codeOfAsync(() => verifyCreation({ ...check, creation }));
      expect(code, `attest[${index}]`).toBe("ATTEST_SIGNATURE_INVALID");
    }
    for (let index = 0; index < check.creationData.length; index += 1) {
      const creationData = Uint8Array.from(check.creationData, (byte, i) =>
        i === index ? byte ^ 1 : byte,
      );
      const code = await codeOfAsync(() => verifyCreation({ ...check, creationData }));
      expect(code, `creationData[${index}]`).toBe("ATTEST_CREATION_MISMATCH");
    }
  });

  it("D9: refuses the creation data, the public area or the parent of another object", async () => {
    const check = checkOf("child");
    const other = checkOf("top");
    const judge = (changes: Partial<CreationCheck>): Promise<string> =>
      codeOfAsync(() => verifyCreation({ ...check, ...changes }));
    expect(await judge({ creationData: other.creationData })).toBe("ATTEST_CREATION_MISMATCH");
    expect(await judge({ created: other.created })).toBe(NAME_MISMATCH);
    expect(await judge({ parent: keyOf("ek") })).toBe("ATTEST_CREATION_MISMATCH");
    const primaryCheck = { ...other, parent: keyOf("parent") };
    expect(await codeOfAsync(() => verifyCreation(primaryCheck))).toBe("ATTEST_CREATION_MISMATCH");
  });

  it("D3, D4: refuses another binding value, and an AK of another place", async () => {
    const check = checkOf("child");
    const judge = (changes: Partial<CreationCheck>): Promise<string> =>
      codeOfAsync(() => verifyCreation({ ...check, ...changes }));
    for (const wrong of [
      extraData.subarray(1),
      concatBytes([extraData, Uint8Array.of(0)]),
      new Uint8Array(),
    ])
      expect(await judge({ extraData: wrong })).toBe("ATTEST_NONCE_MISMATCH");
    const akQualifiedName = computeQualifiedName(keyOf("ak"), hierarchyName("owner"), crypto);
    expect(await judge({ akQualifiedName })).toBe(NAME_MISMATCH);
  });

  it("G3: refuses creation data that is larger than any", async () => {
    const creationData = new Uint8Array(513);
    const code = await codeOfAsync(() => verifyCreation({ ...checkOf("child"), creationData }));
    expect(code).toBe("WIRE_LENGTH_OUT_OF_BOUNDS");
  });
});

describe("qualified Names", () => {
  it("are those that the TPM states, for primaries and children", () => {
    const qualified = (name: string, parent: Uint8Array): Uint8Array =>
      computeQualifiedName(keyOf(name), parent, crypto);
    expect(qualified("ak", hierarchyName("endorsement"))).toStrictEqual(read("ak.qname"));
    expect(qualified("owner-ak", hierarchyName("owner"))).toStrictEqual(read("owner-ak.qname"));
    expect(qualified("top", hierarchyName("platform"))).toStrictEqual(read("top.qname"));
    const ek = qualified("ek", hierarchyName("endorsement"));
    expect(ek).toStrictEqual(read("ek.qname"));
    expect(qualified("ek-ak", ek)).toStrictEqual(read("ek-ak.qname"));
  });

  it("tell the hierarchy of an AK that is a primary or a child of the EK", () => {
    const of = (name: string, ek?: TpmtPublic): string | undefined =>
      hierarchyOfSigner(keyOf(name), read(`${name}.qname`), crypto, ek);
    expect(of("ak")).toBe("endorsement");
    expect(of("owner-ak")).toBe("owner");
    expect(of("top")).toBe("platform");
    expect(of("ek-ak")).toBeUndefined();
    expect(of("ek-ak", keyOf("ek"))).toBe("endorsement");
    expect(of("child", keyOf("ek"))).toBeUndefined();
  });

  it("D4: refuses a quote and a certify by an AK of another place", async () => {
    const quoteFiles = ["-m", at("quote"), "-s", at("quote.sig"), "-o", at("pcrs"), "-F", "values"];
    const words = ["-c", at("ek-ak.ctx"), "-l", "sha256:16", "-q", EXTRA, "-g", "sha256"];
    await run("tpm2_quote", "-Q", ...words, ...quoteFiles);
    await run("tpm2_flushcontext", "-t");
    const quote = { attest: read("quote"), signature: read("quote.sig") };
    const pcrSelection = encodeTpmlPcrSelection([{ hash: "sha256", pcrs: [16] }]);
    const pcrValues = [{ hash: "sha256", pcr: 16, value: read("pcrs") }] as const;
    const check = { ak: keyOf("ek-ak"), quote, extraData, pcrSelection, pcrValues, crypto };
    const ek = computeQualifiedName(keyOf("ek"), hierarchyName("endorsement"), crypto);
    const right = computeQualifiedName(keyOf("ek-ak"), ek, crypto);
    const wrong = computeQualifiedName(keyOf("ek-ak"), hierarchyName("endorsement"), crypto);
    const verified = await verifyQuote({ ...check, akQualifiedName: right });
    expect(verified.qualifiedSigner).toStrictEqual(right);
    expect(await codeOfAsync(() => verifyQuote({ ...check, akQualifiedName: wrong }))).toBe(
      NAME_MISMATCH,
    );
  });
});

describe("an AK that does not stop at what a TPM signs", () => {
  const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const { x, y } = pair.publicKey.export({ format: "jwk" });
  const bytes = (text = ""): Uint8Array => new Uint8Array(Buffer.from(text, "base64url"));
  const area = (objectAttributes: number): TpmtPublic =>
    parseTpm2bPublic(
      encodeTpm2bPublic({
        type: 0x23,
        nameAlg: SHA256,
        objectAttributes,
        authPolicy: new Uint8Array(),
        symmetric: undefined,
        scheme: { scheme: 0x18, hashAlg: SHA256 },
        curve: { curveId: 3, name: "P-256", coordinateBytes: 32 },
        unique: { x: bytes(x), y: bytes(y) },
      }),
    );
  const ak = area(0x0005_0072);
  const created = area(0x0004_0072);
  const creationData = new Writer()
    .u32(0)
    .vec16(new Uint8Array())
    .u8(1)
    .u16(0x10)
    .vec16(hierarchyName("owner"))
    .vec16(hierarchyName("owner"))
    .vec16(new Uint8Array())
    .finish();
  const attestOf = (
    changes: { magic?: number; type?: number; safe?: number; end?: number } = {},
  ): Uint8Array => {
    const writer = new Writer()
      .u32(changes.magic ?? 0xff54_4347)
      .u16(changes.type ?? 0x801a)
      .vec16(computeQualifiedName(ak, hierarchyName("endorsement"), crypto))
      .vec16(extraData)
      .u64(1n)
      .u32(1)
      .u32(1)
      .u8(changes.safe ?? 1)
      .u64(1n)
      .vec16(computeName(created, crypto))
      .vec16(crypto.hash("sha256", creationData));
    return writer.bytes(new Uint8Array(changes.end ?? 0)).finish();
  };
  const signed = (attest: Uint8Array): { attest: Uint8Array; signature: Uint8Array } => {
    const raw = sign("sha256", attest, { key: pair.privateKey, dsaEncoding: "ieee-p1363" });
    const [signatureR, signatureS] = [raw.subarray(0, 32), raw.subarray(32)];
    return {
      attest,
      signature: encodeTpmtSignature({ sigAlg: 0x18, hash: SHA256, signatureR, signatureS }),
    };
  };
  const judge = (attest: Uint8Array): Promise<string> =>
    codeOfAsync(() =>
      verifyCreation({ ak, creation: signed(attest), extraData, created, creationData, crypto }),
    );

  it("D2, D7, D10: refuses other magic, type and yes/no bytes, and bytes left over", async () => {
    expect(await judge(attestOf())).toBe("nothing was thrown");
    expect(await judge(attestOf({ magic: 0xff54_4348 }))).toBe("ATTEST_MAGIC_MISMATCH");
    for (const type of [0x8017, 0x8018, 0x8014]) {
      expect(await judge(attestOf({ type }))).toBe("ATTEST_TYPE_MISMATCH");
    }
    expect(await judge(attestOf({ safe: 2 }))).toBe("WIRE_VALUE_NOT_ALLOWED");
    expect(await judge(attestOf({ end: 1 }))).toBe("WIRE_TRAILING_BYTES");
  });

  it("D2: refuses a creation where a certify belongs", async () => {
    const certify = signed(attestOf());
    const code = await codeOfAsync(() =>
      verifyCertify({ ak, certify, extraData, certified: created, crypto }),
    );
    expect(code).toBe("ATTEST_TYPE_MISMATCH");
  });

  it("D4: refuses a certified object, and an AK, of another place", async () => {
    const attest = new Writer()
      .bytes(attestOf({ type: 0x8017 }).subarray(0, -34))
      .vec16(computeQualifiedName(created, hierarchyName("owner"), crypto))
      .finish();
    const check = { ak, certify: signed(attest), extraData, certified: created, crypto };
    const place = (hierarchy: "owner" | "null"): Uint8Array =>
      computeQualifiedName(created, hierarchyName(hierarchy), crypto);
    const verified = await verifyCertify({ ...check, certifiedQualifiedName: place("owner") });
    expect(verified.certified).toBe(created);
    const wrong = { ...check, certifiedQualifiedName: place("null") };
    const akQualifiedName = computeQualifiedName(ak, hierarchyName("platform"), crypto);
    const elsewhere = { ...check, akQualifiedName };
    expect(await codeOfAsync(() => verifyCertify(elsewhere))).toBe(NAME_MISMATCH);
    expect(await codeOfAsync(() => verifyCertify(wrong))).toBe(NAME_MISMATCH);
  });

  it("G5: refuses truncated structures at every length, and reads whole ones", () => {
    const attest = attestOf();
    expect(parseTpmsAttestCreation(attest).creationHash).toHaveLength(32);
    for (let length = 0; length < attest.length; length += 1) {
      const code = codeOf(() => parseTpmsAttestCreation(attest.subarray(0, length)));
      expect(code).toBe("WIRE_TOO_SHORT");
    }
    expect(parseTpmsCreationData(creationData).raw).toBe(creationData);
    for (let length = 0; length < creationData.length; length += 1) {
      const code = codeOf(() => parseTpmsCreationData(creationData.subarray(0, length)));
      expect(code).toMatch(/^WIRE_/);
    }
    const longer = concatBytes([creationData, Uint8Array.of(0)]);
    expect(codeOf(() => parseTpmsCreationData(longer))).toBe("WIRE_TRAILING_BYTES");
    const odd = Uint8Array.from(creationData);
    odd.set([0x12, 0x34], 7);
    expect(codeOf(() => parseTpmsCreationData(odd))).toBe("WIRE_VALUE_NOT_ALLOWED");
  });
});
