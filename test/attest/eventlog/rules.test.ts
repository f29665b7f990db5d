/** Each rule of the checklist's part E, broken once, on logs that are built event by event. */
import { describe, expect, it } from "vitest";
import { parseEventLog, replayEventLog, verifyEventLog } from "../../../attest/eventlog/index.ts";
import { hashRow } from "../../../attest/structures/constants.ts";
import { codeOf } from "../../support/reject.ts";
import {
  agileEvent,
  buildLog,
  type BuiltEvent,
  crypto,
  quoteOf,
  sha1Event,
  signatureList,
  specIdEvent,
  variable,
} from "./support/log-builder.ts";
import {
  NO_ACTION,
  SEPARATOR,
  CONFIG,
  DRIVER,
  ACTION,
  AUTHORITY,
  GLOBAL,
  DATABASE,
  zero,
  config,
  secureBoot,
  certificate,
  databases,
  calling,
  application,
  boot,
  verified,
  codes,
  state,
  before,
  replaced,
} from "./support/sound-boot.ts";

describe("a sound boot", () => {
  it("has Secure Boot on, its authority in db, its application, and nothing odd", () => {
    const log = verified(boot);
    expect(log.findings).toEqual([]);
    expect(log.secureBoot.state).toBe("on");
    expect(log.secureBoot.authorities).toMatchObject([{ isInDb: true, isAfterSeparator: true }]);
    expect(log.boot.bootApplications).toHaveLength(1);
    expect(log.coveredPcrs).toHaveLength(24);
  });
});

describe("the header", () => {
  const log = (header: Uint8Array): Uint8Array =>
    new Uint8Array(sha1Event(0, NO_ACTION, Buffer.alloc(20), header));
  const sha256 = { alg: 0x0b, digestBytes: 32 };

  it.each([
    ["no algorithm", []],
    ["an algorithm twice", [sha256, sha256]],
    ["a size that is not the hash's", [{ alg: 0x0b, digestBytes: 20 }]],
    ["a digest of no bytes", [{ alg: 0x99, digestBytes: 0 }]],
    ["a digest above the cap", [{ alg: 0x99, digestBytes: 65 }]],
    ["nine algorithms", Array.from({ length: 9 }, (_, i) => ({ alg: 0x90 + i, digestBytes: 32 }))],
  ])("E1: refuses %s", (_name, algorithms) => {
    expect(codeOf(() => parseEventLog(log(specIdEvent(algorithms))))).toMatch(/^(WIRE|ATTEST)_/);
  });

  it("E1: refuses a header with a byte too many, and events without one of its banks", () => {
    const longer = Buffer.concat([specIdEvent([sha256]), Buffer.from([0])]);
    expect(codeOf(() => parseEventLog(log(longer)))).toBe("WIRE_TRAILING_BYTES");
    const two = log(specIdEvent([sha256, { alg: 4, digestBytes: 20 }]));
    const one = agileEvent({ pcr: 0, type: 8, data: zero }, ["sha256"]);
    expect(codeOf(() => parseEventLog(new Uint8Array(Buffer.concat([two, one]))))).toBe(
      "WIRE_LENGTH_OUT_OF_BOUNDS",
    );
  });

  it("E1: keeps a bank that it does not know, and refuses to replay it", () => {
    const header = log(specIdEvent([sha256, { alg: 0x12, digestBytes: 32 }]));
    const event = Buffer.concat([
      Buffer.from("0000000008000000" + "02000000", "hex"),
      Buffer.from("0b00", "hex"),
      Buffer.alloc(32, 1),
      Buffer.from("1200", "hex"),
      Buffer.alloc(32, 2),
      Buffer.from("00000000", "hex"),
    ]);
    const parsed = parseEventLog(new Uint8Array(Buffer.concat([header, event])));
    expect(parsed.events[0]?.digests.get(0x12)).toEqual(new Uint8Array(32).fill(2));
    expect(codeOf(() => replayEventLog(parsed, hashRow(4)!, crypto))).toBe(
      "ATTEST_EVENT_LOG_INVALID",
    );
  });
});

