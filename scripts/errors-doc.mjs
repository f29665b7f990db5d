/** Writes docs/errors.md from the table of codes and the table of statuses. Run with the project's Node. */
import { writeFileSync } from "node:fs";
import { statusOf } from "../service/problems.ts";
import { ERROR_CODES } from "../wire/index.ts";

const rows = Object.entries(ERROR_CODES).map(([code, meaning]) => {
  const status = statusOf(code);
  return `| \`${code}\` | ${status === 500 ? "–" : status} | ${meaning} |`;
});
const page = `# Errors

Every error has one of these codes. Over HTTP it is a problem document (RFC 9457) whose \`type\` is
\`urn:stile:problem:\` and the code in lower case with hyphens; codes without a status never leave the process
that raised them, or appear as a bare 500. Codes are stable. This page is made by \`node scripts/errors-doc.mjs\`.

| code | HTTP | condition |
|---|---|---|
${rows.join("\n")}
`;
writeFileSync(new URL("../docs/errors.md", import.meta.url), page);
