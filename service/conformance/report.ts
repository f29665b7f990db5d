/** The results of a run as text for people, JSON for programs, and JUnit XML for what collects test results. */
import type { Result } from "./model.ts";

export interface Summary {
  readonly passed: number;
  /** Of level MUST. */
  readonly failedMust: number;
  readonly failedShould: number;
  readonly skipped: number;
}

const MARKS = { pass: "ok  ", fail: "FAIL", skipped: "skip" } as const;

export function summaryOf(results: readonly Result[]): Summary {
  const failed = results.filter(({ outcome }) => outcome === "fail");
  const failedMust = failed.filter(({ check }) => check.level === "MUST").length;
  return {
    passed: results.filter(({ outcome }) => outcome === "pass").length,
    failedMust,
    failedShould: failed.length - failedMust,
    skipped: results.filter(({ outcome }) => outcome === "skipped").length,
  };
}

export function textReport(results: readonly Result[]): string {
  const lines = results.map(({ check, outcome, reason }) => {
    const head = `${MARKS[outcome]} ${check.level.padEnd(6)} ${check.id.padEnd(34)} ${check.title}`;
    return reason === undefined ? head : `${head}\n     ${check.section}: ${reason}`;
  });
  const { failedMust, failedShould, passed, skipped } = summaryOf(results);
  const counts = `${passed} passed, ${failedMust} MUST and ${failedShould} SHOULD failed`;
  return `${lines.join("\n")}\n${counts}, ${skipped} skipped\n`;
}

export function jsonReport(results: readonly Result[]): string {
  const checks = results.map(({ check, durationMs, outcome, reason }) => ({
    id: check.id,
    section: check.section,
    level: check.level,
    title: check.title,
    outcome,
    ...(reason === undefined ? {} : { reason }),
    durationMs,
  }));
  return `${JSON.stringify({ summary: summaryOf(results), checks })}\n`;
}

/** The form that Jenkins and GitLab read; the group of a check is its class. */
export function junitReport(results: readonly Result[]): string {
  const { failedMust, failedShould, skipped } = summaryOf(results);
  const cases = results.map((result) => junitCase(result)).join("");
  const failures = failedMust + failedShould;
  const counts = `tests="${results.length}" failures="${failures}" skipped="${skipped}"`;
  return (
    `<?xml version="1.0" encoding="UTF-8"?>\n` +
    `<testsuites ${counts}>\n<testsuite name="privacy-pass" ${counts}>\n${cases}</testsuite>\n</testsuites>\n`
  );
}

function junitCase({ check, durationMs, outcome, reason = "" }: Result): string {
  const [group = ""] = check.id.split(".");
  const attributes = [
    `classname="${escapeXml(group)}"`,
    `name="${escapeXml(`${check.id}: ${check.title}`)}"`,
    `time="${(durationMs / 1_000).toFixed(3)}"`,
  ].join(" ");
  if (outcome === "pass") return `<testcase ${attributes}/>\n`;
  const message = escapeXml(`${check.section}: ${reason}`);
  const element =
    outcome === "skipped"
      ? `<skipped message="${message}"/>`
      : `<failure type="${check.level}" message="${message}"/>`;
  return `<testcase ${attributes}>${element}</testcase>\n`;
}

function escapeXml(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;")
    .replaceAll(/[^\x20-\x7e\u00a0-\ud7ff]/g, "?");
}
