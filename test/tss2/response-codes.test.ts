import { describe, expect, it } from "vitest";
import { loadTss, parseResponseCode } from "../../attest/tss2/index.ts";

const tss = loadTss();

describe("response codes", () => {
  it.each([
    [0x0000_0100, "TPM_RC_INITIALIZE", undefined],
    [0x0000_0101, "TPM_RC_FAILURE", undefined],
    [0x0000_014c, "TPM_RC_NV_DEFINED", undefined],
    [0x0000_018b, "TPM_RC_HANDLE", "handle 1"],
    [0x0000_01df, "TPM_RC_INTEGRITY", "parameter 1"],
    [0x0000_02d5, "TPM_RC_SIZE", "parameter 2"],
    [0x0000_098e, "TPM_RC_AUTH_FAIL", "session 1"],
    [0x0000_099d, "TPM_RC_POLICY_FAIL", "session 1"],
    [0x0000_0902, "TPM_RC_OBJECT_MEMORY", undefined],
    [0x0000_0910, "TPM_RC_REFERENCE_H0", undefined],
    [0x0000_0922, "TPM_RC_RETRY", undefined],
    [0x0007_0007, "TSS2_ESYS_RC_BAD_SEQUENCE", undefined],
    [0x000a_000a, "TSS2_TCTI_RC_IO_ERROR", undefined],
    [0x0009_0006, "TSS2_MU_RC_INSUFFICIENT_BUFFER", undefined],
    [0x000c_0143, "TPM_RC_COMMAND_CODE", undefined],
    [0x0000_0522, "0x00000522", undefined],
    [0x000a_00ff, "0x000a00ff", undefined],
  ])("names 0x%s", (code, name, blames) => {
    expect(parseResponseCode(code)).toMatchObject({ code, name, blames });
  });

  it("blames what libtss2-rc blames, for every code of the TPM layer", () => {
    const differences: number[] = [];
    for (let code = 1; code < 0x1000; code += 1) {
      // libtss2-rc 3.2 reads three of the four bits of a parameter's number (Part 2 table 16).
      if ((code & 0x8c0) === 0x8c0) continue;
      const match = /(handle|session|parameter)\((\d+)\)/.exec(tss.decodeRc(code));
      const theirs = match === null ? undefined : `${match[1]} ${match[2]}`;
      if (parseResponseCode(code).blames !== theirs) differences.push(code);
    }
    expect(differences).toStrictEqual([]);
  });

  it("gives one name to each text of libtss2-rc and knows every text", () => {
    const namesOf = new Map<string, Set<string>>();
    for (let code = 1; code < 0x1000; code += 1) {
      const text = tss.decodeRc(code).replace(/^tpm:(?:[a-z]+\([^)]*\):?)*/, "");
      // The library answers with a number, "(null)" or "not currently used" where it knows nothing.
      if (
        /^\s*(?:0x[0-9A-F]+|\(null\)|not currently used|unknown .*|Vendor specific .*)$/.test(text)
      )
        continue;
      namesOf.set(text, (namesOf.get(text) ?? new Set()).add(parseResponseCode(code).name));
    }
    expect(namesOf.size).toBeGreaterThan(80);
    for (const [text, names] of namesOf) {
      expect(names.size, text).toBe(1);
      expect([...names][0], text).toMatch(/^TPM_RC_/);
    }
  });
});
