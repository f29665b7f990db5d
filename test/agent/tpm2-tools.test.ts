/**
 * tpm2-tools as the device: an implementation that shares no code with ours, not even the choice of
 * templates, passes the attester; and the same evidence with one byte changed does not.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readEkCertificates } from "../../attest/agent/index.ts";
import {
  computeName,
  type EvidenceRequest,
  evidenceBinding,
  parseTpm2bPublic,
  type TpmAttester,
  verifyCertify,
  verifyQuote,
} from "../../attest/index.ts";
import { createNodeAttestCrypto } from "../../attest/node/index.ts";
import { openTpm } from "../../attest/tss2/index.ts";
import { encodeHex, Reader, Writer } from "../../wire/index.ts";
import { createTestAttester, seededRandom } from "../support/attester.ts";
import { codeOfAsync } from "../support/reject.ts";
import { useSwtpm } from "../support/swtpm.ts";
import { tool } from "../support/tpm2-tools.ts";

const PCRS = [0, 1, 2, 3, 7, 16];
const EK = { rsa: "0x81010101", ecc: "0x81010102" } as const;
const AK = { ecc: "0x81010201", rsassa: "0x81010202", rsapss: "0x81010203" } as const;
const DEVICE_KEY = 0x8101_0301;
const TPM_CC_Certify = 0x148;
const TPM_RS_PW = 0x4000_0009;

const crypto = createNodeAttestCrypto();
const exporter = seededRandom("exporter")(32);
const running = useSwtpm();
const folder = mkdtempSync(join(tmpdir(), "stile-tools-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const at = (name: string): string => join(folder, name);
const read = (name: string): Uint8Array => new Uint8Array(readFileSync(at(name)));
const run = (name: string, ...words: string[]): Promise<Buffer> =>
  tool(running.swtpm.tcti, name, ...words);

/** Makes the keys with tpm2-tools and keeps them at persistent handles. */
beforeAll(async () => {
  for (const kind of ["rsa", "ecc"] as const) {
    await run("tpm2_createek", "-Q", "-c", EK[kind], "-G", kind, "-u", at(`ek-${kind}.pub`));
  }
  const schemes = {
    ecc: ["ecc", "ecdsa"],
    rsassa: ["rsa", "rsassa"],
    rsapss: ["rsa", "rsapss"],
  } as const;
  for (const kind of ["ecc", "rsassa", "rsapss"] as const) {
    const [algorithm, scheme] = schemes[kind];
    const files = ["-c", at("ak.ctx"), "-u", at(`ak-${kind}.pub`), "-n", at("ak.name")];
    await run(
      "tpm2_createak",
      "-Q",
      "-C",
      EK.ecc,
      "-G",
      algorithm,
      "-g",
      "sha256",
      "-s",
      scheme,
      ...files,
    );
    await run("tpm2_evictcontrol", "-Q", "-C", "o", "-c", at("ak.ctx"), AK[kind]);
    await run("tpm2_flushcontext", "-t");
  }
  const attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign";
  await run(
    "tpm2_createprimary",
    "-Q",
    "-C",
    "o",
    "-G",
    "ecc256:ecdsa-sha256",
    "-a",
    attributes,
    "-c",
    at("dk.ctx"),
  );
  await run(
    "tpm2_evictcontrol",
    "-Q",
    "-C",
    "o",
    "-c",
    at("dk.ctx"),
    `0x${DEVICE_KEY.toString(16)}`,
  );
  await run("tpm2_flushcontext", "-t");
  await run("tpm2_readpublic", "-Q", "-c", `0x${DEVICE_KEY.toString(16)}`, "-o", at("dk.pub"));
  await run("tpm2_pcrextend", `16:sha256=${"ab".repeat(32)}`);
});

/** The file format of tpm2_activatecredential: a magic, a version and the two structures. */
async function activate(
  ek: string,
  ak: string,
  blob: Uint8Array,
  secret: Uint8Array,
): Promise<Uint8Array> {
  const file = new Writer().u32(0xbadc_c0de).u32(1).bytes(blob).bytes(secret).finish();
  writeFileSync(at("credential"), file);
  await run("tpm2_startauthsession", "--policy-session", "-S", at("session"));
  await run("tpm2_policysecret", "-Q", "-S", at("session"), "-c", "e");
  const words = ["-c", ak, "-C", ek, "-i", at("credential"), "-o", at("secret")];
  try {
    await run("tpm2_activatecredential", "-Q", ...words, "-P", `session:${at("session")}`);
  } finally {
    await run("tpm2_flushcontext", at("session"));
  }
  return read("secret");
}

