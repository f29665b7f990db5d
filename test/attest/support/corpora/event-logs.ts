/**
 * Measured-boot logs of real machines, from go-eventlog, go-attestation and keylime: what each says, and
 * the quote that it is verified against. Shared by the tests and by the page that lists the verdicts.
 */
import {
  type EventLogWorkaround,
  parseEventLog,
  replayEventLog,
  type VerifiedEventLog,
  verifyEventLog,
} from "../../../../attest/eventlog/index.ts";
import {
  type AlgorithmPolicy,
  checkAkPublic,
  encodeTpmlPcrSelection,
  parseTpmtPublic,
  type PcrValue,
  type VerifiedQuote,
  verifyQuote,
} from "../../../../attest/index.ts";
import { HASH_ROWS, type HashName, hashRow } from "../../../../attest/structures/constants.ts";
import { decodeHex } from "../../../../wire/index.ts";
import { readShared, readSharedJson, sharedMissing } from "../../../support/shared.ts";
import { buildLog, crypto, type QuotedPcrs, quoteOf } from "../../eventlog/support/log-builder.ts";

interface ExpectedLog {
  readonly pcrBanks: Readonly<Record<string, Readonly<Record<string, string>>>>;
  readonly bootServicesApplications: Readonly<Record<string, readonly string[]>>;
}

/** By go-eventlog: the PCRs that each machine had, and the images that it booted. */
export const EXPECTED_LOGS: Readonly<Record<string, ExpectedLog>> = sharedMissing
  ? {}
  : (readSharedJson("corpora/eventlogs/expected.json") as Readonly<Record<string, ExpectedLog>>);

/** File, Secure Boot state, codes of the findings. */
export const EVENT_LOG_ROWS: readonly (readonly [string, string, readonly string[]])[] = [
  [
    "arch-linux-workstation.bin",
    "off",
    ["secure-boot-variable-empty", "boot-application-unexpected"],
  ],
  ["cos-85-amd-sev.bin", "on", ["authority-padded"]],
  ["debian-10.bin", "on", ["authority-padded"]],
  ["rhel8-uefi.bin", "on", []],
  ["ubuntu-2104-no-dbx.bin", "off", []],
  ["ubuntu-2104-no-secure-boot.bin", "off", []],
  ["crypto_agile_eventlog", "off", ["secure-boot-variable-empty", "boot-application-unexpected"]],
  ["ebs_event_missing_eventlog", "off", []],
  ["keylime_binary_bios_measurements", "off", ["boot-application-unexpected"]],
  ["option_rom_eventlog", "on", []],
  [
    "sb_cert_eventlog",
    "on",
    ["separator-missing", "authority-padded", "boot-application-unexpected"],
  ],
  ["short_no_action_eventlog", "unknown", ["separator-missing"]],
];

export const sharedLog = (name: string): Uint8Array => readShared(`corpora/eventlogs/${name}`);

/** What go-eventlog says that the TPM held. */
export function statedQuote(name: string): QuotedPcrs | undefined {
  const banks = Object.entries(EXPECTED_LOGS[name]?.pcrBanks ?? {});
  if (banks.length === 0) return undefined;
  const pcrValues = banks.flatMap(([hash, values]) =>
    Object.entries(values).map(([pcr, value]): PcrValue => ({
      hash: hash as HashName,
      pcr: Number(pcr),
      value: decodeHex(value),
    })),
  );
  return { kind: "verified-quote", pcrValues };
}

/** As if quoted by the machine itself, right after the last event. */
export function ownQuote(bytes: Uint8Array): QuotedPcrs {
  const { algorithms } = parseEventLog(bytes);
  const hashes = HASH_ROWS.filter(({ alg }) => algorithms.some((known) => known.alg === alg));
  return quoteOf(
    bytes,
    hashes.map(({ name }) => name),
  );
}

/** What the TPM held in the end: the log, and the two events that it lacks. */
export function exitBootServicesQuote(bytes: Uint8Array): QuotedPcrs {
  const texts = ["Exit Boot Services Invocation", "Exit Boot Services Returned with Success"];
  const events = texts.map((text) => ({ pcr: 5, type: 0x8000_0007, data: Buffer.from(text) }));
  const missing = parseEventLog(buildLog(events, ["sha1"])).events;
  const parsed = parseEventLog(bytes);
  const whole = { ...parsed, events: [...parsed.events, ...missing] };
  const sha1 = hashRow(4);
  if (sha1 === undefined) throw new Error("SHA-1 has no row");
  const pcrValues = replayEventLog(whole, sha1, crypto).map((value, pcr) => ({
    hash: sha1.name,
    pcr,
    value,
  }));
  return { kind: "verified-quote", pcrValues };
}

export function verifySharedLog(
  log: Uint8Array,
  quote: QuotedPcrs = ownQuote(log),
  workarounds: readonly EventLogWorkaround[] = [],
): VerifiedEventLog {
  return verifyEventLog({ log, quote, crypto, workarounds });
}

export const findingCodesOf = ({ findings }: VerifiedEventLog): string[] => [
  ...new Set(findings.map(({ code }) => code)),
];

interface Dump {
  readonly AK: { readonly Public: string };
  readonly Quote: { readonly Quote: string; readonly Signature: string };
  readonly Log: {
    readonly PCRs: readonly { readonly Index: number; readonly Digest: string }[];
    readonly Raw: string;
  };
}

const base64 = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "base64"));
const readDump = (name: string): Dump => readSharedJson(`corpora/eventlogs/${name}`) as Dump;

export const dumpedLog = (name: string): Uint8Array => base64(readDump(name).Log.Raw);

/** The quote of a dump under its AK; the origin signed it over no nonce. */
export async function verifyDumpedQuote(
  name: string,
  policy: AlgorithmPolicy,
): Promise<VerifiedQuote> {
  const dump = readDump(name);
  const ak = parseTpmtPublic(base64(dump.AK.Public));
  checkAkPublic(ak, policy);
  const pcrs = Array.from({ length: 24 }, (_, pcr) => pcr);
  return verifyQuote({
    ak,
    quote: { attest: base64(dump.Quote.Quote), signature: base64(dump.Quote.Signature) },
    extraData: new Uint8Array(),
    pcrSelection: encodeTpmlPcrSelection([{ hash: "sha1", pcrs }]),
    pcrValues: pcrs.map((pcr) => ({
      hash: "sha1" as const,
      pcr,
      value: base64(dump.Log.PCRs.find(({ Index }) => Index === pcr)?.Digest ?? ""),
    })),
    crypto,
  });
}
