/**
 * One row for each captured sample: what it is, what its origin expects of it, and the verdicts that the
 * verifiers of attest/ reach by the default policy and by the settings that its origin accepts it with.
 * The verdicts are computed; only the words about the samples are written by hand.
 */
import { createNodeAttestCrypto } from "../../../../attest/node/index.ts";
import { parseTrustedRoots } from "../../../../attest/ek/index.ts";
import { decodePemBlocks } from "../../../../attest/ek/roots.ts";
import { parseCertificate } from "../../../../attest/ek/certificate.ts";
import { createOddityRows, type EkCertificateOddity } from "../../../../attest/ek/oddities.ts";
import { parseImaLog, verifyImaLog } from "../../../../attest/ima/index.ts";
import {
  type VerifiedRegistration,
  verifyRegistration,
} from "../../../../attest/webauthn/index.ts";
import { concatBytes } from "../../../../wire/index.ts";
import { codeOfAsync } from "../../../support/reject.ts";
import { readShared } from "../../../support/shared.ts";
import { EK_SAMPLES, EK_VERDICTS, ROOT_FILES, rootPemOf, verifyEkSample } from "./ek.ts";
import {
  dumpedLog,
  EVENT_LOG_ROWS,
  exitBootServicesQuote,
  findingCodesOf,
  sharedLog,
  statedQuote,
  verifyDumpedQuote,
  verifySharedLog,
} from "./event-logs.ts";
import { TPM_VECTORS, tpmVectors, tpmVectorVerdicts } from "./tpm-vectors.ts";
import { registrationCheckOf, WEBAUTHN_ROWS, webAuthnSamples } from "./webauthn.ts";

export interface CorpusRow {
  /** Path below the corpora, with the entry in brackets where a file has several. */
  readonly sample: string;
  readonly what: string;
  readonly expected: string;
  readonly byDefault: string;
  /** Settings beyond the default that the origin accepts it with; empty where none is needed. */
  readonly settings: string;
  readonly withSettings: string;
}

const crypto = createNodeAttestCrypto();
const NONE = { settings: "", withSettings: "" };

/** The code of the refusal, or what `accepted` says of the result. */
async function verdict<T>(
  action: () => T | Promise<T>,
  accepted: (result: T) => string,
): Promise<string> {
  let said = "";
  const code = await codeOfAsync(async () => {
    said = accepted(await action());
  });
  if (/^(ATTEST|WIRE)_/.test(code)) return `refused: \`${code}\``;
  if (code !== "nothing was thrown") throw new Error(code);
  return said === "" ? "accepted" : `accepted: ${said}`;
}

export async function corpusRows(): Promise<CorpusRow[]> {
  return [
    ...(await ekRows()),
    ...(await rootRows()),
    ...(await eventLogRows()),
    ...(await imaRows()),
    ...tpmStructureRows(),
    ...(await webAuthnRows()),
  ];
}

const EK_WORDS: Readonly<Record<string, readonly [what: string, expected: string]>> = {
  nuvoton_ecdsa_sha256_der: ["a CA of Nuvoton, a name not in DER order", "no EK certificate"],
  st_sha256_with_rsa_der: ["ST, RSA, as read from an NV index", "an EK certificate with padding"],
  st_ecdsa_sha256_der: ["ST, ECC; its root is not in the corpus", "an EK certificate"],
  idevid_der: ["a device identity (IDevID)", "no EK certificate"],
  iak_der: ["an attestation key (IAK)", "no EK certificate"],
};

function ekRows(): Promise<CorpusRow[]> {
  const rows = EK_SAMPLES.map(async ({ name, der }): Promise<CorpusRow> => {
    const [what, expected] = wordsOf(EK_WORDS, name);
    const judge = (accept: readonly EkCertificateOddity[]): Promise<string> =>
      verdict(
        () => verifyEkSample(der, accept),
        ({ manufacturer, model }) => `${manufacturer} ${model}`,
      );
    const named = /^accepted with (?<row>.+)$/.exec(EK_VERDICTS[name] ?? "")?.groups?.["row"];
    const settings =
      named === undefined
        ? NONE
        : {
            settings: `\`acceptOddities: ${named}\``,
            withSettings: await judge([named as EkCertificateOddity]),
          };
    return {
      sample: `ek-certs/keylime.json [${name}]`,
      what,
      expected,
      byDefault: await judge([]),
      ...settings,
    };
  });
  return Promise.all(rows);
}

