/** Measured-boot logs and IMA lists against the quote of a TPM that extended them as they were. */
import { parseEventLog, type EventLog, verifyEventLog } from "../../../../attest/eventlog/index.ts";
import { parseImaLog, type VerifiedImaLog, verifyImaLog } from "../../../../attest/ima/index.ts";
import { concatBytes } from "../../../../wire/index.ts";
import { mutateBytes, pick, type Random } from "../../../support/fuzz.ts";
import { sharedMissing } from "../../../support/shared.ts";
import { buildLog, crypto, quoteOf, variable } from "../../eventlog/support/log-builder.ts";
import { sharedLog } from "../corpora/event-logs.ts";
import type { FuzzTarget } from "./target.ts";

const GLOBAL_VARIABLE = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
const SHA256 = 0x000b;
const SHA1 = 0x0004;
const EV_NO_ACTION = 3;

const text = (value: string): Uint8Array => new TextEncoder().encode(value);

/** A short boot with Secure Boot on, in two banks. */
function ownLog(): Uint8Array {
  const separators = [0, 1, 2, 3, 4, 5, 6, 7].map((pcr) => ({
    pcr,
    type: 4,
    data: new Uint8Array(4),
  }));
  const secureBoot = variable(GLOBAL_VARIABLE, "SecureBoot", Uint8Array.of(1));
  const events = [
    { pcr: 0, type: 8, data: text("firmware 1.0") },
    { pcr: 7, type: 0x8000_0001, data: secureBoot },
    { pcr: 4, type: 0x8000_0007, data: text("Calling EFI Application from Boot Option") },
    ...separators,
    { pcr: 4, type: 0x8000_0003, data: new Uint8Array(40) },
    { pcr: 5, type: 0x8000_0007, data: text("Exit Boot Services Invocation") },
  ];
  return buildLog(events, ["sha1", "sha256"]);
}

/** What the TPM extended: PCR and digest of one bank, in order within each PCR. */
function extended({ events }: EventLog, alg: number): string {
  const lines = events
    .filter(({ eventType, pcrIndex }) => eventType !== EV_NO_ACTION && pcrIndex < 8)
    .toSorted((a, b) => a.pcrIndex - b.pcrIndex)
    .map(({ pcrIndex, digests }) => `${pcrIndex} ${hex(digests.get(alg) ?? new Uint8Array())}`);
  return lines.join("\n");
}
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

function eventLogTarget(
  name: string,
  share: number,
  logs: readonly Uint8Array[],
  bank: "sha1" | "sha256",
): FuzzTarget {
  const alg = bank === "sha1" ? SHA1 : SHA256;
  const seeds = logs.map((log) => ({
    log,
    quote: quoteOf(log, [bank]),
    digests: extended(parseEventLog(log), alg),
  }));
  return {
    name,
    share,
    sound: seeds.map(
      ({ log, quote }) =>
        () =>
          verifyEventLog({ log, quote, crypto }),
    ),
    next: (random) => {
      const { log: seed, quote, digests } = pick(random, seeds);
      const log = mutateBytes(seed, random, logs);
      return {
        input: hex(log),
        run: () => verifyEventLog({ log, quote, crypto }),
        fault: (result) =>
          extended((result as { log: EventLog }).log, alg) === digests
            ? undefined
            : "accepted with digests that the TPM did not extend",
      };
    },
  };
}

/** Entries of a binary list: PCR, template hash, template name, template data, little-endian. */
function imaBinary(paths: readonly string[]): Uint8Array {
  const u32 = (value: number): Uint8Array => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    return bytes;
  };
  const vec = (...parts: readonly Uint8Array[]): Uint8Array => {
    const bytes = concatBytes(parts);
    return concatBytes([u32(bytes.length), bytes]);
  };
  const entries = paths.map((path) => {
    const digest = crypto.hash("sha256", text(path));
    const data = concatBytes([vec(text("sha256:\0"), digest), vec(text(`${path}\0`))]);
    return concatBytes([u32(10), crypto.hash("sha1", data), vec(text("ima-ng")), vec(data)]);
  });
  return concatBytes(entries);
}

function imaAscii(paths: readonly string[]): Uint8Array {
  const lines = parseImaLog(imaBinary(paths), "binary").map(
    ({ templateHash, fileDigest, path }) =>
      `10 ${hex(templateHash)} ima-ng sha256:${hex(fileDigest)} ${path}\n`,
  );
  return text(lines.join(""));
}

/** Other entries than these, or in another order; never these. */
function otherPaths(paths: readonly string[], random: Random): readonly string[] {
  const at = random(paths.length);
  const to = (at + 1 + random(paths.length - 1)) % paths.length;
  const path = pick(() => at, paths);
  return pick(random, [
    () => paths.toSpliced(at, 1),
    () => paths.toSpliced(to, 0, path),
    () => paths.toSpliced(at, 1).toSpliced(to, 0, path),
    () => paths.with(at, `/other/${random(1_000)}`),
  ])();
}

const imaSaid = ({ entries }: VerifiedImaLog): string =>
  entries.map(({ templateData }) => hex(templateData)).join("\n");

function imaTarget(form: "ascii" | "binary", share: number): FuzzTarget {
  const paths = ["boot_aggregate", "/usr/bin/init", "/usr/lib/a library.so", "/etc/passwd"];
  const encode = form === "ascii" ? imaAscii : imaBinary;
  const seed = encode(paths);
  let value: Uint8Array = new Uint8Array(32);
  for (const { templateData } of parseImaLog(seed, form)) {
    value = crypto.hash("sha256", concatBytes([value, crypto.hash("sha256", templateData)]));
  }
  const quote = {
    kind: "verified-quote",
    pcrValues: [{ hash: "sha256", pcr: 10, value }],
  } as const;
  const said = imaSaid(verifyImaLog({ log: seed, form, quote, crypto }));
  const other = encode(["/other"]);
  return {
    name: `IMA list, ${form}`,
    share,
    sound: [() => verifyImaLog({ log: seed, form, quote, crypto })],
    next: (random) => {
      // Half of them are lists of sound entries, which only the replay can tell from the right one.
      const log =
        random(2) === 0
          ? encode(otherPaths(paths, random))
          : mutateBytes(seed, random, [other, seed]);
      return {
        input: hex(log),
        run: () => verifyImaLog({ log, form, quote, crypto }),
        fault: (result) =>
          imaSaid(result as VerifiedImaLog) === said
            ? undefined
            : "accepted with entries that the TPM did not extend",
      };
    },
  };
}

export function logTargets(): FuzzTarget[] {
  const captured = sharedMissing
    ? [ownLog()]
    : ["rhel8-uefi.bin", "debian-10.bin", "ubuntu-2104-no-dbx.bin"].map(sharedLog);
  return [
    eventLogTarget("event log of ours", 80, [ownLog()], "sha256"),
    eventLogTarget("event log of a machine", 30, captured, "sha1"),
    imaTarget("binary", 50),
    imaTarget("ascii", 30),
  ];
}
