/**
 * What the attestation checklist asks of the sources as a whole: each of its numbers has a test, each code
 * of a refusal is raised and was seen, and nothing that verifies can reach a network.
 */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { ERROR_CODES } from "../../wire/index.ts";
import { readShared, sharedMissing } from "../support/shared.ts";

const root = join(import.meta.dirname, "..", "..");

/** Path below the root, and text, of every source below these folders. */
function sources(...folders: readonly string[]): (readonly [path: string, text: string])[] {
  return folders.flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
      .filter((file) => file.endsWith(".ts"))
      .map((file) => {
        const path = join(folder, file);
        return [path, readFileSync(join(root, path), "utf8")] as const;
      }),
  );
}

describe("the attestation checklist", () => {
  it.skipIf(sharedMissing)("has a test of a refusal for each of its numbers", () => {
    const run = spawnSync(process.execPath, ["scripts/checklist-coverage.mjs"], {
      cwd: root,
      encoding: "utf8",
    });
    expect(run.stderr).toBe("");
    expect(run.stdout).toMatch(/\n57 numbers, \d{3} tests: all covered\n$/);
    expect(run.status).toBe(0);
  });

  it("G2: has no code that nothing raises, or that no test saw where it refuses", () => {
    const raising = sources("wire", "attest", "tokens", "tls", "service", "swtpm")
      .filter(([path]) => path !== join("wire", "error-codes.ts") && !path.endsWith("problems.ts"))
      .map(([, text]) => text)
      .join("\n");
    const seeing = sources("test")
      .map(([, text]) => text)
      .join("\n");
    const codes = Object.keys(ERROR_CODES).filter((code) => /^(?:ATTEST|WIRE)_/.test(code));
    expect(codes.length).toBeGreaterThan(40);
    const quoted = (code: string): string => `"${code}"`;
    expect(codes.filter((code) => !raising.includes(quoted(code)))).toEqual([]);
    expect(codes.filter((code) => !seeing.includes(quoted(code)))).toEqual([]);
  });

  it("G4: never imports a network or asks for an address in what verifies", () => {
    // The device's side talks to a TPM and to its attester; the engine of Node computes.
    const verifying = sources("attest", "wire").filter(
      ([path]) => !/^attest\/(?:agent|tss2)\//.test(path),
    );
    expect(verifying.length).toBeGreaterThan(60);
    for (const [path, text] of verifying) {
      const modules = [...text.matchAll(/from "node:(?<name>[a-z_/0-9]+)"/g)].map(
        ({ groups }) => groups?.["name"],
      );
      expect(
        modules.filter((name) => name !== "crypto"),
        path,
      ).toEqual([]);
      expect(text, path).not.toMatch(/\bfetch\(|\bXMLHttpRequest\b|\bWebSocket\b|\bimport\(/);
    }
  });
});

describe("the Privacy Pass checklist", () => {
  const text = readFileSync(join(root, "docs", "privacypass.md"), "utf8");
  const rows = text.split("\n").filter((line) => /^\| [A-Z]\d/.test(line));
  const ids = rows.map((row) => row.split("|")[1]?.trim() ?? "");

  it("names tests that there are, one or more for each requirement", () => {
    expect(new Set(ids).size).toBe(ids.length);
    for (const row of rows) {
      const named = [...row.matchAll(/`(?<file>test\/[^`]+)`: "(?<title>[^"]+)"/g)];
      expect(named.length, row).toBeGreaterThan(0);
      for (const { groups } of named) {
        const source = readFileSync(join(root, groups?.["file"] ?? ""), "utf8");
        expect(source.includes(groups?.["title"] ?? ""), groups?.["title"]).toBe(true);
      }
    }
  });

  it.skipIf(sharedMissing)("has a row for each point of each group", () => {
    const list = Buffer.from(readShared("PRIVACYPASS.md")).toString("utf8");
    const section = /^## 6\. [^]*?(?=^=====)/m.exec(list)?.[0] ?? "";
    const groups = section.split(/^(?=[A-Z]\w+ \()/m).slice(1);
    expect(groups).toHaveLength(5);
    for (const group of groups) {
      const own = ids.filter((id) => id.startsWith(group.slice(0, 1)));
      expect(own, group).toHaveLength(group.match(/^- /gm)?.length ?? 0);
    }
    expect(ids.length).toBeGreaterThan(20);
  });
});
