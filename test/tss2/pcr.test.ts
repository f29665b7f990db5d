/** Reading PCRs in parts, against a TPM whose PCRs move: real ones cannot be made to on purpose. */
import { describe, expect, it } from "vitest";
import type { EsysArgument, EsysConnection } from "../../attest/tss2/esys.ts";
import { createTpmPcrs } from "../../attest/tss2/pcr.ts";
import { Reader, Writer } from "../../wire/index.ts";
import { codeOfAsync } from "../support/reject.ts";

const PCRS = Array.from({ length: 20 }, (_, i) => i);

/** Answers at most eight values a call; the value of a PCR is its number and the update counter. */
function fakeConnection(counterAt: (call: number) => number, perCall = 8): EsysConnection {
  let calls = 0;
  const call = (_name: string, ...values: EsysArgument[]): Promise<void> => {
    const counter = counterAt((calls += 1));
    const [, , , selection, update, , list] = values;
    if (
      !isObject(selection) ||
      !("type" in selection) ||
      !isObject(update) ||
      !("value" in update) ||
      !isObject(list) ||
      !("output" in list) ||
      list.output === "number"
    )
      throw new TypeError("unexpected arguments");
    const pcrs = selected(selection.wire).slice(0, perCall);
    update.value = counter;
    const writer = new Writer().u32(pcrs.length);
    for (const pcr of pcrs) writer.vec16(Uint8Array.of(pcr, counter));
    list.wire = writer.finish();
    return Promise.resolve();
  };
  return {
    turn: (work) => work({ generation: 1, call }),
    close: () => Promise.resolve(),
  };
}

function isObject(value: EsysArgument | undefined): value is Exclude<EsysArgument, number | null> {
  return typeof value === "object" && value !== null;
}

function selected(wire: Uint8Array): number[] {
  const reader = new Reader(wire, "TPML_PCR_SELECTION");
  reader.bytes("count and hash", 6);
  const select = reader.vec8("pcrSelect", 3, 3);
  return Array.from({ length: 24 }, (_, pcr) => pcr).filter(
    (pcr) => ((select[pcr >> 3] ?? 0) & (1 << (pcr & 7))) !== 0,
  );
}

describe("reading PCRs", () => {
  it("joins the parts in order", async () => {
    const values = await createTpmPcrs(fakeConnection(() => 9)).pcrRead("sha256", PCRS);
    expect(values).toStrictEqual(PCRS.map((pcr) => Uint8Array.of(pcr, 9)));
  });

  it("starts again where a PCR changed between two parts", async () => {
    const values = await createTpmPcrs(fakeConnection((call) => (call < 3 ? 1 : 2))).pcrRead(
      "sha256",
      PCRS,
    );
    expect(values).toStrictEqual(PCRS.map((pcr) => Uint8Array.of(pcr, 2)));
  });

  it("rejects PCRs that never settle", async () => {
    const pcrs = createTpmPcrs(fakeConnection((call) => call));
    expect(await codeOfAsync(() => pcrs.pcrRead("sha256", PCRS))).toBe("ATTEST_TSS_FAILED");
  });

  it("rejects a bank that the TPM does not have", async () => {
    const pcrs = createTpmPcrs(fakeConnection(() => 1, 0));
    expect(await codeOfAsync(() => pcrs.pcrRead("sha512", [0]))).toBe("ATTEST_TSS_FAILED");
  });
});
