/** docs/corpora.md says of every captured sample what the verifiers say. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { readSharedJson, sharedDir, sharedMissing } from "../support/shared.ts";
import { corporaPage } from "./support/corpora/page.ts";
import { type CorpusRow, corpusRows } from "./support/corpora/rows.ts";

const root = join(import.meta.dirname, "..", "..");

describe.skipIf(sharedMissing)("docs/corpora.md", () => {
  let rows: readonly CorpusRow[];
  beforeAll(async () => {
    rows = await corpusRows();
  });

  it("is what scripts/corpora-table.mjs writes", () => {
    expect(readFileSync(join(root, "docs", "corpora.md"), "utf8")).toBe(corporaPage(rows));
  });

  it("has a row for every file, and for every entry of the files that have several", () => {
    const folder = join(sharedDir, "corpora");
    const files = readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && entry.name !== "README.md")
      .map(({ parentPath, name }) => join(parentPath, name).slice(folder.length + 1));
    expect(files.length).toBeGreaterThan(80);
    const samples = rows.map(({ sample }) => sample);
    expect(new Set(samples).size).toBe(samples.length);
    for (const file of files) {
      const hasEntries = /^(?:ek-certs|webauthn)\//.test(file);
      const entries = hasEntries ? (readSharedJson(`corpora/${file}`) as unknown[]).length : 1;
      const of = samples.filter((sample) => sample === file || sample.startsWith(`${file} [`));
      expect(of, file).toHaveLength(entries);
    }
    const known = (sample: string): boolean => files.includes(sample.replace(/ \[.*\]$/, ""));
    expect(samples.filter((sample) => !known(sample))).toEqual([]);
  });
});
