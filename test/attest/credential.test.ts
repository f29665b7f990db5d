/** MakeCredential and its key derivations against values that the TCG reference code validated. */
import { describe, expect, it } from "vitest";
import { makeCredential, parseTpmtPublic } from "../../attest/index.ts";
import { createNodeAttestCrypto } from "../../attest/node/index.ts";
import { decodeHex } from "../../wire/index.ts";
import { codeOfAsync } from "../support/reject.ts";
import { sharedMissing } from "../support/shared.ts";
import { tpmVectorVerdicts } from "./support/corpora/tpm-vectors.ts";

const crypto = createNodeAttestCrypto();

describe.skipIf(sharedMissing)("go-tpm's vectors", () => {
  it.each([
    ["KDFa gives the reference values", "kdfa.json", 100],
    ["KDFe gives the reference values", "kdfe.json", 100],
    [
      "the ECC seed of the label IDENTITY is KDFe over one-pass ECDH",
      "ecc_labeled_encaps.json",
      24,
    ],
    ["the OAEP encoding and its label are those of the reference", "rsa_labeled_encaps.json", 100],
  ])("C1: %s", (_, file, count) => {
    const verdicts = tpmVectorVerdicts(file);
    expect(verdicts).toHaveLength(count);
    for (const { name, got, expected } of verdicts) expect(got, name).toBe(expected);
  });
});

describe("makeCredential", () => {
  const random = (length: number): Uint8Array => new Uint8Array(length).fill(7);

  it("B4: refuses a point that is not on the curve", async () => {
    const ek = parseTpmtPublic(
      decodeHex(
        `0023000b000300b20020837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa` +
          `0006008000430010000300100020${"11".repeat(32)}0020${"22".repeat(32)}`,
      ),
    );
    const made = makeCredential({ crypto, random, ek, name: random(34), secret: random(32) });
    expect(await codeOfAsync(() => made)).toBe("ATTEST_STRUCTURE_INVALID");
  });
});
