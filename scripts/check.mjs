/**
 * The whole of the house rules in one command: format, lint and layers, types, unused exports, and the
 * tests. Every step runs even where an earlier one failed, so that one run shows all there is to mend.
 */
import { spawnSync } from "node:child_process";
import { join } from "node:path";

const bin = join(import.meta.dirname, "..", "node_modules", ".bin");
const steps = {
  format: ["oxfmt", "--check", "."],
  "lint and layers": ["oxlint", "--type-aware", "--deny-warnings"],
  types: ["tsc", "--noEmit"],
  "types of the page": ["tsc", "--noEmit", "-p", "web"],
  "unused exports": ["knip"],
  tests: ["vitest", "run"],
};
const only = process.argv.includes("--static");

let failed = 0;
for (const [name, [file, ...args]] of Object.entries(steps)) {
  if (only && name === "tests") continue;
  const started = performance.now();
  const run = spawnSync(join(bin, file), args, { encoding: "utf8", maxBuffer: 64 * 1024 * 1024 });
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  const ok = run.status === 0;
  if (!ok) failed += 1;
  console.log(`${ok ? "ok    " : "FAILED"} ${name} (${seconds} s)`);
  if (!ok) console.log(`${run.stdout}${run.stderr}`);
}
process.exitCode = failed === 0 ? 0 : 1;
