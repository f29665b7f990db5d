/** Logs of real machines: each gets the verdict that its origin states. */
import { describe, expect, it } from "vitest";
import {
  parseEventLog,
  replayEventLog,
  type VerifiedEventLog,
  verifyEventLog,
} from "../../../attest/eventlog/index.ts";
import {
  checkAkPublic,
  encodeTpmlPcrSelection,
  parseTpmtPublic,
  verifyQuote,
} from "../../../attest/index.ts";
import { HASH_ROWS, hashRow } from "../../../attest/structures/constants.ts";
import { encodeHex } from "../../../wire/index.ts";
import { codeOf } from "../../support/reject.ts";
import { readShared, readSharedJson, sharedMissing } from "../../support/shared.ts";
import { buildLog, crypto, quoteOf } from "./support/log-builder.ts";

interface Expected {
  readonly pcrBanks: Readonly<Record<string, Readonly<Record<string, string>>>>;
  readonly bootServicesApplications: Readonly<Record<string, readonly string[]>>;
}

const log = (name: string): Uint8Array => readShared(`corpora/eventlogs/${name}`);
const expected = sharedMissing
  ? {}
  : (readSharedJson("corpora/eventlogs/expected.json") as Readonly<Record<string, Expected>>);

/** As if quoted by the machine itself. */
function verifiedByItself(bytes: Uint8Array): VerifiedEventLog {
  const { algorithms } = parseEventLog(bytes);
  const hashes = HASH_ROWS.filter(({ alg }) => algorithms.some((known) => known.alg === alg));
  const quote = quoteOf(
    bytes,
    hashes.map(({ name }) => name),
  );
  return verifyEventLog({ log: bytes, quote, crypto });
}
const codesOf = ({ findings }: VerifiedEventLog): string[] => [
  ...new Set(findings.map(({ code }) => code)),
];

describe.skipIf(sharedMissing)("logs with known PCRs", () => {
  it.each(Object.entries(expected))("E3: %s replays to every bank", (name, { pcrBanks }) => {
    const parsed = parseEventLog(log(name));
    for (const [bank, values] of Object.entries(pcrBanks)) {
      const row = HASH_ROWS.find((known) => known.name === bank)!;
      const replayed = replayEventLog(parsed, row, crypto);
      expect(Object.keys(values).length).toBeGreaterThan(7);
      for (const [pcr, value] of Object.entries(values)) {
        expect(encodeHex(replayed[Number(pcr)]!), `${bank} ${pcr}`).toBe(value);
      }
    }
  });

  it.each(Object.entries(expected))("E8: %s has the boot applications", (name, entry) => {
    const { boot } = verifiedByItself(log(name));
    for (const [bank, digests] of Object.entries(entry.bootServicesApplications)) {
      const row = HASH_ROWS.find((known) => known.name === bank)!;
      expect(boot.bootApplications.map((image) => encodeHex(image.digests.get(row.alg)!))).toEqual(
        digests,
      );
      expect(boot.bootApplications.every(({ covered }) => covered)).toBe(true);
    }
    if (Object.keys(entry.bootServicesApplications).length === 0) {
      expect(boot.bootApplications).toEqual([]);
    }
  });

  it.each(Object.entries(expected))("E3: %s with one PCR changed is refused", (name) => {
    const bytes = log(name);
    const good = quoteOf(bytes, ["sha1"]);
    for (let changed = 0; changed < 8; changed += 1) {
      const pcrValues = good.pcrValues.map((entry) =>
        entry.pcr === changed ? { ...entry, value: entry.value.map((byte) => byte ^ 1) } : entry,
      );
      const quote = { ...good, pcrValues };
      expect(codeOf(() => verifyEventLog({ log: bytes, quote, crypto }))).toBe(
        "ATTEST_EVENT_LOG_MISMATCH",
      );
    }
  });
});

