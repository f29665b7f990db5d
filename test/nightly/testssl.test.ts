/** A part of testssl's questions, each night; `npm run testssl` asks all of them. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { faultsIn, type Finding, hasTestssl, runTestssl } from "../support/testssl.ts";

const folder = mkdtempSync(join(tmpdir(), "stile-testssl-"));
afterAll(() => rmSync(folder, { recursive: true }));

describe("testssl", () => {
  it.skipIf(!hasTestssl())(
    "finds nothing above INFO in protocols, certificates, renegotiation and known attacks",
    async () => {
      const parts = ["--protocols", "--server-defaults", "--renegotiation", "--tls-fallback"];
      const { faults, findings } = await runTestssl(folder, [...parts, "--heartbleed"]);
      expect(faults).toEqual([]);
      expect(findings.length).toBeGreaterThan(40);
    },
    120_000,
  );
});

describe("the judgement on a report", () => {
  const clean: readonly Finding[] = [
    ...["SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2"].map((id) => {
      return { id, severity: "INFO", finding: "not offered" };
    }),
    { id: "TLS1_3", severity: "OK", finding: "offered with final" },
  ];
  const with_ = (finding: Finding): string[] => faultsIn([...clean, finding], false);

  it("rejects what is above INFO, also under a name that is allowed other words", () => {
    expect(faultsIn(clean, false)).toEqual([]);
    expect(with_({ id: "DNS_CAArecord", severity: "LOW", finding: "--" })).toEqual([]);
    expect(with_({ id: "DNS_CAArecord", severity: "LOW", finding: "other" })).toHaveLength(1);
    expect(with_({ id: "heartbleed", severity: "CRITICAL", finding: "VULNERABLE" })).toHaveLength(
      1,
    );
    expect(with_({ id: "scanProblem", severity: "FATAL", finding: "no TLS" })).toHaveLength(1);
  });

  it("rejects a report that does not say what it must, or of another server", () => {
    expect(faultsIn([], false)).toHaveLength(6);
    expect(faultsIn(clean, true).length).toBeGreaterThan(4);
    const old = clean.map((one) => {
      return one.id === "TLS1_2" ? { ...one, finding: "offered" } : one;
    });
    expect(faultsIn(old, false)).toEqual(["not said: TLS1_2 ^not offered"]);
  });
});
