/** Clock, counters and firmware of successive evidence (checklist D7, D8): computed, and from a software TPM. */
import { cpSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { encodeTpmlPcrSelection, parseTpm2bPublic, verifyQuote } from "../../attest/index.ts";
import { createNodeAttestCrypto } from "../../attest/node/index.ts";
import {
  checkClockInfo,
  type ClockFinding,
  type ClockRecord,
  compareClockInfo,
} from "../../attest/quote/clock.ts";
import { checkQuoteFirmware } from "../../attest/quote/firmware.ts";
import type { VerifiedQuote } from "../../attest/quote/verify-quote.ts";
import { codeOf } from "../support/reject.ts";
import { useSwtpm } from "../support/swtpm.ts";
import { tool } from "../support/tpm2-tools.ts";

interface Values {
  readonly clock: bigint;
  readonly resetCount: number;
  readonly restartCount: number;
  readonly safe: boolean;
  readonly firmwareVersion: bigint;
  readonly signer: number;
}
const BASE: Values = {
  clock: 10_000_000n,
  resetCount: 5,
  restartCount: 3,
  safe: true,
  firmwareVersion: 0x0007_0002_0002_0000n,
  signer: 1,
};
const record = (changes: Partial<Values> = {}): ClockRecord => {
  const { firmwareVersion, signer, ...clockInfo } = { ...BASE, ...changes };
  return { clockInfo, firmwareVersion, qualifiedSigner: new Uint8Array(34).fill(signer) };
};
const findings = (
  changes: Partial<Values>,
  counters?: "plain" | "blurred",
): readonly ClockFinding[] => compareClockInfo(record(), record(changes), counters).findings;

describe("compareClockInfo", () => {
  it("finds nothing where the clock went on, or stood still", () => {
    for (const clock of [BASE.clock, BASE.clock + 1n]) {
      const comparison = compareClockInfo(record(), record({ clock }));
      expect(comparison).toStrictEqual({ findings: [], resets: 0, restarts: 0 });
    }
  });

  const cases: readonly [string, Partial<Values>, readonly ClockFinding[]][] = [
    ["a clock one millisecond back", { clock: BASE.clock - 1n }, ["clock-went-back"]],
    [
      "a clock back and not safe, without a reset",
      { clock: 1n, safe: false },
      ["clock-went-back", "clock-not-safe"],
    ],
    [
      "a clock a little back and not safe, without a reset",
      { clock: BASE.clock - 1n, safe: false },
      ["clock-went-back", "clock-not-safe"],
    ],
    ["one reset", { resetCount: 6, restartCount: 0 }, ["reset"]],
    [
      "a reset with a safe clock that went back",
      { resetCount: 6, clock: 1n },
      ["reset", "clock-went-back"],
    ],
    [
      "a reset after a loss of power, within what NV may lack",
      { resetCount: 6, clock: BASE.clock - 4_194_304n, safe: false },
      ["reset", "clock-not-safe"],
    ],
    [
      "a reset after a loss of power, beyond that",
      { resetCount: 6, clock: BASE.clock - 4_194_305n, safe: false },
      ["reset", "clock-went-back", "clock-not-safe"],
    ],
    ["fewer resets", { resetCount: 4 }, ["reset-count-went-back"]],
    [
      "a cleared TPM",
      { resetCount: 0, restartCount: 0, clock: 9n },
      ["reset-count-went-back", "clock-went-back"],
    ],
    ["a restart", { restartCount: 5 }, ["restart"]],
    ["fewer restarts", { restartCount: 2 }, ["restart-count-went-back"]],
    ["newer firmware", { firmwareVersion: BASE.firmwareVersion + 1n }, ["firmware-changed"]],
    ["older firmware", { firmwareVersion: BASE.firmwareVersion - 1n }, ["firmware-went-back"]],
    ["a clock that is not safe", { safe: false }, ["clock-not-safe"]],
  ];
  it.each(cases)("D7, D8: reports %s", (_name, changes, expected) => {
    expect(findings(changes)).toStrictEqual(expected);
    expect(findings(changes, "plain")).toStrictEqual(expected);
  });

  it("counts resets and restarts", () => {
    expect(compareClockInfo(record(), record({ resetCount: 8, restartCount: 0 }))).toMatchObject({
      resets: 3,
      restarts: undefined,
    });
    expect(compareClockInfo(record(), record({ restartCount: 5 }))).toMatchObject({
      resets: 0,
      restarts: 2,
    });
    expect(compareClockInfo(record(), record({ resetCount: 1 })).resets).toBeUndefined();
  });

  it("sees through the blur of an AK, which is added modulo the width", () => {
    const blur = (values: Partial<Values>): ClockRecord => {
      const { clockInfo, firmwareVersion, qualifiedSigner } = record(values);
      return {
        clockInfo: {
          ...clockInfo,
          resetCount: (clockInfo.resetCount + 0xffff_fffa) >>> 0,
          restartCount: (clockInfo.restartCount + 0xffff_fffc) >>> 0,
        },
        firmwareVersion: BigInt.asUintN(64, firmwareVersion - BASE.firmwareVersion - 1n),
        qualifiedSigner,
      };
    };
    for (const [name, changes, expected] of cases) {
      expect(compareClockInfo(blur({}), blur(changes)).findings, name).toStrictEqual(expected);
    }
  });

  it("does not compare counters under another AK unless they are plain", () => {
    const other = { signer: 2, resetCount: 1, restartCount: 0, firmwareVersion: 0n };
    expect(findings(other)).toStrictEqual(["counters-not-comparable"]);
    expect(findings(other, "plain")).toStrictEqual(["firmware-went-back", "reset-count-went-back"]);
    expect(findings({ ...other, clock: 0n })).toStrictEqual([
      "counters-not-comparable",
      "clock-went-back",
    ]);
  });
});

describe("checkClockInfo", () => {
  const judge = (changes: Partial<Values>, refused?: readonly ClockFinding[]): string =>
    codeOf(() => checkClockInfo(record(), record(changes), "plain", refused));

  it("D7: refuses by default what went back, and nothing else", () => {
    for (const changes of [{ clock: 0n }, { resetCount: 0 }, { restartCount: 0 }])
      expect(judge(changes)).toBe("ATTEST_CLOCK_WENT_BACK");
    for (const changes of [{ resetCount: 6 }, { restartCount: 4 }, { safe: false }])
      expect(judge(changes)).toBe("nothing was thrown");
  });

  it("D8: refuses older firmware, and takes newer", () => {
    expect(judge({ firmwareVersion: 0n })).toBe("ATTEST_FIRMWARE_REFUSED");
    expect(judge({ firmwareVersion: BASE.firmwareVersion + 1n })).toBe("nothing was thrown");
  });

  it("D7: refuses what the policy names", () => {
    expect(judge({ resetCount: 6 }, ["reset"])).toBe("ATTEST_POLICY_REFUSED");
    expect(judge({ safe: false }, ["clock-not-safe"])).toBe("ATTEST_POLICY_REFUSED");
    expect(judge({ restartCount: 9 }, ["restart"])).toBe("ATTEST_POLICY_REFUSED");
    expect(judge({ clock: 0n, resetCount: 0 }, [])).toBe("nothing was thrown");
    const changed = { firmwareVersion: BASE.firmwareVersion + 1n };
    expect(judge(changed, ["firmware-changed"])).toBe("ATTEST_POLICY_REFUSED");
    const other = (): unknown =>
      checkClockInfo(record(), record({ signer: 2 }), "blurred", ["counters-not-comparable"]);
    expect(codeOf(other)).toBe("ATTEST_POLICY_REFUSED");
  });

  it("takes the first evidence of a device, and refuses an unsafe clock on demand", () => {
    expect(checkClockInfo(undefined, record(), "plain").findings).toStrictEqual([]);
    const unsafe = record({ safe: false });
    expect(checkClockInfo(undefined, unsafe, "plain").findings).toStrictEqual(["clock-not-safe"]);
    const strict = (): unknown => checkClockInfo(undefined, unsafe, "plain", ["clock-not-safe"]);
    expect(codeOf(strict)).toBe("ATTEST_POLICY_REFUSED");
  });
});

const crypto = createNodeAttestCrypto();
const running = useSwtpm([]);
const folder = mkdtempSync(join(tmpdir(), "stile-clock-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const at = (name: string): string => join(folder, name);
const run = (name: string, ...words: string[]): Promise<Buffer> =>
  tool(running.swtpm.tcti, name, ...words);
const bytes = (name: string): Uint8Array => new Uint8Array(readFileSync(at(name)));

/** A quote by a primary AK of the hierarchy, which comes back after every reset. */
async function quoteBy(hierarchy: "e" | "o"): Promise<VerifiedQuote> {
  const attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign|restricted";
  const key = ["-C", hierarchy, "-G", "ecc256:ecdsa-sha256:null", "-a", attributes];
  await run("tpm2_createprimary", "-Q", ...key, "-c", at("ak.ctx"));
  await run("tpm2_readpublic", "-Q", "-c", at("ak.ctx"), "-o", at("ak.pub"));
  const files = ["-m", at("quote"), "-s", at("signature"), "-o", at("pcrs"), "-F", "values"];
  await run("tpm2_quote", "-Q", "-c", at("ak.ctx"), "-l", "sha256:16", "-g", "sha256", ...files);
  await run("tpm2_flushcontext", "-t");
  return verifyQuote({
    ak: parseTpm2bPublic(bytes("ak.pub")),
    quote: { attest: bytes("quote"), signature: bytes("signature") },
    extraData: new Uint8Array(),
    pcrSelection: encodeTpmlPcrSelection([{ hash: "sha256", pcrs: [16] }]),
    pcrValues: [{ hash: "sha256", pcr: 16, value: bytes("pcrs") }],
    crypto,
  });
}

describe("a TPM's clock and counters", () => {
  it("D7: refuses a restored image and a cleared TPM; resets and restarts are counted", async () => {
    const both = async (): Promise<[VerifiedQuote, VerifiedQuote]> => [
      await quoteBy("e"),
      await quoteBy("o"),
    ];
    const [first, firstBlurred] = await both();
    const compare = (now: readonly [VerifiedQuote, VerifiedQuote]): unknown[] => [
      compareClockInfo(first, now[0], "plain"),
      compareClockInfo(firstBlurred, now[1]),
    ];
    // The blur is real: the two AKs show different counters of one TPM.
    expect(firstBlurred.clockInfo.resetCount).not.toBe(first.clockInfo.resetCount);
    expect(compare(await both())).toMatchObject([
      { findings: [], resets: 0, restarts: 0 },
      { findings: [], resets: 0, restarts: 0 },
    ]);
    // Shutdown(STATE), then Startup(CLEAR): a TPM Restart.
    await run("tpm2_shutdown");
    await running.swtpm.reset();
    const restarted = { findings: ["restart"], resets: 0, restarts: 1 };
    expect(compare(await both())).toMatchObject([restarted, restarted]);
    cpSync(running.swtpm.stateDir, at("image"), { recursive: true });
    for (let count = 0; count < 4; count += 1) {
      await run("tpm2_shutdown", "-c");
      await running.swtpm.reset();
    }
    const later = await both();
    expect(compare(later)).toMatchObject([
      { findings: ["reset"], resets: 4 },
      { findings: ["reset"], resets: 4 },
    ]);
    await running.swtpm.kill();
    cpSync(at("image"), running.swtpm.stateDir, { recursive: true });
    await running.swtpm.restart();
    const restored = await both();
    await run("tpm2_clear", "-c", "p");
    const cleared = await quoteBy("e");
    const judge = (now: VerifiedQuote, before: VerifiedQuote): string =>
      codeOf(() => checkClockInfo(before, now, "plain"));
    expect(judge(restored[0], later[0])).toBe("ATTEST_CLOCK_WENT_BACK");
    expect(judge(cleared, later[0])).toBe("ATTEST_CLOCK_WENT_BACK");
    // The same AK, so the blur is the same: the rollback shows.
    const rolledBack = (): unknown => checkClockInfo(later[1], restored[1], "blurred");
    expect(codeOf(rolledBack)).toBe("ATTEST_CLOCK_WENT_BACK");
  });

  it("D8: refuses firmware by the version of a quote, only where its AK shows it plainly", async () => {
    const plain = await quoteBy("e");
    const ak = parseTpm2bPublic(bytes("ak.pub"));
    const capability = (await run("tpm2_getcap", "properties-fixed")).toString();
    const word = (name: string): string =>
      /raw: 0x([0-9A-Fa-f]+)/.exec(capability.slice(capability.indexOf(name)))?.[1] ?? "";
    const [high, low] = ["TPM2_PT_FIRMWARE_VERSION_1:", "TPM2_PT_FIRMWARE_VERSION_2:"].map(word);
    expect(plain.firmwareVersion).toBe(BigInt(`0x${high}${(low ?? "").padStart(8, "0")}`));
    const parts = [48n, 32n, 16n, 0n].map((shift) => (plain.firmwareVersion >> shift) & 0xffffn);
    const manufacturer = "id:49424D00";
    const row = {
      cve: "CVE-0000-0000",
      manufacturer,
      versions: { from: parts.join("."), to: parts.join(".") },
      keyTypes: ["ecc"],
      impact: "key-extraction",
      source: "this test",
    } as const;
    const check = { quote: plain, ak, manufacturer, keyTypes: ["ecc"], crypto } as const;
    const judge = (): string =>
      codeOf(() => checkQuoteFirmware(check, { refuse: "affected", rows: [row] }));
    expect(judge()).toBe("ATTEST_FIRMWARE_REFUSED");
    const blurred = await quoteBy("o");
    const other = { ...check, quote: blurred, ak: parseTpm2bPublic(bytes("ak.pub")) };
    const found = checkQuoteFirmware(other, { refuse: "affected", rows: [row] });
    expect(found).toMatchObject([{ certainty: "possible" }]);
  });
});
