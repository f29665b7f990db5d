/** The house rules as a test, so that `npm test` alone keeps them: format, lint, layers, types, unused code. */
import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";

const root = join(import.meta.dirname, "..", "..");

describe("the house", () => {
  it("passes every static check", { timeout: 120_000 }, async () => {
    const run = promisify(execFile)(process.execPath, ["scripts/check.mjs", "--static"], {
      cwd: root,
    });
    const { stdout } = await run.catch((error: unknown) => error as { stdout: string });
    expect(stdout).not.toContain("FAILED");
    expect(stdout.match(/^ok /gm)).toHaveLength(5);
  });

  it("has a reason for every runtime dependency", () => {
    const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
      dependencies: Record<string, string>;
      optionalDependencies: Record<string, string>;
    };
    const reasons = readFileSync(join(root, "docs", "dependencies.md"), "utf8");
    const { dependencies, optionalDependencies } = manifest;
    for (const name of Object.keys({ ...dependencies, ...optionalDependencies })) {
      expect(reasons, name).toContain(`\`${name}\``);
    }
  });

  it("copies into the image every folder that the sidecar imports", () => {
    const dockerfile = readFileSync(join(root, "Dockerfile"), "utf8");
    const imported = new Set<string>();
    for (const file of readdirSync(join(root, "service"), { recursive: true, encoding: "utf8" })) {
      if (!file.endsWith(".ts")) continue;
      const source = readFileSync(join(root, "service", file), "utf8");
      for (const [, folder] of source.matchAll(/from "(?:\.\.\/)+(\w+)\/[^"]*"/g))
        imported.add(folder ?? "");
    }
    const folders = ["wire", "attest", "tokens", "tls", "swtpm"].filter((folder) =>
      imported.has(folder),
    );
    expect(folders.length).toBeGreaterThan(3);
    for (const folder of folders) expect(dockerfile).toContain(`COPY ${folder} ./${folder}`);
  });
});
