/** The command's own mistakes and exit codes, and its reports in every form. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import {
  CONFORMANCE_CHECKS,
  jsonReport,
  junitReport,
  textReport,
} from "../../service/conformance/index.ts";
import type { Result } from "../../service/conformance/model.ts";
import { CliUsageError } from "../../service/cli/usage.ts";
import { freePort } from "../support/free-port.ts";
import { captured } from "../support/conformance.ts";

const dir = mkdtempSync(join(tmpdir(), "stile-conformance-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

describe("stile conformance", () => {
  const URLS = ["--issuer", "https://localhost:1"];

  it.each([
    ["no URL", []],
    ["a URL that is not https", ["--issuer", "http://localhost"]],
    ["a URL with credentials", ["--origin", "https://me@localhost"]],
    ["what is no URL", ["--origin", "localhost"]],
    ["a check that is not there", [...URLS, "--only", "directory.stauts"]],
    ["a certificate without its key", [...URLS, "--cert", "file"]],
    ["a header without its value", [...URLS, "--issuance-header", "Authorization"]],
    ["a header with a line break", [...URLS, "--issuance-header", "A: b\r\nC: d"]],
    ["a file that is not there", [...URLS, "--ca", join(dir, "nothing.pem")]],
  ])("rejects %s as a wrong use", async (_, args) => {
    await expect(captured(args)).rejects.toThrow(CliUsageError);
  });

  it("rejects unknown options", async () => {
    await expect(captured([...URLS, "--certificate", "x"])).rejects.toThrow(/--certificate/);
  });

  it("never quotes a header that it was given", async () => {
    const wrong = captured([...URLS, "--issuance-header", "s3cret"]);
    await expect(wrong).rejects.not.toThrow(/s3cret/);
  });

  it("exits with 2 where nothing can be reached", async () => {
    const { code, out } = await captured(["--issuer", `https://localhost:${await freePort()}`]);
    expect([code, out]).toEqual([2, ""]);
  });
});

describe("the checks", () => {
  it("have an id each, a section and a level", () => {
    const ids = CONFORMANCE_CHECKS.map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
    for (const { id, section, title } of CONFORMANCE_CHECKS) {
      expect(id).toMatch(/^(?:directory|issuance|challenge|redemption)\.[a-z0-9-]+$/);
      expect(section).toMatch(/^RFC 9[0-9]{3} §|^draft-ietf-privacypass-batched-tokens$/);
      expect(title).not.toBe("");
    }
  });

  it("are each described in docs/conformance.md, and no others", () => {
    const page = readFileSync("docs/conformance.md", "utf8");
    const described = [...page.matchAll(/^\| `([a-z]+\.[a-z0-9-]+)` \| (MUST|SHOULD) \|/gm)];
    expect(described.map(([, id, level]) => `${id} ${level}`)).toEqual(
      CONFORMANCE_CHECKS.map(({ id, level }) => `${id} ${level}`),
    );
  });
});

describe("reports", () => {
  const [first, second, third, fourth] = CONFORMANCE_CHECKS;
  const hostile = `<&"'>\u001b[31m`;
  const must = { ...first!, level: "MUST" } as const;
  const should = { ...second!, level: "SHOULD" } as const;
  const results: readonly Result[] = [
    { check: must, outcome: "fail", reason: hostile, durationMs: 12 },
    { check: should, outcome: "fail", reason: "other", durationMs: 0 },
    { check: third!, outcome: "skipped", reason: "no right", durationMs: 0 },
    { check: fourth!, outcome: "pass", durationMs: 1 },
  ];

  it("count by level", () => {
    const { checks, summary } = JSON.parse(jsonReport(results)) as {
      summary: object;
      checks: { reason?: string }[];
    };
    expect(summary).toEqual({ passed: 1, failedMust: 1, failedShould: 1, skipped: 1 });
    expect(checks.map(({ reason }) => reason)).toEqual([hostile, "other", "no right", undefined]);
    expect(textReport(results)).toMatch(/1 passed, 1 MUST and 1 SHOULD failed, 1 skipped\n$/);
  });

  it("are JUnit XML that says the same, whatever a reason holds", () => {
    const xml = junitReport(results);
    expect(xml).toContain('tests="4" failures="2" skipped="1"');
    expect(xml).toContain("&lt;&amp;&quot;'&gt;?[31m");
    expect(xml.match(/<testcase /g)).toHaveLength(4);
    expect(xml.match(/<failure type="MUST" /g)).toHaveLength(1);
    expect(xml.match(/<failure type="SHOULD" /g)).toHaveLength(1);
    expect(xml.match(/<skipped /g)).toHaveLength(1);
  });
});