describe("caps", () => {
  it("E2: refuses a log, a count of events and an event above their caps", () => {
    expect(codeOf(() => parseEventLog(new Uint8Array(16_777_217)))).toBe(
      "WIRE_LENGTH_OUT_OF_BOUNDS",
    );
    // Empty events: 32 bytes each.
    expect(codeOf(() => parseEventLog(new Uint8Array(32 * 32_769)))).toBe(
      "WIRE_LENGTH_OUT_OF_BOUNDS",
    );
    const large = sha1Event(0, 8, Buffer.alloc(20), zero);
    large.writeUInt32LE(4_194_305, 28);
    expect(codeOf(() => parseEventLog(new Uint8Array(large)))).toBe("WIRE_LENGTH_OUT_OF_BOUNDS");
  });

  it("E2: refuses a size that passes the end, and a log cut anywhere", () => {
    const log = buildLog(boot);
    const header = 32 + specIdEvent([{ alg: 0x0b, digestBytes: 32 }]).length;
    const ends = new Set([header]);
    let end = header;
    for (const event of boot) ends.add((end += agileEvent(event, ["sha256"]).length));
    for (let length = 0; length < log.length; length += 1) {
      const code = codeOf(() => parseEventLog(log.subarray(0, length)));
      if (ends.has(length)) expect(code).toBe("nothing was thrown");
      else expect(code, String(length)).toMatch(/^WIRE_/);
    }
  });

  it("E2: refuses a PCR that does not exist", () => {
    const log = buildLog([{ pcr: 24, type: 8, data: zero }]);
    expect(codeOf(() => parseEventLog(log))).toBe("WIRE_VALUE_NOT_ALLOWED");
  });
});

describe("replay", () => {
  it("E3: refuses a log that lacks an event, has one more, or has two in another order", () => {
    const quote = quoteOf(buildLog(boot));
    const refusal = (events: readonly BuiltEvent[]): string =>
      codeOf(() => verifyEventLog({ log: buildLog(events), quote, crypto }));
    expect(refusal(boot)).toBe("nothing was thrown");
    expect(refusal(boot.slice(0, -1))).toBe("ATTEST_EVENT_LOG_MISMATCH");
    expect(refusal([...boot, application])).toBe("ATTEST_EVENT_LOG_MISMATCH");
    expect(refusal(replaced(boot[1]!, secureBoot(0)))).toBe("ATTEST_EVENT_LOG_MISMATCH");
    expect(refusal([boot[0]!, boot[2]!, boot[1]!, ...boot.slice(3)])).toBe(
      "ATTEST_EVENT_LOG_MISMATCH",
    );
  });

  it("E3: refuses a bank that was quoted and that the log does not have, or that differs", () => {
    const log = buildLog(boot);
    const both = quoteOf(buildLog(boot, ["sha1", "sha256"]), ["sha1", "sha256"]);
    expect(codeOf(() => verifyEventLog({ log, quote: both, crypto }))).toBe(
      "ATTEST_EVENT_LOG_INVALID",
    );
    const twoBanks = buildLog(boot, ["sha1", "sha256"]);
    const pcrValues = both.pcrValues.map((entry) =>
      entry.hash === "sha1" && entry.pcr === 7 ? { ...entry, value: new Uint8Array(20) } : entry,
    );
    expect(
      codeOf(() => verifyEventLog({ log: twoBanks, quote: { ...both, pcrValues }, crypto })),
    ).toBe("ATTEST_EVENT_LOG_MISMATCH");
    const none = { kind: "verified-quote", pcrValues: [] } as const;
    expect(codeOf(() => verifyEventLog({ log, quote: none, crypto }))).toBe(
      "ATTEST_EVENT_LOG_MISMATCH",
    );
  });

  it("E3: says which PCRs are not covered where they need not be", () => {
    const log = buildLog(boot);
    const quote = quoteOf(buildLog([...boot, { pcr: 10, type: 8, data: zero }]));
    const result = verifyEventLog({ log, quote, crypto });
    expect(result.uncoveredPcrs).toEqual([10]);
    expect(result.coveredPcrs).not.toContain(10);
    expect(codeOf(() => verifyEventLog({ log, quote, crypto, requiredPcrs: [10] }))).toBe(
      "ATTEST_EVENT_LOG_MISMATCH",
    );
  });

  const locality = (value: number): BuiltEvent => ({
    pcr: 0,
    type: NO_ACTION,
    data: Buffer.concat([Buffer.from("StartupLocality\0"), Buffer.from([value])]),
  });
  const pcr0 = (events: readonly BuiltEvent[]): Uint8Array =>
    replayEventLog(parseEventLog(buildLog(events)), hashRow(0x0b)!, crypto)[0]!;

  it("E4: extends no EV_NO_ACTION, and begins PCR 0 at the startup locality", () => {
    const start = (last: number): Uint8Array => Uint8Array.from([...new Uint8Array(31), last]);
    expect(pcr0([])).toEqual(start(0));
    expect(pcr0([{ pcr: 0, type: NO_ACTION, data: Buffer.from("anything") }])).toEqual(start(0));
    expect(pcr0([locality(3)])).toEqual(start(3));
    expect(pcr0([locality(4)])).toEqual(start(4));
    const hcrtm: BuiltEvent = { pcr: 0, type: 0x8000_0010, data: Buffer.from("HCRTM") };
    expect(pcr0([hcrtm])).toEqual(
      crypto.hash("sha256", Buffer.concat([start(4), crypto.hash("sha256", hcrtm.data)])),
    );
  });

  it("E4: refuses a startup locality that is unknown, repeated or late", () => {
    for (const events of [[locality(1)], [locality(3), locality(3)], [boot[0]!, locality(3)]]) {
      expect(codeOf(() => pcr0(events))).toBe("ATTEST_EVENT_LOG_INVALID");
    }
  });

  it("E4: begins the PCRs of a dynamic root of trust at ones, or at zero where it was started", () => {
    const values = (events: readonly BuiltEvent[]): readonly Uint8Array[] =>
      replayEventLog(parseEventLog(buildLog(events)), hashRow(0x0b)!, crypto);
    expect(values([])[17]).toEqual(new Uint8Array(32).fill(0xff));
    expect(values([{ pcr: 17, type: 8, data: zero }])[17]).toEqual(
      crypto.hash("sha256", Buffer.concat([new Uint8Array(32), crypto.hash("sha256", zero)])),
    );
    expect(values([])[16]).toEqual(new Uint8Array(32));
  });
});

