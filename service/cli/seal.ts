/**
 * `stile seal`: seals the passphrase of a state folder to this machine's TPM, as `tpmSealing` of the
 * configuration says. Again after a firmware update has changed a PCR, from the copy that was kept elsewhere.
 */
import { randomBytes } from "node:crypto";
import { parseArgs } from "node:util";
import { loadConfig } from "../config/index.ts";
import { sealPassphrase, unsealPassphrase } from "../keystore/tpm-passphrase.ts";
import { readPassphrase } from "../secrets.ts";
import { CliUsageError } from "./usage.ts";

const USAGE = "seal --config FILE (--passphrase-file FILE | --generate)";
const GENERATED_BYTES = 32;

export async function sealCommand(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      config: { type: "string" },
      "passphrase-file": { type: "string" },
      generate: { type: "boolean" },
    },
  });
  const { stateDir, tpmSealing } = loadConfig(values.config, process.env);
  if (tpmSealing === undefined) throw new CliUsageError("the configuration has no tpmSealing");
  const file = values["passphrase-file"];
  if ((file === undefined) === (values.generate !== true)) {
    throw new CliUsageError(`expected: stile ${USAGE}`);
  }
  const passphrase =
    file === undefined
      ? new TextEncoder().encode(randomBytes(GENERATED_BYTES).toString("base64url"))
      : readPassphrase(file);
  await sealPassphrase(stateDir, tpmSealing, passphrase);
  // What the TPM does not give back now, it would not give back at a start.
  (await unsealPassphrase(stateDir, tpmSealing)).fill(0);
  process.stderr.write(`sealed to PCR ${tpmSealing.pcrs.join(", ")}\n`);
  if (file === undefined) {
    process.stderr.write(
      "Keep this passphrase elsewhere: without it, a changed PCR loses all keys.\n",
    );
    process.stdout.write(`${new TextDecoder().decode(passphrase)}\n`);
  }
  passphrase.fill(0);
  return 0;
}
