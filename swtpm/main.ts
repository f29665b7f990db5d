/**
 * `npm run swtpm`: a software TPM with EK certificates that runs until it is interrupted.
 * Not a hardware root of trust: whoever reads its state folder has its keys.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { isStileError } from "../wire/index.ts";
import { openManufacturerCa } from "./manufacturer-ca.ts";
import { startSwtpm } from "./start.ts";

const USAGE = `Usage: npm run swtpm -- [--state DIR] [--json]

Starts a software TPM 2.0 with EK certificates and prints how to reach it.
  --state DIR  keep the TPM and its manufacturer in DIR; without it both are thrown away at the end
  --json       print one line of JSON: tcti, rootCertificate, stateDir, pid`;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      state: { type: "string" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) return console.log(USAGE);
  const isTemporary = values.state === undefined;
  // The name makes a later start remove it, should this process be killed.
  const folder = resolve(
    values.state ?? mkdtempSync(join(tmpdir(), `stile-swtpm-${process.pid}-`)),
  );
  const ca = await openManufacturerCa({ clock: () => Date.now(), folder: join(folder, "ca") });
  const swtpm = await startSwtpm({ ca, stateDir: join(folder, "tpm") });
  const facts = {
    tcti: swtpm.tcti,
    rootCertificate: join(folder, "ca", "root.pem"),
    stateDir: swtpm.stateDir,
    pid: swtpm.pid,
  };
  console.log(values.json ? JSON.stringify(facts) : describe(facts));
  await untilInterrupted();
  await swtpm.stop();
  if (isTemporary) rmSync(folder, { recursive: true, force: true });
}

function describe(facts: { tcti: string; rootCertificate: string }): string {
  return [
    `TPM (TCTI):        ${facts.tcti}`,
    `manufacturer root: ${facts.rootCertificate}`,
    "",
    `Try it:            TPM2TOOLS_TCTI='${facts.tcti}' tpm2_getrandom --hex 8`,
    "Stop it:           Ctrl-C",
  ].join("\n");
}

/** Settles on SIGINT or SIGTERM. The timer keeps the process running, which swtpm itself does not. */
function untilInterrupted(): Promise<void> {
  return new Promise((settle) => {
    const timer = setInterval(() => undefined, 0x7fff_ffff);
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
      process.once(signal, () => {
        clearInterval(timer);
        settle();
      });
    }
  });
}

try {
  await main();
} catch (error) {
  const isUsage = error instanceof TypeError || error instanceof RangeError;
  if (!isUsage && !isStileError(error)) throw error;
  console.error(`swtpm: ${error.message}`);
  if (isUsage) console.error(USAGE);
  process.exitCode = 1;
}