describe("separators", () => {
  it("E6: reports one that is missing, repeated, an error or no separator at all", () => {
    const first = boot.find((event) => event.pcr === 2)!;
    const without = boot.filter((event) => event !== first);
    expect(codes(without)).toEqual(["separator-missing"]);
    expect(codes([...boot, first])).toEqual(["separator-repeated"]);
    expect(codes(replaced(first, { ...first, data: Uint8Array.of(1, 0, 0, 0) }))).toEqual([
      "separator-error",
    ]);
    for (const data of [Uint8Array.of(2, 0, 0, 0), new Uint8Array(3), Buffer.from("WBCL")]) {
      expect(codes(replaced(first, { ...first, data }))).toEqual(["separator-invalid"]);
    }
    expect(codes(replaced(first, { ...first, data: new Uint8Array(4).fill(0xff) }))).toEqual([]);
  });

  it("E6: reports a separator that is not what was measured", () => {
    const first = boot.find((event) => event.pcr === 2)!;
    const forged = { ...first, measured: Buffer.from("something else") };
    expect(codes(replaced(first, forged))).toEqual(["separator-invalid"]);
  });

  it("E6: reports firmware and option ROMs that are measured after theirs", () => {
    expect(codes([...boot, { pcr: 2, type: DRIVER, data: zero }])).toEqual([
      "event-after-separator",
    ]);
    expect(codes([...boot, { pcr: 1, type: 8, data: zero }])).toEqual([]);
  });
});

