import { describe, expect, it, vi } from "vitest";
import { isStileError } from "../../wire/index.ts";

vi.mock("koffi", async (importOriginal) => {
  const koffi = (await importOriginal<{ default: { load: (...args: unknown[]) => unknown } }>())
    .default;
  const load = (name: string | null, ...rest: unknown[]): unknown =>
    koffi.load(name === "libtss2-mu.so.0" ? "libtss2-mu.so.77" : name, ...rest);
  return { default: Object.assign(Object.create(koffi), { load }) };
});

describe("a machine without tpm2-tss", () => {
  it("rejects with ATTEST_TSS_MISSING and one sentence that names the packages", async () => {
    const { openTpm } = await import("../../attest/tss2/index.ts");
    const error: unknown = await openTpm({ tcti: "device:/dev/none", maxPendingCalls: 1 }).catch(
      (cause: unknown) => cause,
    );
    expect(isStileError(error, "ATTEST_TSS_MISSING")).toBe(true);
    expect(String(error)).toMatch(/libtss2-mu\.so\.0 cannot be loaded: .*libtss2-esys-3\.0\.2-0/);
  });
});
