/**
 * The README's commands, run as they stand: each line of the "Try it" block against a development sidecar,
 * with the port and the state folder of the test put in.
 */
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ChildSidecar, startChildSidecar } from "../support/child-sidecar.ts";
import { freePort } from "../support/free-port.ts";

const root = join(import.meta.dirname, "..", "..");
const readme = readFileSync(join(root, "README.md"), "utf8");

function blocks(language: string): string[] {
  return [...readme.matchAll(new RegExp(`\`\`\`${language}\n([^]*?)\`\`\``, "g"))].map(
    ([, code]) => code ?? "",
  );
}

const commands = (blocks("sh")[0] ?? "").split("\n").filter((line) => /^(curl|npm) /.test(line));

describe("README", () => {
  const dir = mkdtempSync(join(tmpdir(), "stile-readme-"));
  let child: ChildSidecar;
  let port: number;

  beforeAll(async () => {
    port = await freePort();
    child = await startChildSidecar(dir, port);
  });

  afterAll(async () => {
    await child.end("SIGTERM");
    rmSync(dir, { recursive: true, force: true });
  });

  it("has the commands that are tried here", () => {
    expect(commands.length).toBeGreaterThanOrEqual(8);
  });

  it.each(commands)("%s", async (line) => {
    const operator = child.operatorAddress;
    const command = line
      .replaceAll(".stile/dev", join(dir, "dev"))
      .replaceAll("8443", String(port))
      .replaceAll("http://127.0.0.1:9443", operator)
      .replace("npm run -s stile --", `"${process.execPath}" service/cli/main.ts`)
      .replace("agent fetch", `agent fetch --dev-state "${join(dir, "dev")}"`);
    const { stdout } = await promisify(execFile)("bash", ["-c", command], { cwd: root });
    expect(stdout).not.toBe("");
    if (line.includes("%{http_code}")) expect(stdout.trim()).toBe("401");
    if (line.includes("agent fetch")) expect(stdout).toContain("you were let in");
  });

  it("has a configuration that is valid", async () => {
    const file = join(dir, "stile.yaml");
    writeFileSync(file, blocks("yaml")[0] ?? "");
    const args = ["service/cli/main.ts", "config", "check", file];
    const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: root });
    expect(stdout).toContain("valid");
  });
});