describe.skipIf(sharedMissing)("what the logs say", () => {
  it.each([
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
  ])("E7: %s has Secure Boot %s, and is odd in %j", (name, state, codes) => {
    const verified = verifiedByItself(log(name));
    expect(verified.secureBoot.state).toBe(state);
    expect(codesOf(verified)).toEqual(codes);
  });

  it("E7: names the certificate authorities that let things run", () => {
    const { secureBoot } = verifiedByItself(log("sb_cert_eventlog"));
    expect(secureBoot.databases.map(({ name }) => name)).toEqual(["PK", "KEK", "db", "dbx"]);
    expect(secureBoot.authorities.map(({ variable, isInDb }) => [variable, isInDb])).toEqual([
      ["db", true],
      ["Shim", false],
      ["Shim", false],
    ]);
    const [first] = secureBoot.authorities;
    expect(Buffer.from(first!.data).toString("latin1")).toContain("Microsoft Corporation UEFI CA");
  });

  it("E8: reports option ROMs and drivers", () => {
    expect(verifiedByItself(log("option_rom_eventlog")).boot.drivers).toHaveLength(1);
    expect(verifiedByItself(log("keylime_binary_bios_measurements")).boot.drivers).toHaveLength(3);
  });

  it("E5: believes a boot loader's text only where it is what was measured", () => {
    const { loader } = verifiedByItself(log("ubuntu-2104-no-secure-boot.bin")).boot;
    const covered = loader.filter((entry) => entry.covered).map(({ text }) => text);
    expect(covered.some((text) => /^kernel_cmdline: \/boot\/vmlinuz-.* root=/.test(text))).toBe(
      true,
    );
    const files = loader.filter(({ pcrIndex }) => pcrIndex === 9);
    expect(files.length).toBeGreaterThan(0);
    expect(files.some((entry) => entry.covered)).toBe(false);
  });

  it("E9: ExitBootServices events that the log lacks are a refusal, unless named as a workaround", () => {
    const bytes = log("ebs_event_missing_eventlog");
    const action = (text: string): { pcr: number; type: number; data: Uint8Array } => ({
      pcr: 5,
      type: 0x8000_0007,
      data: Buffer.from(text),
    });
    // What the TPM held in the end: the log, and these two.
    const missing = parseEventLog(
      buildLog(
        [
          action("Exit Boot Services Invocation"),
          action("Exit Boot Services Returned with Success"),
        ],
        ["sha1"],
      ),
    ).events;
    const parsed = parseEventLog(bytes);
    const whole = { ...parsed, events: [...parsed.events, ...missing] };
    const sha1 = hashRow(4)!;
    const pcrValues = replayEventLog(whole, sha1, crypto).map((value, pcr) => ({
      hash: sha1.name,
      pcr,
      value,
    }));
    const check = { log: bytes, quote: { kind: "verified-quote", pcrValues }, crypto } as const;
    expect(codeOf(() => verifyEventLog(check))).toBe("ATTEST_EVENT_LOG_MISMATCH");
    const explained = verifyEventLog({ ...check, workarounds: ["exit-boot-services-missing"] });
    expect(explained.workarounds).toEqual(["exit-boot-services-missing"]);
    const strict = verifyEventLog({
      ...check,
      quote: quoteOf(bytes, ["sha1"]),
      workarounds: ["exit-boot-services-missing"],
    });
    expect(strict.workarounds).toEqual([]);
  });

  it("E1: refuses 34 bytes of nonsense", () => {
    expect(codeOf(() => parseEventLog(log("keylime_binary_bios_measurements-bogus")))).toMatch(
      /^(WIRE|ATTEST)_/,
    );
  });
});

interface Dump {
  readonly AK: { readonly Public: string };
  readonly Quote: { readonly Quote: string; readonly Signature: string };
  readonly Log: {
    readonly PCRs: readonly { readonly Index: number; readonly Digest: string }[];
    readonly Raw: string;
  };
}

describe.skipIf(sharedMissing)("whole dumps", () => {
  const base64 = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "base64"));

  it("verifies a Windows machine from the AK's signature to its Secure Boot", async () => {
    const dump = readSharedJson("corpora/eventlogs/windows_gcp_shielded_vm.json") as Dump;
    const ak = parseTpmtPublic(base64(dump.AK.Public));
    checkAkPublic(ak, { allowSha1: true });
    const pcrs = Array.from({ length: 24 }, (_, pcr) => pcr);
    const quote = await verifyQuote({
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
    const verified = verifyEventLog({ log: base64(dump.Log.Raw), quote, crypto });
    expect(verified.coveredPcrs).toEqual(expect.arrayContaining([0, 1, 2, 3, 4, 5, 6, 7, 11, 12]));
    expect(verified.secureBoot.state).toBe("on");
    expect(codesOf(verified)).toEqual(["separator-missing", "boot-application-unexpected"]);
  });

  it("reads the SHA-1 log of a TPM 1.2 machine, and claims nothing of its Secure Boot", () => {
    const dump = readSharedJson("corpora/eventlogs/linux_tpm12.json") as Dump;
    const verified = verifiedByItself(base64(dump.Log.Raw));
    expect(verified.log.format).toBe("sha1");
    expect(verified.secureBoot.state).toBe("unknown");
    expect(codesOf(verified)).toEqual(["data-not-covered"]);
  });
});
