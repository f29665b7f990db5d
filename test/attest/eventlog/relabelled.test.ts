/** Event types are covered by no digest (E5): each event relabelled, in turn, to hide what was measured. */
import { describe, expect, it } from "vitest";
import { verifyEventLog } from "../../../attest/eventlog/index.ts";
import { type BuiltEvent, buildLog, crypto, quoteOf } from "./support/log-builder.ts";
import {
  CONFIG,
  APPLICATION,
  DRIVER,
  ACTION,
  AUTHORITY,
  zero,
  secureBoot,
  databases,
  application,
  boot,
  verified,
  codes,
  state,
  before,
  replaced,
} from "./support/sound-boot.ts";

describe("relabelled events", () => {
  it.each([1, 5, 0x0d, CONFIG, APPLICATION, ACTION, AUTHORITY, 0xa000_0001])(
    "E5, E7: is never on by a second set of variables, the first relabelled as type %i",
    (type) => {
      const inPcr7 = boot.slice(1, 7);
      expect(inPcr7.every(({ pcr }) => pcr === 7)).toBe(true);
      const truth = [secureBoot(0), ...inPcr7.slice(1), ...boot.slice(1)];
      const quote = quoteOf(buildLog(truth));
      const lie = truth.map((event, index) => (index < inPcr7.length ? { ...event, type } : event));
      const result = verifyEventLog({ log: buildLog(lie), quote, crypto });
      expect(result.secureBoot.state).toBe("unknown");
      expect(result.findings.some(({ eventIndex }) => eventIndex === inPcr7.length - 1)).toBe(true);
    },
  );

  it("E5, E7: is never on by an action whose text is not what was measured", () => {
    const debug = Buffer.from("UEFI Debug Mode");
    const hidden = { pcr: 7, type: ACTION, data: Buffer.from("nothing"), measured: debug };
    const events = before((event) => event === databases[0], hidden);
    expect([state(events), codes(events)]).toEqual(["unknown", ["data-not-covered"]]);
  });

  it.each([1, 0x0d, 0x12, DRIVER, ACTION])(
    "E5, E8: reports an application that is relabelled as type %i, even with data that fits",
    (type) => {
      for (const data of [application.data, application.measured!]) {
        const hidden = replaced(application, { ...application, data, type });
        expect(verified(hidden).boot.bootApplications).toEqual([]);
        expect(codes(hidden)).toEqual(["event-type-unexpected"]);
      }
    },
  );

  it("E5, E8: reports an option ROM that is relabelled", () => {
    const rom: BuiltEvent = { pcr: 2, type: DRIVER, data: zero, measured: Buffer.from("a ROM") };
    const withRom = (type: number): BuiltEvent[] => [{ ...rom, type }, ...boot];
    expect(codes(withRom(DRIVER))).toEqual([]);
    expect(verified(withRom(DRIVER)).boot.drivers).toMatchObject([{ covered: true }]);
    expect(codes(withRom(ACTION))).toEqual(["event-type-unexpected"]);
  });
});
