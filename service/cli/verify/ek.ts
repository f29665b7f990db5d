/** `stile verify ek`: an EK certificate, its path to a manufacturer, and what is known of its firmware. */
import { X509Certificate } from "node:crypto";
import { parseArgs } from "node:util";
import {
  checkFirmware,
  EK_CERTIFICATE_ODDITIES,
  type EkCertificateOddity,
  encodeSpki,
  parseRevocationLists,
  parseTpmVersion,
  parseTpm2bPublic,
  parseTrustedRoots,
  verifyEkCertificate,
} from "../../../attest/index.ts";
import { StileError } from "../../../wire/index.ts";
import { CliUsageError } from "../usage.ts";
import { type Facts, instantOf, needed, readBytes, report } from "./report.ts";

export const EK_USAGE =
  "verify ek CERT [INTERMEDIATE ...] --roots PEM [--public TPM2B_PUBLIC] [--crl FILE ...] [--require-crl] [--accept-oddity NAME ...] [--at DATE]";

export function verifyEkCommand(args: readonly string[]): Promise<number> {
  const { positionals, values } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      roots: { type: "string" },
      public: { type: "string" },
      crl: { type: "string", multiple: true },
      "require-crl": { type: "boolean" },
      "accept-oddity": { type: "string", multiple: true },
      at: { type: "string" },
      json: { type: "boolean" },
    },
  });
  const certificates = positionals.map((file) => readBytes(file));
  const [certificate] = certificates;
  if (certificate === undefined) throw new CliUsageError(`expected: ${EK_USAGE}`);
  const pem = Buffer.from(readBytes(needed(values.roots, "--roots PEM"))).toString("utf8");
  const acceptOddities = (values["accept-oddity"] ?? []).map((name) => oddityOf(name));
  const crls = (values.crl ?? []).map((file) => readBytes(file));
  const atMs = instantOf(values.at);
  return report(values.json ?? false, async (): Promise<Facts> => {
    const key =
      values.public === undefined ? certifiedKey(certificate) : publicKey(readBytes(values.public));
    const roots = await parseTrustedRoots(pem);
    const { spki: _spki, ...facts } = await verifyEkCertificate({
      certificates,
      ekPublicKeySpki: key.spki,
      ekKeyType: key.type,
      roots,
      atMs,
      acceptOddities,
      revocation: {
        mode: values["require-crl"] === true ? "required" : "when-available",
        lists: await parseRevocationLists(crls, roots),
      },
    });
    return {
      ...facts,
      keyCompared: values.public !== undefined,
      vulnerabilities: checkFirmware(
        {
          manufacturer: facts.manufacturer,
          version: parseTpmVersion(facts.version),
          keyTypes: [key.type],
        },
        { refuse: "none" },
      ),
    };
  });
}

function oddityOf(name: string): EkCertificateOddity {
  const known = Object.keys(EK_CERTIFICATE_ODDITIES) as EkCertificateOddity[];
  const oddity = known.find((row) => row === name);
  if (oddity === undefined) throw new CliUsageError(`--accept-oddity: one of ${known.join(", ")}`);
  return oddity;
}

interface EkKey {
  readonly spki: Uint8Array;
  readonly type: "rsa" | "ecc";
}

function publicKey(tpm2bPublic: Uint8Array): EkKey {
  const area = parseTpm2bPublic(tpm2bPublic);
  return { spki: encodeSpki(area), type: "keyBits" in area ? "rsa" : "ecc" };
}

/** Without the EK itself, the certificate is compared with its own key: a check less. */
function certifiedKey(certificate: Uint8Array): EkKey {
  try {
    const { publicKey: key } = new X509Certificate(certificate);
    const spki = Uint8Array.from(key.export({ type: "spki", format: "der" }));
    return { spki, type: key.asymmetricKeyType === "ec" ? "ecc" : "rsa" };
  } catch (cause) {
    const message =
      "EK certificate: its key cannot be read; give the EK's public area with --public";
    throw new StileError("ATTEST_EK_CERTIFICATE_INVALID", message, { cause });
  }
}
