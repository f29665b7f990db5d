/**
 * Prints each number of the attestation checklist with the tests whose titles begin with it, and fails
 * where a number has no test that names a refusal, or a title names a number that is not on the list.
 * Titles are read from the sources: `it("A9: refuses ...")`, `it.each(rows)("D3, D11: ...")` and the rows; a
 * `describe("F1 ...")` counts for the tests inside that have no number of their own.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dirname, "..");
const checklist = join(root, "..", "shared", "checklists", "attestation.md");

/** A call of it, test or describe, or of what their `each` and `skipIf` give, and its title. */
const TITLE =
  /^(?<indent> *)(?:(?<call>it|test|describe)(?:\.(?<modifier>\w+))?\b.*?|[\])}]+\s*(?:as const)?\))\(\s*(?<quote>["'`])(?<title>.*?)(?<!\\)\k<quote>,/gm;
/** The first cell of a row of `it.each`, whose title is "%s" or begins with it. */
const ROW = /\[\s*"(?<title>[A-G]\d{1,2}[,: ].*?)(?<!\\)",/g;
const NUMBERS = /^(?<numbers>[A-G]\d{1,2}(?:, [A-G]\d{1,2})*)[: ]/;
/** What the title of a test says that saw evidence refused, or a deviation reported where the list asks for that. */
const REFUSAL = /\b(?:refus\w+|reject\w*|reports?|never|believes no)\b/;

function main() {
  const wanted = [...readFileSync(checklist, "utf8").matchAll(/^- ([A-G]\d{1,2}) /gm)].map(
    ([, number]) => number,
  );
  const tests = testFiles().flatMap(numberedTests);
  const problems = [];
  for (const number of wanted) {
    const own = tests.filter(({ numbers }) => numbers.includes(number));
    const refusals = own.filter(({ title }) => REFUSAL.test(title));
    console.log(`${number.padEnd(4)}${own.length} tests, ${refusals.length} of refusals`);
    for (const { file, title } of own) console.log(`      ${file}: ${title}`);
    if (refusals.length === 0) problems.push(`${number} has no test of a refusal`);
  }
  for (const { file, title, numbers } of tests) {
    const unknown = numbers.filter((number) => !wanted.includes(number));
    if (unknown.length > 0) problems.push(`${file}: "${title}" names ${unknown.join(", ")}`);
  }
  if (wanted.length === 0) problems.push("the checklist has no numbers");
  for (const problem of problems) console.error(problem);
  const covered = problems.length === 0 ? "all covered" : `${problems.length} problems`;
  console.log(`${wanted.length} numbers, ${tests.length} tests: ${covered}`);
  process.exitCode = problems.length === 0 ? 0 : 1;
}

function testFiles() {
  return readdirSync(join(root, "test"), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".test.ts"))
    .toSorted();
}

function numberedTests(file) {
  const source = readFileSync(join(root, "test", file), "utf8");
  const calls = [...source.matchAll(TITLE)].map(({ index, groups }) => ({ index, ...groups }));
  const groups = calls
    .filter(({ call, title }) => call === "describe" && NUMBERS.test(title))
    .map(({ index, indent, title }) => ({ title, index, end: blockEnd(source, index, indent) }));
  const rows = [...source.matchAll(ROW)].map(({ index, groups: { title } }) => ({ index, title }));
  return [...calls, ...rows]
    .filter(({ call, modifier }) => call !== "describe" && !/^(?:skip|todo)$/.test(modifier ?? ""))
    .map(({ index, title }) => {
      const group = groups.find((block) => block.index < index && index < block.end);
      return { file, title, numbers: numbersOf(title) ?? numbersOf(group?.title ?? "") ?? [] };
    })
    .filter(({ numbers }) => numbers.length > 0);
}

/** The formatter puts the end of a block at the indentation of its beginning. */
function blockEnd(source, index, indent) {
  const end = source.indexOf(`\n${indent}});`, index);
  return end === -1 ? source.length : end;
}

function numbersOf(title) {
  return NUMBERS.exec(title)?.groups.numbers.split(", ");
}

main();
