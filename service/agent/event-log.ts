/** Where Linux keeps the firmware's event log of the TPM that an agent uses. */
import { readFile } from "node:fs/promises";
import { StileError } from "../../wire/index.ts";

const SECURITY_FS = "/sys/kernel/security";
const HARDWARE = /^device:(?:\/dev\/tpm(?:rm)?(\d+))?$/;

/**
 * A file that is named has to be readable. Of a hardware TPM the kernel's file is read where it is; a
 * software TPM has measured nothing, so no log of this machine is its.
 * @throws `ATTEST_AGENT_REFUSED`
 */
export async function readEventLog(
  tcti: string,
  file: string | undefined,
): Promise<Uint8Array | undefined> {
  if (file !== undefined) return readNamed(file);
  const hardware = HARDWARE.exec(tcti);
  if (hardware === null) return undefined;
  const path = `${SECURITY_FS}/tpm${hardware[1] ?? "0"}/binary_bios_measurements`;
  // Only root reads it on most systems, and some kernels have none.
  return readFile(path).then(
    (bytes) => Uint8Array.from(bytes),
    () => undefined,
  );
}

async function readNamed(file: string): Promise<Uint8Array> {
  try {
    return Uint8Array.from(await readFile(file));
  } catch (cause) {
    const message = `the event log ${file} cannot be read`;
    throw new StileError("ATTEST_AGENT_REFUSED", message, { cause });
  }
}
