/** Every error code has a status and a line in docs/errors.md, in both directions. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { bareProblem, problemOf, problemType, statusOf } from "../../service/problems.ts";
import { ERROR_CODES, type ErrorCode, StileError } from "../../wire/index.ts";

const page = readFileSync(join(import.meta.dirname, "../../docs/errors.md"), "utf8");
const rows = [...page.matchAll(/^\| `(\w+)` \| (\d{3}|–) \| (.*) \|$/gm)].map(
  ([, code, status, meaning]) => ({
    code,
    status,
    meaning,
  }),
);
const codes = Object.keys(ERROR_CODES) as ErrorCode[];

describe("docs/errors.md", () => {
  it("G2: lists every code with its status and meaning, and no other", () => {
    const expected = codes.map((code) => ({
      code,
      status: statusOf(code) === 500 ? "–" : String(statusOf(code)),
      meaning: ERROR_CODES[code],
    }));
    expect(rows).toEqual(expected);
  });
});

describe("problems", () => {
  it("carry a stable type, the status and the retry time where one is due", () => {
    for (const code of codes) {
      const problem = problemOf(new StileError(code, "said"));
      const status = statusOf(code);
      expect(problem.status).toBe(status);
      if (status === 500) expect(problem).toEqual(bareProblem(500));
      else expect(problem.body).toMatchObject({ type: problemType(code), status, detail: "said" });
      expect("retry-after" in problem.headers, code).toBe(status === 429 || status === 503);
    }
    const soon = new StileError("TOKEN_ISSUER_BUSY", "x", { retryAfterSeconds: 1.2 });
    expect(problemOf(soon).headers["retry-after"]).toBe("2");
  });

  it("G1: never say anything of what is not a StileError", () => {
    for (const error of [new Error("secret"), "secret", undefined]) {
      expect(problemOf(error)).toEqual(bareProblem(500));
      expect(JSON.stringify(problemOf(error))).not.toContain("secret");
    }
  });
});