/** TPM2_Certify as raw bytes: tpm2_certify 5.4 has a fixed qualifyingData. */
async function certify(
  ak: string,
  qualifyingData: Uint8Array,
): Promise<{ attest: Uint8Array; signature: Uint8Array }> {
  const password = new Writer().u32(TPM_RS_PW).u16(0).u8(0).u16(0).finish();
  const body = new Writer()
    .u32(TPM_CC_Certify)
    .u32(DEVICE_KEY)
    .u32(Number(ak))
    .u32(2 * password.length)
    .bytes(password)
    .bytes(password)
    .vec16(qualifyingData)
    .u16(0x0010)
    .finish();
  writeFileSync(
    at("command"),
    new Writer()
      .u16(0x8002)
      .u32(body.length + 6)
      .bytes(body)
      .finish(),
  );
  await run("tpm2_send", at("command"), "-o", at("response"));
  const reader = new Reader(read("response"), "TPM2_Certify");
  reader.bytes("tag and size", 6);
  expect(reader.u32("responseCode")).toBe(0);
  const parameters = new Reader(
    reader.bytes("parameters", reader.u32("parameterSize")),
    "parameters",
  );
  return {
    attest: parameters.vec16("certifyInfo", 1, 1024),
    signature: parameters.rest("signature"),
  };
}

async function quote(
  ak: string,
  extraData: Uint8Array,
): Promise<Pick<EvidenceRequest, "quote" | "pcrValues">> {
  const files = ["-m", at("quote"), "-s", at("quote.sig")];
  const list = `sha256:${PCRS.join(",")}`;
  // tpm2_quote takes RSASSA for granted with an RSA key.
  const scheme = ak === AK.rsapss ? ["--scheme", "rsapss"] : [];
  await run(
    "tpm2_quote",
    "-Q",
    "-c",
    ak,
    "-l",
    list,
    "-q",
    encodeHex(extraData),
    ...files,
    "-g",
    "sha256",
    ...scheme,
  );
  await run("tpm2_pcrread", "-Q", list, "-o", at("pcrs"));
  const values = read("pcrs");
  return {
    quote: { attest: read("quote"), signature: read("quote.sig") },
    pcrValues: PCRS.map((pcr, i) => ({
      hash: "sha256",
      pcr,
      value: values.slice(32 * i, 32 * i + 32),
    })),
  };
}

interface Enrolment {
  readonly attester: TpmAttester;
  readonly evidence: EvidenceRequest;
}

async function enrol(ek: "rsa" | "ecc", ak: keyof typeof AK): Promise<Enrolment> {
  const attester = await createTestAttester(running.ca.rootPem, {
    pcrBanks: [{ hash: "sha256", pcrs: PCRS }],
  });
  const tpm = await openTpm({ tcti: running.swtpm.tcti, maxPendingCalls: 4 });
  const ekCertificates = await readEkCertificates(tpm, ek);
  await tpm.close();
  const challenge = await attester.challenge({
    ekCertificates,
    ekPublic: read(`ek-${ek}.pub`),
    akPublic: read(`ak-${ak}.pub`),
  });
  const { credentialBlob, encryptedSecret, nonce, session } = challenge;
  const activatedSecret = await activate(EK[ek], AK[ak], credentialBlob, encryptedSecret);
  const deviceKeyName = computeName(parseTpm2bPublic(read("dk.pub")), crypto);
  const bindTo = { nonce, tlsExporter: exporter, deviceKeyName };
  const quoted = await quote(AK[ak], evidenceBinding(crypto, "quote", bindTo));
  const certified = await certify(AK[ak], evidenceBinding(crypto, "certify", bindTo));
  const deviceKey = { public: read("dk.pub"), ...certified };
  return { attester, evidence: { session, activatedSecret, ...quoted, deviceKey } };
}

