/** Where no native library can be loaded. */
import { describe, expect, it, vi } from "vitest";
import { createVoprfEngine } from "../../tokens/voprf/index.ts";
import { codeOf } from "../support/reject.ts";

vi.mock("koffi", () => ({
  default: {
    load: () => {
      throw new Error("no such library");
    },
  },
}));

describe.each([1, 5] as const)("without a native library, type %i", (type) => {
  it("rejects when one is required", () => {
    expect(codeOf(() => createVoprfEngine(type, "native"))).toBe("TOKEN_ENGINE_MISSING");
  });

  it("computes with noble, by name, when that is allowed", () => {
    expect(createVoprfEngine(type, "any").engine).toBe("noble");
    expect(createVoprfEngine(type, "portable").engine).toBe("noble");
  });
});