describe("Secure Boot", () => {
  const isSeparator7 = (event: BuiltEvent): boolean => event.pcr === 7 && event.type === SEPARATOR;
  const isPk = (event: BuiltEvent): boolean => event === databases[0];
  const on = boot[1]!;

  it("E7: is off where its variable is 0 or empty, and odd where it is neither", () => {
    expect(state(replaced(on, secureBoot(0)))).toBe("off");
    const empty = replaced(on, config(GLOBAL, "SecureBoot", new Uint8Array()));
    expect(state(empty)).toBe("off");
    expect(codes(empty)).toEqual(["secure-boot-variable-empty"]);
    for (const data of [Uint8Array.of(2), Uint8Array.of(1, 0), Uint8Array.of(1, 1)]) {
      const odd = replaced(on, config(GLOBAL, "SecureBoot", data));
      expect(state(odd)).toBe("unknown");
      expect(codes(odd)).toEqual(["variable-malformed"]);
    }
  });

  it("E7: is never on where a variable is repeated, late, missing or another vendor's", () => {
    const repeated = before(isSeparator7, on);
    expect([state(repeated), codes(repeated)]).toEqual(["unknown", ["variable-repeated"]]);
    const again = before(isSeparator7, databases[2]!);
    expect([state(again), codes(again)]).toEqual(["unknown", ["variable-repeated"]]);
    const late = [...boot, databases[0]!];
    expect([state(late), codes(late)]).toEqual(["unknown", ["variable-late"]]);
    for (const missing of [on, ...databases]) {
      expect(state(boot.filter((event) => event !== missing))).toBe("unknown");
    }
    expect(state(replaced(on, config(DATABASE, "SecureBoot", Uint8Array.of(1))))).toBe("unknown");
    expect(state(boot.filter((event) => !isSeparator7(event)))).toBe("unknown");
  });

  it("E5: is never on by data that is not what was measured", () => {
    const forged = replaced(on, { ...on, measured: secureBoot(0).data });
    expect([state(forged), codes(forged)]).toEqual(["unknown", ["data-not-covered"]]);
    // Relabelled: an event of another type in PCR 7 may hold anything.
    const relabelled = boot.map((event) => (event === on ? { ...event, type: 0x0d } : event));
    expect(state(relabelled)).toBe("unknown");
  });

  it("E7: reports debug mode and missing DMA protection, and is not on then", () => {
    for (const [text, code] of [
      ["UEFI Debug Mode", "uefi-debug-mode"],
      ["DMA Protection Disabled", "dma-protection-disabled"],
    ] as const) {
      const events = before(isPk, { pcr: 7, type: ACTION, data: Buffer.from(text) });
      expect([state(events), codes(events)]).toEqual(["unknown", [code]]);
    }
  });

  it("E7: keeps to what was said before the separator, whatever is extended after it", () => {
    const late: BuiltEvent = { pcr: 7, type: AUTHORITY, data: zero, measured: Buffer.from("x") };
    expect([state([...boot, late]), codes([...boot, late])]).toEqual(["on", ["data-not-covered"]]);
  });

  it("E7, G3: reports variables and signature lists that do not add up", () => {
    const broken: Uint8Array[] = [
      zero,
      Buffer.concat([variable(GLOBAL, "PK", new Uint8Array()), Buffer.from([0])]),
      variable(GLOBAL, "PK", Buffer.alloc(27)),
      variable(GLOBAL, "PK", Buffer.alloc(28)),
      variable(GLOBAL, "PK", signatureList(certificate).subarray(0, -1)),
    ];
    const hugeName = Buffer.from(variable(GLOBAL, "PK", new Uint8Array()));
    hugeName.writeBigUInt64LE(0xffff_ffff_ffff_ffffn, 16);
    for (const data of [...broken, hugeName]) {
      const events = replaced(databases[0]!, { pcr: 7, type: CONFIG, data });
      expect([state(events), codes(events)]).toEqual(["unknown", ["variable-malformed"]]);
    }
  });
});

describe("what was booted", () => {
  it("E8: leaves out an application that ran before the call, and reports it", () => {
    const early = before((event) => event === calling, application);
    expect(codes(early)).toEqual(["boot-application-unexpected"]);
    expect(verified(early).boot.bootApplications).toHaveLength(1);
    const uncalled = boot.filter((event) => event !== calling);
    expect(verified(uncalled).boot.bootApplications).toEqual([]);
  });

  it("E8: believes no call that is not what was measured, or is in another PCR", () => {
    for (const forged of [
      { ...calling, measured: zero },
      { ...calling, pcr: 8 },
    ]) {
      expect(verified(replaced(calling, forged)).boot.bootApplications).toEqual([]);
    }
  });

  it("E10: keeps and reports types that it does not know", () => {
    const log = verified([...boot, { pcr: 14, type: 0xa000_0001, data: zero }]);
    expect(log.findings).toEqual([{ code: "event-type-unknown", eventIndex: boot.length }]);
    expect(log.log.events.at(-1)?.eventType).toBe(0xa000_0001);
  });
});
