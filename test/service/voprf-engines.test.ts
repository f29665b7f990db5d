/** A machine without libsodium, and what an issuer of type 0x0005 says of it: never less than in words. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, it, vi } from "vitest";
import { configCommand } from "../../service/cli/config.ts";
import { voprfEngines } from "../../service/keys/voprf-engines.ts";
import { startTestSidecar } from "../support/sidecar.ts";

vi.mock("../../tokens/voprf/sodium-ristretto255.ts", () => ({
  createSodiumRistretto255: () => undefined,
}));

const REMEDY = "apt-get install libsodium23";
const dir = mkdtempSync(join(tmpdir(), "stile-engines-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
afterEach(() => vi.restoreAllMocks());

async function checked(issuer: string): Promise<{ code: number; out: string; err: string }> {
  const file = join(dir, "stile.yaml");
  const lines = [
    "publicUrl: https://www.example.org",
    "passphraseFile: /run/secrets/pass",
    "tls: { certificateFile: /etc/tls.pem, keyFile: /etc/tls.key }",
    'edge: { hosts: [a.example], issuerName: a.example, upstream: "http://127.0.0.1:1" }',
    "attester: { manufacturerRootsFile: /etc/roots.pem }",
    `issuer: ${issuer}`,
  ];
  writeFileSync(file, lines.join("\n"));
  const said = { out: "", err: "" };
  vi.spyOn(process.stdout, "write").mockImplementation((text) => {
    said.out += String(text);
    return true;
  });
  vi.spyOn(process.stderr, "write").mockImplementation((text) => {
    said.err += String(text);
    return true;
  });
  return { code: await configCommand(["check", file]), ...said };
}

describe("an issuer of type 0x0005 without libsodium", () => {
  it("rejects the start by default, with what to install", async () => {
    const start = startTestSidecar({ issuer: { tokenTypes: [2, 5] } });
    await expect(start).rejects.toMatchObject({ code: "TOKEN_ENGINE_MISSING" });
    await expect(start).rejects.toThrow(REMEDY);
    await expect(start).rejects.toThrow("issuer.voprfEngine: any");
  });

  it("starts with any, and warns in its log and in /readyz", async () => {
    const target = await startTestSidecar({ issuer: { tokenTypes: [5, 2], voprfEngine: "any" } });
    try {
      const said = target.lines.filter((line) => line.includes("keys.voprf-engine"));
      expect(said).toHaveLength(1);
      expect(JSON.parse(said[0] ?? "")).toMatchObject({ level: "warn", engine: "noble" });
      expect(said[0]).toContain(REMEDY);
      const answer = await fetch(`${target.sidecar.operatorAddress}/readyz`);
      expect(answer.status).toBe(200);
      const { voprfEngines: shown } = (await answer.json()) as { voprfEngines: unknown };
      expect(shown).toEqual([
        { tokenType: 5, engine: "noble", warning: expect.stringContaining(REMEDY) as string },
      ]);
    } finally {
      await target.stop();
    }
  });

  it("is warned of by stile config check, whatever the setting", async () => {
    expect(await checked("{ tokenTypes: [2] }")).toMatchObject({ code: 0, err: "" });
    const falls = await checked("{ tokenTypes: [5], voprfEngine: any }");
    expect(falls).toMatchObject({ code: 0, out: "the configuration is valid\n" });
    expect(falls.err).toContain("warning: token type 5 is computed in JavaScript");
    expect(falls.err).toContain(REMEDY);
    const stays = await checked("{ tokenTypes: [5] }");
    expect(stays.err).toContain("warning: it would not start here");
    expect(stays.err).toContain(REMEDY);
  });
});

it("says nothing of what is computed natively, and of type 0x0002", () => {
  expect(voprfEngines({ tokenTypes: [2, 1], voprfEngine: "native" })).toEqual([
    { tokenType: 1, engine: expect.stringContaining("openssl") as string },
  ]);
});
