/** Runs a program of tpm2-tools against a software TPM: an implementation that shares no code with ours. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";

const run = promisify(execFile);

/** @returns what it wrote to stdout. @throws when it ends with another status than 0. */
export async function tool(tcti: string, name: string, ...words: string[]): Promise<Buffer> {
  const { stdout } = await run(name, words, {
    encoding: "buffer",
    env: { PATH: process.env["PATH"] ?? "/usr/bin", TPM2TOOLS_TCTI: tcti, TSS2_LOG: "all+NONE" },
  });
  return stdout;
}
