/** What the recipes of deploy/ look for under /etc/stile, of a test sidecar. */
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { vi } from "vitest";
import { clearanceKeyCommand } from "../../service/cli/clearance-key.ts";
import type { TestSidecar } from "./sidecar.ts";
import { writtenSettings } from "./written-settings.ts";

/** All but the keys of clearances. */
export function writeRecipeFiles(dir: string, { ca, config, sidecar }: TestSidecar): void {
  const { certificateFile = "", keyFile = "" } = config.tls;
  copyFileSync(certificateFile, join(dir, "tls.pem"));
  copyFileSync(keyFile, join(dir, "tls.key"));
  const both = [certificateFile, keyFile].map((file) => readFileSync(file, "utf8"));
  writeFileSync(join(dir, "haproxy.pem"), both.join("\n"));
  writeFileSync(join(dir, "ca.pem"), ca);
  const operator = { listen: new URL(sidecar.operatorAddress).host };
  writeFileSync(join(dir, "stile.yaml"), JSON.stringify(writtenSettings(config, { operator })));
}

/** As an operator does: exit code and output of `stile clearance-key`. @param verb with what it is about */
export async function writeClearanceKey(
  dir: string,
  ...verb: readonly string[]
): Promise<[code: number, output: string]> {
  const written = vi.spyOn(process.stdout, "write").mockReturnValue(true);
  const files = [
    "--out",
    join(dir, "clearance.pem"),
    "--other-out",
    join(dir, "clearance-other.pem"),
  ];
  try {
    const code = await clearanceKeyCommand([
      ...verb,
      "--config",
      join(dir, "stile.yaml"),
      ...files,
    ]);
    return [code, written.mock.calls.map(([text]) => String(text)).join("")];
  } finally {
    written.mockRestore();
  }
}