/** From the operator a file is read with the rows for issuers; from a client only strictly. */
function rootRows(): Promise<CorpusRow[]> {
  const beside = rootPemOf("GS_TPM_RT.pem");
  const rows = ROOT_FILES.map(async (file): Promise<CorpusRow> => {
    const pem = rootPemOf(file);
    const blocks = decodePemBlocks(pem);
    const strictly = (accepted: readonly EkCertificateOddity[]): Promise<string> =>
      verdict(
        () => blocks.map((der) => parseCertificate(der, createOddityRows(accepted))),
        (all) => `${all.length} read`,
      );
    const { anchors, intermediates } = await parseTrustedRoots(`${pem}\n${beside}`);
    const own = (list: typeof anchors): number =>
      list.filter(({ der }) => blocks.some((block) => Buffer.from(block).equals(der))).length;
    const met = [...anchors, ...intermediates].flatMap(({ rows: { met: names } }) => [...names]);
    const names = [...new Set(met)];
    const settings =
      names.length === 0
        ? NONE
        : {
            settings: `\`acceptOddities: ${names.join(", ")}\`; always on for roots`,
            withSettings: await strictly(names),
          };
    return {
      sample: `manufacturer-roots/${file}`,
      what: `roots ${own(anchors)}, intermediates ${own(intermediates)}`,
      expected: "parses",
      byDefault: await strictly([]),
      ...settings,
    };
  });
  return Promise.all(rows);
}

const LOG_WORDS: Readonly<Record<string, readonly [what: string, expected: string]>> = {
  "arch-linux-workstation.bin": [
    "Arch Linux, a workstation",
    "replays; never Secure Boot on; an empty variable, an early application",
  ],
  "cos-85-amd-sev.bin": ["Container-Optimized OS, AMD SEV", "replays to stated PCRs"],
  "debian-10.bin": ["Debian 10, a virtual machine", "replays to stated PCRs"],
  "rhel8-uefi.bin": ["RHEL 8, UEFI", "replays to stated PCRs"],
  "ubuntu-2104-no-dbx.bin": ["Ubuntu 21.04 without dbx", "replays to stated PCRs"],
  "ubuntu-2104-no-secure-boot.bin": ["Ubuntu 21.04, Secure Boot off", "replays to stated PCRs"],
  crypto_agile_eventlog: ["crypto-agile log, several banks", "parses"],
  ebs_event_missing_eventlog: [
    "log without its ExitBootServices events",
    "strict replay fails, a workaround explains it",
  ],
  keylime_binary_bios_measurements: ["log of keylime's tests", "parses"],
  option_rom_eventlog: ["72 kB, option ROM events", "parses"],
  sb_cert_eventlog: ["Secure Boot by a certificate authority", "parses"],
  short_no_action_eventlog: ["a short EV_NO_ACTION event", "parses"],
};

/** State and findings: what a policy judges of an accepted log. */
const saidOfLog = (log: ReturnType<typeof verifySharedLog>): string => {
  const findings = findingCodesOf(log);
  const state = `Secure Boot ${log.secureBoot.state}`;
  return findings.length === 0 ? state : `${state}; found ${findings.join(", ")}`;
};

async function eventLogRows(): Promise<CorpusRow[]> {
  const logs = EVENT_LOG_ROWS.map(async ([file]): Promise<CorpusRow> => {
    const [what, expected] = wordsOf(LOG_WORDS, file);
    const log = sharedLog(file);
    const isCut = file === "ebs_event_missing_eventlog";
    const quote = isCut ? exitBootServicesQuote(log) : statedQuote(file);
    const named = ["exit-boot-services-missing"] as const;
    return {
      sample: `eventlogs/${file}`,
      what: quote === undefined ? `${what}; quoted as it replays` : what,
      expected,
      byDefault: await verdict(() => verifySharedLog(log, quote), saidOfLog),
      settings: isCut ? `\`workarounds: ${named[0]}\`` : "",
      withSettings: isCut ? await verdict(() => verifySharedLog(log, quote, named), saidOfLog) : "",
    };
  });
  return [...(await Promise.all(logs)), ...(await otherLogRows())];
}

