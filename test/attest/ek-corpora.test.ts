/** Every certificate of the captured corpora, with the verdict that their README states. */
import { X509Certificate } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import {
  checkFirmware,
  EK_CERTIFICATE_ODDITIES,
  type EkCertificateOddity,
  parseTpmVersion,
  parseTrustedRoots,
  verifyEkCertificate,
} from "../../attest/ek/index.ts";
import { hasRocaFingerprint } from "../../attest/keys/roca.ts";
import { isStileError } from "../../wire/index.ts";
import { codeOf } from "../support/reject.ts";
import { readSharedJson, sharedDir, sharedMissing } from "../support/shared.ts";

const AT_MS = Date.UTC(2024, 0, 1);
const ALL_ROWS = Object.keys(EK_CERTIFICATE_ODDITIES) as EkCertificateOddity[];

interface Sample {
  readonly name: string;
  readonly der: string;
}

/** README: which are EK certificates. Anything new in the folder fails the run. */
const VERDICTS: Record<string, string> = {
  nuvoton_ecdsa_sha256_der:
    "ATTEST_EK_CERTIFICATE_INVALID: a CA certificate is not an EK certificate",
  st_sha256_with_rsa_der: "accepted with nv-index-padding",
  // Its issuer's issuer, GlobalSign's ECC root, is not in the corpus.
  st_ecdsa_sha256_der: "ATTEST_EK_CHAIN_UNTRUSTED",
  // Its key is of the type id-RSASSA-PSS, which no EK has.
  idevid_der: "ATTEST_ALGORITHM_NOT_ALLOWED",
  iak_der: "ATTEST_EK_CHAIN_UNTRUSTED",
};

const folder = join(sharedDir, "corpora", "manufacturer-roots");
const files = sharedMissing ? [] : readdirSync(folder).filter((name) => name.endsWith(".pem"));
const pemOf = (name: string): string => readFileSync(join(folder, name), "utf8");
const samples = sharedMissing ? [] : (readSharedJson("corpora/ek-certs/keylime.json") as Sample[]);

/** NTC and NUVO: all that Nuvoton published with an unordered name. */
const UNORDERED = ["NTC1", "NTC2", "NUVO_0100", "NUVO_1110", "NUVO_1111", "NUVO_2110", "NUVO_2111"];

describe.skipIf(sharedMissing)("manufacturer-roots", () => {
  it("has the 51 files, each with certificates", () => {
    expect(files).toHaveLength(51);
  });

  it.each(files)("%s parses beside a root, strictly or with its row", async (name) => {
    // Intermediates alone are no trust: each file is read beside a root of its own.
    const alone = `${pemOf(name)}\n${pemOf("GS_TPM_RT.pem")}`;
    const { anchors, intermediates } = await parseTrustedRoots(alone);
    const certificates = [...anchors, ...intermediates];
    const blocks = pemOf(name).split("-----BEGIN CERTIFICATE-----").length - 1;
    expect(blocks).toBeGreaterThan(0);
    const prints = new Set(certificates.map(({ der }) => new X509Certificate(der).fingerprint256));
    expect(prints.has(new X509Certificate(pemOf(name)).fingerprint256)).toBe(true);
    const met = new Set(certificates.flatMap(({ rows }) => [...rows.met]));
    const isUnordered = UNORDERED.includes(name.replace(".pem", ""));
    expect([...met]).toStrictEqual(isUnordered ? ["set-of-order"] : []);
  });

  it("has no key of the flawed generator among its RSA keys", async () => {
    const { anchors, intermediates } = await parseTrustedRoots(files.map(pemOf).join("\n"));
    const moduli = [...anchors, ...intermediates]
      .map(({ der }) => new X509Certificate(der).publicKey.export({ format: "jwk" }).n)
      .filter((n) => n !== undefined);
    expect(moduli.length).toBeGreaterThan(20);
    for (const n of moduli) expect(hasRocaFingerprint(Buffer.from(n, "base64url"))).toBe(false);
  });

  it("has the serial numbers that node:crypto reads", async () => {
    const { anchors, intermediates } = await parseTrustedRoots(files.map(pemOf).join("\n"));
    for (const { der, serialNumber } of [...anchors, ...intermediates]) {
      const expected = new X509Certificate(der).serialNumber.toLowerCase();
      expect(Buffer.from(serialNumber).toString("hex")).toBe(expected);
    }
  });
});

async function judge(der: Uint8Array, acceptOddities: readonly EkCertificateOddity[]) {
  const { publicKey } = new X509Certificate(der);
  try {
    return await verifyEkCertificate({
      certificates: [der],
      ekPublicKeySpki: new Uint8Array(publicKey.export({ type: "spki", format: "der" })),
      ekKeyType: publicKey.asymmetricKeyType === "ec" ? "ecc" : "rsa",
      roots: await parseTrustedRoots(files.map(pemOf).join("\n")),
      atMs: AT_MS,
      acceptOddities,
    });
  } catch (error) {
    if (isStileError(error)) return error;
    throw error;
  }
}

describe.skipIf(sharedMissing)("ek-certs", () => {
  it("A10: refuses the firmware that ST's sample was made with, TPM-FAIL's 73.4, for ECC keys", async () => {
    const sample = samples.find(({ name }) => name === "st_sha256_with_rsa_der");
    const verified = await judge(new Uint8Array(Buffer.from(sample?.der ?? "", "base64")), [
      "nv-index-padding",
    ]);
    if (isStileError(verified)) expect.unreachable(verified.message);
    const { manufacturer } = verified;
    const version = parseTpmVersion(verified.version);
    const judgeFor = (type: "rsa" | "ecc"): string =>
      codeOf(() =>
        checkFirmware({ manufacturer, version, keyTypes: [type] }, { refuse: "affected" }),
      );
    expect(judgeFor("ecc")).toBe("ATTEST_FIRMWARE_REFUSED");
    expect(judgeFor("rsa")).toBe("nothing was thrown");
  });

  it("has a verdict for each sample", () => {
    expect(samples.map(({ name }) => name).toSorted()).toStrictEqual(
      Object.keys(VERDICTS).toSorted(),
    );
  });

  it.each(samples.map(({ name, der }) => [name, der] as const))("%s", async (name, base64) => {
    const der = new Uint8Array(Buffer.from(base64, "base64"));
    const verdict = VERDICTS[name] ?? expect.unreachable(name);
    const strict = await judge(der, []);
    const tolerant = await judge(der, ALL_ROWS);
    expect(strict).toBeInstanceOf(Error);
    if (verdict.startsWith("accepted with ")) {
      expect(tolerant).toMatchObject({
        oddities: [verdict.slice("accepted with ".length)],
        specification: { family: "2.0", level: 0, revision: 116 },
      });
      return;
    }
    if (!isStileError(tolerant)) expect.unreachable(`${name} was accepted`);
    expect(verdict).toMatch(new RegExp(`^${tolerant.code}`));
    if (verdict.includes(": "))
      expect(tolerant.message).toBe(`ek certificate: ${verdict.split(": ")[1]}`);
  });
});
