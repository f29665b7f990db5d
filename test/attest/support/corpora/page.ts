/** The text of docs/corpora.md: the rows of every captured sample as one table. */
import type { CorpusRow } from "./rows.ts";

const HEAD = `# Captured samples and their verdicts

Evidence that others captured or made, and what the verifiers of \`attest/\` say to it: by the default policy,
and by the settings that its origin accepts it with. "What its origin expects" is in the words of the tests
that it comes from. A refusal by default is meant, and each setting that lifts one has a name. This page is made by \`node scripts/corpora-table.mjs\`, which runs the verifiers; a test
compares the page with them.

- EK certificates are judged at the start of 2024, under all roots of the corpus together.
- Roots and intermediates are read as a client would send them. From the operator's file they are read with
  the oddities of issuers always on.
- Logs "quoted as it replays" came without the PCRs of their machine: the quote is that of a TPM that had
  extended the log, so the verdict is on the log's form and on what it says, and not on its truth.
- IMA lists came without a quote: likewise. SM3 is read and not computed.
- WebAuthn responses are judged at the time, for the origin and for the challenge of their origin's test. The
  trust anchor is configured from the sample itself; where \`acceptUnanchored\` is named, there is none.

`;

export function corporaPage(rows: readonly CorpusRow[]): string {
  const titles = [
    "sample",
    "what it is",
    "what its origin expects",
    "by the default policy",
    "settings of its origin",
    "by those settings",
  ];
  const lines = [titles, titles.map(() => "---"), ...rows.map(cellsOf)];
  return `${HEAD}${lines.map((cells) => `| ${cells.join(" | ")} |`).join("\n")}\n`;
}

function cellsOf(row: CorpusRow): string[] {
  const needed = [row.settings, row.withSettings].map((text) => (text === "" ? "–" : text));
  return [`\`${row.sample}\``, row.what, row.expected, row.byDefault, ...needed];
}