async function otherLogRows(): Promise<CorpusRow[]> {
  const windows = "windows_gcp_shielded_vm.json";
  const dump = async (allowSha1: boolean): Promise<ReturnType<typeof verifySharedLog>> =>
    verifySharedLog(dumpedLog(windows), await verifyDumpedQuote(windows, { allowSha1 }));
  const old = "linux_tpm12.json";
  const bogus = "keylime_binary_bios_measurements-bogus";
  return [
    {
      sample: `eventlogs/${windows}`,
      what: "Windows, a shielded VM: AK, quote, PCRs, log",
      expected: "verifies end to end",
      byDefault: await verdict(() => dump(false), saidOfLog),
      settings: "`allowSha1`",
      withSettings: await verdict(() => dump(true), saidOfLog),
    },
    {
      sample: `eventlogs/${old}`,
      what: "Linux, TPM 1.2: a SHA-1 log; its quote is out of scope; quoted as it replays",
      expected: "its log parses",
      byDefault: await verdict(() => verifySharedLog(dumpedLog(old)), saidOfLog),
      ...NONE,
    },
    {
      sample: `eventlogs/${bogus}`,
      what: "34 bytes of nonsense",
      expected: "refused",
      byDefault: await verdict(() => verifySharedLog(sharedLog(bogus)), saidOfLog),
      ...NONE,
    },
    {
      sample: "eventlogs/expected.json",
      what: "PCRs and boot applications that go-eventlog states",
      expected: "the reference of the six `.bin` logs",
      byDefault: "not evidence",
      ...NONE,
    },
  ];
}

const IMA_NAMES = ["sha1", "sha256", "sha384", "sha512", "sm3_256", "unknown"] as const;

/** Each list with the quote of a kernel that had extended it whole into the SHA-256 bank. */
function imaRows(): Promise<CorpusRow[]> {
  const rows = IMA_NAMES.map(async (name): Promise<CorpusRow> => {
    const log = readShared(`corpora/ima/ima-log-${name}`);
    const said = await verdict(
      () => verifyImaLog({ log, form: "ascii", quote: imaQuote(log), crypto }),
      ({ entries, violations }) => `entries ${entries.length}, violations ${violations.length}`,
    );
    const read = await verdict(
      () => parseImaLog(log, "ascii"),
      (entries) => `${entries.length} read`,
    );
    const isRead = read.startsWith("accepted");
    return {
      sample: `ima/ima-log-${name}`,
      what: name === "unknown" ? "files hashed by nothing known" : `files hashed by ${name}`,
      expected: name === "unknown" ? "refused or reported" : "parses by hash",
      byDefault: isRead && said.startsWith("refused") ? `${read}; the replay ${said}` : said,
      ...NONE,
    };
  });
  return Promise.all(rows);
}

function imaQuote(log: Uint8Array): Parameters<typeof verifyImaLog>[0]["quote"] {
  let value: Uint8Array = new Uint8Array(32);
  for (const { templateHash, templateData } of parseImaLog(log, "ascii")) {
    const isViolation = templateHash.every((byte) => byte === 0);
    const digest = isViolation
      ? new Uint8Array(32).fill(0xff)
      : crypto.hash("sha256", templateData);
    value = crypto.hash("sha256", concatBytes([value, digest]));
  }
  return { kind: "verified-quote", pcrValues: [{ hash: "sha256", pcr: 10, value }] };
}

function tpmStructureRows(): CorpusRow[] {
  return Object.entries(TPM_VECTORS).map(([file, { what }]) => {
    const verdicts = tpmVectorVerdicts(file);
    const equal = verdicts.filter(({ got, expected }) => got === expected).length;
    return {
      sample: `tpm-structures/${file}`,
      what: `${tpmVectors(file).length} vectors of ${what}`,
      expected: "exact values",
      byDefault: `${equal} equal of the ${verdicts.length} that an EK can have`,
      ...NONE,
    };
  });
}

function webAuthnRows(): Promise<CorpusRow[]> {
  const said = ({ attestation }: VerifiedRegistration): string => attestation.trust;
  const rows = WEBAUTHN_ROWS.map(async (row): Promise<CorpusRow> => {
    const { title } = webAuthnSamples(row.file)[row.index] ?? { title: "" };
    const settings = Object.entries(row.policy).map(
      ([name, value]) => `\`${name}: ${[value].flat().join(", ")}\``,
    );
    return {
      sample: `webauthn/${row.file}.json [${row.index}]`,
      what: title.replace(/^should verify /, ""),
      expected: "accepted",
      byDefault: await verdict(() => verifyRegistration(registrationCheckOf(row, {})), said),
      settings: settings.join("; "),
      withSettings:
        settings.length === 0
          ? ""
          : await verdict(() => verifyRegistration(registrationCheckOf(row, row.policy)), said),
    };
  });
  return Promise.all(rows);
}

function wordsOf(
  table: Readonly<Record<string, readonly [string, string]>>,
  name: string,
): readonly [string, string] {
  const words = table[name];
  if (words === undefined) throw new Error(`${name} has no row`);
  return words;
}
