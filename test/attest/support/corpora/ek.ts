/**
 * Manufacturers' certificates and EK certificates as keylime collected them, with the verdict that the
 * README of the corpora states. Shared by the tests and by the page that lists the verdicts.
 */
import { X509Certificate } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import {
  type EkCertificateOddity,
  parseTrustedRoots,
  verifyEkCertificate,
  type VerifiedEkCertificate,
} from "../../../../attest/ek/index.ts";
import { readSharedJson, sharedDir, sharedMissing } from "../../../support/shared.ts";

const AT_MS = Date.UTC(2024, 0, 1);

interface EkSample {
  readonly name: string;
  readonly der: Uint8Array;
}

/** README: which are EK certificates. Anything new in the folder fails the run. */
export const EK_VERDICTS: Readonly<Record<string, string>> = {
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

export const ROOT_FILES: readonly string[] = sharedMissing
  ? []
  : readdirSync(folder).filter((name) => name.endsWith(".pem"));

export const rootPemOf = (name: string): string => readFileSync(join(folder, name), "utf8");

export const EK_SAMPLES: readonly EkSample[] = sharedMissing
  ? []
  : (readSharedJson("corpora/ek-certs/keylime.json") as { name: string; der: string }[]).map(
      ({ name, der }) => ({ name, der: new Uint8Array(Buffer.from(der, "base64")) }),
    );

/** NTC and NUVO: all that Nuvoton published with an unordered name. */
const UNORDERED = ["NTC1", "NTC2", "NUVO_0100", "NUVO_1110", "NUVO_1111", "NUVO_2110", "NUVO_2111"];

export const isUnorderedRoot = (file: string): boolean =>
  UNORDERED.includes(file.replace(".pem", ""));

/** Judges an EK certificate under all roots of the corpus, as if its TPM had shown the same key. */
export async function verifyEkSample(
  der: Uint8Array,
  acceptOddities: readonly EkCertificateOddity[],
): Promise<VerifiedEkCertificate> {
  const { publicKey } = new X509Certificate(der);
  return verifyEkCertificate({
    certificates: [der],
    ekPublicKeySpki: new Uint8Array(publicKey.export({ type: "spki", format: "der" })),
    ekKeyType: publicKey.asymmetricKeyType === "ec" ? "ecc" : "rsa",
    roots: await parseTrustedRoots(ROOT_FILES.map(rootPemOf).join("\n")),
    atMs: AT_MS,
    acceptOddities,
  });
}
