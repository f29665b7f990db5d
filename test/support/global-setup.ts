/** Runs once before all tests: says what the run depends on. */
import { existsSync } from "node:fs";
import { sharedDir } from "./shared.ts";

export function setup(): void {
  if (existsSync(sharedDir)) return;
  if (process.env["CI"] === "true") throw new Error(`reference data is missing: ${sharedDir}`);
  console.warn(
    "the reference data beside the repository is absent: tests that read it are skipped",
  );
}
