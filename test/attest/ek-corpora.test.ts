/** Every certificate of the captured corpora, with the verdict that their README states. */
import { X509Certificate } from "node:crypto";
import { describe, expect, it } from "vitest";
import {
  checkFirmware,
  EK_CERTIFICATE_ODDITIES,
  type EkCertificateOddity,
  parseTpmVersion,
  parseTrustedRoots,
} from "../../attest/ek/index.ts";
import { hasRocaFingerprint } from "../../attest/keys/roca.ts";
import { isStileError } from "../../wire/index.ts";
import { codeOf } from "../support/reject.ts";
import { sharedMissing } from "../support/shared.ts";
import {
  EK_SAMPLES,
  EK_VERDICTS,
  isUnorderedRoot,
  ROOT_FILES,
  rootPemOf,
  verifyEkSample,
} from "./support/corpora/ek.ts";

const ALL_ROWS = Object.keys(EK_CERTIFICATE_ODDITIES) as EkCertificateOddity[];

describe.skipIf(sharedMissing)("manufacturer-roots", () => {
  it("has the 51 files, each with certificates", () => {
    expect(ROOT_FILES).toHaveLength(51);
  });

  it.each(ROOT_FILES)("%s parses beside a root, strictly or with its row", async (name) => {
    // Intermediates alone are no trust: each file is read beside a root of its own.
    const alone = `${rootPemOf(name)}\n${rootPemOf("GS_TPM_RT.pem")}`;
    const { anchors, intermediates } = await parseTrustedRoots(alone);
    const certificates = [...anchors, ...intermediates];
    const blocks = rootPemOf(name).split("-----BEGIN CERTIFICATE-----").length - 1;
    expect(blocks).toBeGreaterThan(0);
    const prints = new Set(certificates.map(({ der }) => new X509Certificate(der).fingerprint256));
    expect(prints.has(new X509Certificate(rootPemOf(name)).fingerprint256)).toBe(true);
    const met = new Set(certificates.flatMap(({ rows }) => [...rows.met]));
    expect([...met]).toStrictEqual(isUnorderedRoot(name) ? ["set-of-order"] : []);
  });

  it("has no key of the flawed generator among its RSA keys", async () => {
    const { anchors, intermediates } = await parseTrustedRoots(
      ROOT_FILES.map(rootPemOf).join("\n"),
    );
    const moduli = [...anchors, ...intermediates]
      .map(({ der }) => new X509Certificate(der).publicKey.export({ format: "jwk" }).n)
      .filter((n) => n !== undefined);
    expect(moduli.length).toBeGreaterThan(20);
    for (const n of moduli) expect(hasRocaFingerprint(Buffer.from(n, "base64url"))).toBe(false);
  });

  it("has the serial numbers that node:crypto reads", async () => {
    const { anchors, intermediates } = await parseTrustedRoots(
      ROOT_FILES.map(rootPemOf).join("\n"),
    );
    for (const { der, serialNumber } of [...anchors, ...intermediates]) {
      const expected = new X509Certificate(der).serialNumber.toLowerCase();
      expect(Buffer.from(serialNumber).toString("hex")).toBe(expected);
    }
  });
});

async function judge(der: Uint8Array, acceptOddities: readonly EkCertificateOddity[]) {
  try {
    return await verifyEkSample(der, acceptOddities);
  } catch (error) {
    if (isStileError(error)) return error;
    throw error;
  }
}

describe.skipIf(sharedMissing)("ek-certs", () => {
  it("A10: refuses the firmware that ST's sample was made with, TPM-FAIL's 73.4, for ECC keys", async () => {
    const sample = EK_SAMPLES.find(({ name }) => name === "st_sha256_with_rsa_der");
    const verified = await judge(sample?.der ?? expect.unreachable("no such sample"), [
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
    expect(EK_SAMPLES.map(({ name }) => name).toSorted()).toStrictEqual(
      Object.keys(EK_VERDICTS).toSorted(),
    );
  });

  it.each(EK_SAMPLES.map(({ name, der }) => [name, der] as const))("%s", async (name, der) => {
    const verdict = EK_VERDICTS[name] ?? expect.unreachable(name);
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
