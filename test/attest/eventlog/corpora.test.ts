/** Logs of real machines: each gets the verdict that its origin states. */
import { describe, expect, it } from "vitest";
import { parseEventLog, replayEventLog, verifyEventLog } from "../../../attest/eventlog/index.ts";
import { HASH_ROWS } from "../../../attest/structures/constants.ts";
import { encodeHex } from "../../../wire/index.ts";
import { codeOf } from "../../support/reject.ts";
import { sharedMissing } from "../../support/shared.ts";
import {
  dumpedLog,
  EVENT_LOG_ROWS,
  exitBootServicesQuote,
  EXPECTED_LOGS,
  findingCodesOf,
  sharedLog,
  statedQuote,
  verifyDumpedQuote,
  verifySharedLog,
} from "../support/corpora/event-logs.ts";
import { crypto, quoteOf } from "./support/log-builder.ts";

describe.skipIf(sharedMissing)("logs with known PCRs", () => {
  it.each(Object.entries(EXPECTED_LOGS))("E3: %s replays to every bank", (name, { pcrBanks }) => {
    const parsed = parseEventLog(sharedLog(name));
    for (const [bank, values] of Object.entries(pcrBanks)) {
      const row = HASH_ROWS.find((known) => known.name === bank)!;
      const replayed = replayEventLog(parsed, row, crypto);
      expect(Object.keys(values).length).toBeGreaterThan(7);
      for (const [pcr, value] of Object.entries(values)) {
        expect(encodeHex(replayed[Number(pcr)]!), `${bank} ${pcr}`).toBe(value);
      }
    }
  });

  it.each(Object.entries(EXPECTED_LOGS))("E8: %s has the boot applications", (name, entry) => {
    const { boot } = verifySharedLog(sharedLog(name));
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

  it.each(Object.keys(EXPECTED_LOGS))("E3: %s verifies against those PCRs", (name) => {
    const verified = verifySharedLog(sharedLog(name), statedQuote(name));
    expect(verified.coveredPcrs).toEqual(expect.arrayContaining([0, 1, 2, 3, 4, 5, 6, 7]));
  });

  it.each(Object.entries(EXPECTED_LOGS))("E3: %s with one PCR changed is refused", (name) => {
    const bytes = sharedLog(name);
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
  it.each(EVENT_LOG_ROWS)("E7: %s has Secure Boot %s, and is odd in %j", (name, state, codes) => {
    const verified = verifySharedLog(sharedLog(name));
    expect(verified.secureBoot.state).toBe(state);
    expect(findingCodesOf(verified)).toEqual(codes);
  });

  it("E7: names the certificate authorities that let things run", () => {
    const { secureBoot } = verifySharedLog(sharedLog("sb_cert_eventlog"));
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
    expect(verifySharedLog(sharedLog("option_rom_eventlog")).boot.drivers).toHaveLength(1);
    expect(
      verifySharedLog(sharedLog("keylime_binary_bios_measurements")).boot.drivers,
    ).toHaveLength(3);
  });

  it("E5: believes a boot loader's text only where it is what was measured", () => {
    const { loader } = verifySharedLog(sharedLog("ubuntu-2104-no-secure-boot.bin")).boot;
    const covered = loader.filter((entry) => entry.covered).map(({ text }) => text);
    expect(covered.some((text) => /^kernel_cmdline: \/boot\/vmlinuz-.* root=/.test(text))).toBe(
      true,
    );
    const files = loader.filter(({ pcrIndex }) => pcrIndex === 9);
    expect(files.length).toBeGreaterThan(0);
    expect(files.some((entry) => entry.covered)).toBe(false);
  });

  it("E9: ExitBootServices events that the log lacks are a refusal, unless named as a workaround", () => {
    const bytes = sharedLog("ebs_event_missing_eventlog");
    const quote = exitBootServicesQuote(bytes);
    const named = ["exit-boot-services-missing"] as const;
    expect(codeOf(() => verifySharedLog(bytes, quote))).toBe("ATTEST_EVENT_LOG_MISMATCH");
    expect(verifySharedLog(bytes, quote, named).workarounds).toEqual(named);
    expect(verifySharedLog(bytes, quoteOf(bytes, ["sha1"]), named).workarounds).toEqual([]);
  });

  it("E1: refuses 34 bytes of nonsense", () => {
    expect(
      codeOf(() => parseEventLog(sharedLog("keylime_binary_bios_measurements-bogus"))),
    ).toMatch(/^(WIRE|ATTEST)_/);
  });
});

describe.skipIf(sharedMissing)("whole dumps", () => {
  it("verifies a Windows machine from the AK's signature to its Secure Boot", async () => {
    const name = "windows_gcp_shielded_vm.json";
    const quote = await verifyDumpedQuote(name, { allowSha1: true });
    const verified = verifySharedLog(dumpedLog(name), quote);
    expect(verified.coveredPcrs).toEqual(expect.arrayContaining([0, 1, 2, 3, 4, 5, 6, 7, 11, 12]));
    expect(verified.secureBoot.state).toBe("on");
    expect(findingCodesOf(verified)).toEqual(["separator-missing", "boot-application-unexpected"]);
  });

  it("reads the SHA-1 log of a TPM 1.2 machine, and claims nothing of its Secure Boot", () => {
    const verified = verifySharedLog(dumpedLog("linux_tpm12.json"));
    expect(verified.log.format).toBe("sha1");
    expect(verified.secureBoot.state).toBe("unknown");
    expect(findingCodesOf(verified)).toEqual(["data-not-covered"]);
  });
});
