/** A software TPM with EK certificates, for tests, demonstrations and development. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { EkAlgorithm } from "../attest/agent/index.ts";
import type { ManufacturerCa } from "./manufacturer-ca.ts";
import { startProcess, type SwtpmProcess } from "./process.ts";
import { provision } from "./provision.ts";

export interface SwtpmOptions {
  /** Issues the EK certificates. */
  readonly ca: ManufacturerCa;
  /** Where the TPM's state is kept; without it, in a temporary folder that `stop` removes. */
  readonly stateDir?: string;
  /** EKs that get a certificate; both by default. None saves half a second. */
  readonly ekAlgorithms?: readonly EkAlgorithm[];
}

export interface Swtpm extends SwtpmProcess {
  readonly stateDir: string;
}

/** @throws `SWTPM_FAILED`, `ATTEST_TSS_MISSING`, `ATTEST_TSS_FAILED` */
export async function startSwtpm(options: SwtpmOptions): Promise<Swtpm> {
  const isTemporary = options.stateDir === undefined;
  const stateDir = options.stateDir ?? mkdtempSync(join(tmpdir(), `stile-swtpm-${process.pid}-`));
  const removeState = (): void => {
    if (isTemporary) rmSync(stateDir, { recursive: true, force: true });
  };
  let running: SwtpmProcess | undefined;
  try {
    const child = (running = await startProcess(stateDir));
    await provision(child.tcti, options.ca, options.ekAlgorithms ?? ["rsa", "ecc"]);
    return {
      stateDir,
      tcti: child.tcti,
      get pid(): number {
        return child.pid;
      },
      reset: () => child.reset(),
      kill: () => child.kill(),
      restart: () => child.restart(),
      async stop() {
        await child.stop();
        removeState();
      },
    };
  } catch (error) {
    await running?.stop();
    removeState();
    throw error;
  }
}
