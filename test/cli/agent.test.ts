/** The settings of `stile agent` for tokens with an expiration. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { agentCommand } from "../../service/cli/agent.ts";
import { CliUsageError } from "../../service/cli/usage.ts";
import { codeOfAsync } from "../support/reject.ts";

const dir = mkdtempSync(join(tmpdir(), "stile-agent-cli-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** With a TPM that is not there: what is wrong with the settings is said before it is looked for. */
const agent = (...more: readonly string[]): Promise<number> =>
  agentCommand([
    "fetch",
    "https://localhost:1/",
    `--tcti=swtpm:path=${join(dir, "none")}`,
    `--wallet=${join(dir, "wallet")}`,
    `--dev-state=${join(dir, "none")}`,
    ...more,
  ]);

it("rejects a grid of expirations that would tell its owner from others", async () => {
  for (const [precision, lifetime] of [
    ["60", "120"],
    ["3600", "3600"],
    ["86400", "1"],
    ["day", "172800"],
    ["", "172800"],
  ] as const) {
    const asked = agent("--expiration-precision", precision, "--max-lifetime", lifetime);
    await expect(asked).rejects.toThrow(CliUsageError);
    await expect(asked).rejects.toThrow("--expiration-precision, --max-lifetime: ");
  }
});

it("goes on to the TPM with a grid of an hour, and with none", async () => {
  const grid = ["--expiration-precision", "3600", "--max-lifetime", "7200"];
  expect(await codeOfAsync(() => agent(...grid))).toMatch(/^ATTEST_/);
  expect(await codeOfAsync(() => agent())).toMatch(/^ATTEST_/);
});
