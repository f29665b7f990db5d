/** Debian's testssl against the sidecar, with its report kept: `npm run testssl -- FOLDER` (a minute). */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { hasTestssl, runTestssl } from "../test/support/testssl.ts";

const folder = process.argv[2] ?? join(".stile", "testssl");
if (hasTestssl()) {
  mkdirSync(folder, { recursive: true });
  const { faults, findings } = await runTestssl(folder, []);
  for (const fault of faults) console.log(fault);
  console.log(`${findings.length} findings, ${faults.length} that may not stand: ${folder}`);
  process.exitCode = faults.length === 0 ? 0 : 1;
} else {
  console.log("skipped: testssl is not installed (apt-get install testssl.sh)");
}
