/** Runs once before all tests: builds the page, says what the run depends on. */
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { sharedDir } from "./shared.ts";

export function setup(): void {
  execFileSync(process.execPath, ["web/build.mjs"], { cwd: join(import.meta.dirname, "../..") });
  if (existsSync(sharedDir)) return;
  if (process.env["CI"] === "true") throw new Error(`reference data is missing: ${sharedDir}`);
  console.warn(
    "the reference data beside the repository is absent: tests that read it are skipped",
  );
}
