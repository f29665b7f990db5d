/** G5: a log that is accepted is, written again from what was parsed, the same bytes. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type EventLog, parseEventLog } from "../../../attest/eventlog/index.ts";
import type { HashName } from "../../../attest/structures/constants.ts";
import { sharedMissing } from "../../support/shared.ts";
import { dumpedLog, EVENT_LOG_ROWS, sharedLog } from "../support/corpora/event-logs.ts";
import { buildLog } from "./support/log-builder.ts";

const u16 = (value: number): Uint8Array => Uint8Array.of(value & 0xff, value >>> 8);
const u32 = (value: number): Uint8Array => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};

/** TCG_PCR_EVENT or TCG_PCR_EVENT2, by the format of the log. */
function encodeEvents({ events, format }: EventLog): Buffer {
  const parts = events.flatMap(({ digests, event, eventType, pcrIndex }) => {
    const entries = [...digests].flatMap(([alg, digest]) =>
      format === "sha1" ? [digest] : [u16(alg), digest],
    );
    const count = format === "sha1" ? [] : [u32(digests.size)];
    return [u32(pcrIndex), u32(eventType), ...count, ...entries, u32(event.length), event];
  });
  return Buffer.concat(parts);
}

/** The Spec ID event is read and not kept: taken from the input, as long as it says that it is. */
function written(log: Uint8Array): string {
  const parsed = parseEventLog(log);
  const view = new DataView(log.buffer, log.byteOffset, log.byteLength);
  const headerBytes = parsed.format === "sha1" ? 0 : 32 + view.getUint32(28, true);
  return Buffer.concat([log.subarray(0, headerBytes), encodeEvents(parsed)]).toString("hex");
}

describe.skipIf(sharedMissing)("logs of real machines", () => {
  it.each(EVENT_LOG_ROWS.map(([name]) => name))("G5: %s is written as it was read", (name) => {
    const log = sharedLog(name);
    expect(written(log)).toBe(Buffer.from(log).toString("hex"));
  });

  it.each(["windows_gcp_shielded_vm.json", "linux_tpm12.json"])(
    "G5: the log of %s is written as it was read",
    (name) => {
      const log = dumpedLog(name);
      expect(written(log)).toBe(Buffer.from(log).toString("hex"));
    },
  );
});

describe("generated logs", () => {
  const event = fc.record({
    pcr: fc.integer({ min: 0, max: 23 }),
    type: fc.integer({ min: 0, max: 0xffff_ffff }),
    data: fc.uint8Array({ maxLength: 80 }),
    measured: fc.uint8Array({ maxLength: 8 }),
  });
  const banks = fc.subarray<HashName>(["sha1", "sha256", "sha384", "sha512"], { minLength: 1 });

  it("G5: any events in any banks are parsed as they are, and written as they were", () => {
    fc.assert(
      fc.property(fc.array(event, { maxLength: 12 }), banks, (events, hashes) => {
        const log = buildLog(events, hashes);
        const parsed = parseEventLog(log);
        expect(parsed.algorithms).toHaveLength(hashes.length);
        expect(parsed.events.map(({ pcrIndex, eventType }) => [pcrIndex, eventType])).toEqual(
          events.map(({ pcr, type }) => [pcr, type]),
        );
        expect(parsed.events.map(({ event: data }) => Buffer.from(data))).toEqual(
          events.map(({ data }) => Buffer.from(data)),
        );
        expect(written(log)).toBe(Buffer.from(log).toString("hex"));
      }),
      { seed: 20_261_123, numRuns: 200 },
    );
  });
});