describe("tpm2-tools as the device", () => {
  it.each([
    ["rsa", "ecc"],
    ["ecc", "ecc"],
    ["rsa", "rsassa"],
    ["ecc", "rsapss"],
  ] as const)("passes the attester with an %s EK and an %s AK", async (ek, ak) => {
    const { attester, evidence } = await enrol(ek, ak);
    const device = await attester.evidence(evidence, exporter);
    expect(device).toMatchObject({ channelBinding: "tls-exporter", manufacturer: "id:49424D00" });
    expect(device.quote.pcrValues).toHaveLength(PCRS.length);
    expect(encodeHex(device.quote.pcrValues[5]?.value ?? new Uint8Array())).not.toBe(
      "00".repeat(32),
    );
  });

  it("D3, D11: is refused with the evidence of another connection, and with its own a second time", async () => {
    const relayed = await enrol("ecc", "ecc");
    const other = exporter.with(0, (exporter[0] ?? 0) ^ 1);
    expect(await codeOfAsync(() => relayed.attester.evidence(relayed.evidence, other))).toBe(
      "ATTEST_NONCE_MISMATCH",
    );
    expect(await codeOfAsync(() => relayed.attester.evidence(relayed.evidence, exporter))).toBe(
      "ATTEST_SESSION_UNKNOWN",
    );
  });

  it("C2, D2, D6: is refused with the wrong secret, PCR value, key or quote in place of certify", async () => {
    const changes: readonly [string, (evidence: EvidenceRequest) => EvidenceRequest][] = [
      ["ATTEST_CREDENTIAL_MISMATCH", (e) => ({ ...e, activatedSecret: new Uint8Array(32) })],
      [
        "ATTEST_PCR_DIGEST_MISMATCH",
        (e) => ({
          ...e,
          pcrValues: e.pcrValues.with(0, {
            hash: "sha256",
            pcr: 0,
            value: new Uint8Array(32).fill(1),
          }),
        }),
      ],
      [
        "ATTEST_KEY_ATTRIBUTES_INVALID",
        (e) => ({ ...e, deviceKey: { ...e.deviceKey, public: read("ak-ecc.pub") } }),
      ],
      ["ATTEST_TYPE_MISMATCH", (e) => ({ ...e, quote: e.deviceKey })],
      [
        "ATTEST_TYPE_MISMATCH",
        (e) => ({ ...e, deviceKey: { ...e.quote, public: e.deviceKey.public } }),
      ],
    ];
    for (const [code, change] of changes) {
      const { attester, evidence } = await enrol("ecc", "ecc");
      expect(await codeOfAsync(() => attester.evidence(change(evidence), exporter))).toBe(code);
    }
  });
});

describe("evidence with one byte changed", () => {
  it.each(["ecc", "rsassa", "rsapss"] as const)(
    "is refused at every byte of a quote and a certify by an %s AK",
    async (kind) => {
      const ak = parseTpm2bPublic(read(`ak-${kind}.pub`));
      const certified = parseTpm2bPublic(read("dk.pub"));
      const extraData = seededRandom(kind)(32);
      const { quote: signed, pcrValues } = await quote(AK[kind], extraData);
      const certifySigned = await certify(AK[kind], extraData);
      // UINT32 count, one bank, sizeofSelect 3: PCRs 0-3, 7 and 16.
      const pcrSelection = new Writer()
        .u32(1)
        .u16(0x000b)
        .vec8(Uint8Array.of(0x8f, 0x00, 0x01))
        .finish();
      const checkQuote = (quoted: typeof signed) =>
        verifyQuote({ ak, quote: quoted, extraData, pcrSelection, pcrValues, crypto });
      const checkCertify = (bytes: typeof signed) =>
        verifyCertify({ ak, certify: bytes, extraData, certified, crypto });
      await expect(checkQuote(signed)).resolves.toMatchObject({ kind: "verified-quote" });
      await checkCertify(certifySigned);
      let refused = 0;
      for (const [check, whole] of [
        [checkQuote, signed],
        [checkCertify, certifySigned],
      ] as const) {
        for (const part of ["attest", "signature"] as const) {
          for (let i = 0; i < whole[part].length; i += 1) {
            for (const bit of [0x01, 0x80]) {
              const changed = {
                ...whole,
                [part]: whole[part].with(i, (whole[part][i] ?? 0) ^ bit),
              };
              expect(await codeOfAsync(() => check(changed)), `${part} ${i}`).toMatch(
                /^(?:ATTEST|WIRE)_/,
              );
              refused += 1;
            }
          }
        }
      }
      expect(refused).toBeGreaterThan(600);
    },
  );
});
