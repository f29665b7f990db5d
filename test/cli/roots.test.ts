/** `stile roots`, and a sidecar that reads only the bundle that was pinned. */
import { execFile } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createManufacturerCa } from "../../swtpm/index.ts";
import { codeOfAsync } from "../support/reject.ts";
import { startTestSidecar } from "../support/sidecar.ts";

const folder = mkdtempSync(join(tmpdir(), "stile-roots-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const at = (...names: string[]): string => join(folder, ...names);

interface Refreshed {
  readonly manufacturerRootsPin: { readonly version: string; readonly sha256: string };
  readonly anchors: number;
  readonly addedAnchors: readonly object[];
  readonly removedAnchors: readonly { readonly manufacturer: string }[];
  readonly skipped: readonly { readonly file: string }[];
}

function roots(...words: string[]): Promise<{ status: number; out: string }> {
  const main = join(import.meta.dirname, "../../service/cli/main.ts");
  return new Promise((resolve) => {
    execFile(process.execPath, [main, "roots", ...words], (error, out) => {
      const code = (error as { code?: unknown } | null)?.code;
      resolve({ status: typeof code === "number" ? code : 0, out });
    });
  });
}

async function refresh(out: string, ...words: string[]): Promise<Refreshed> {
  const { out: text, status } = await roots("refresh", ...words, "--out", out, "--json");
  expect(status).toBe(0);
  return JSON.parse(text) as Refreshed;
}

beforeAll(async () => {
  for (const name of ["Acme", "Bolt"]) {
    mkdirSync(at("published", name, "RootCA"), { recursive: true });
    const { rootPem } = await createManufacturerCa({ clock: Date.now });
    writeFileSync(at("published", name, "RootCA", "root.pem"), rootPem);
  }
  const { rootPem } = await createManufacturerCa({ clock: Date.now });
  writeFileSync(at("published", "Acme", "RootCA", "second.cer"), new X509Certificate(rootPem).raw);
  writeFileSync(at("published", "Bolt", "broken.der"), "no certificate");
  writeFileSync(at("published", "Bolt", "README.txt"), "no certificate either");
});

describe("roots refresh", () => {
  it("collects folders of manufacturers, tells what changed, and writes the same bytes again", async () => {
    const words = [at("published"), "--vendor", "Acme=id:41434D45"];
    const first = await refresh(at("a.json"), ...words, "--version", "1");
    expect(first).toMatchObject({ anchors: 3, removedAnchors: [] });
    expect(first.addedAnchors).toHaveLength(3);
    expect(first.skipped).toMatchObject([{ file: at("published", "Bolt", "broken.der") }]);
    const again = await refresh(at("a.json"), ...words, "--version", "1");
    expect(again).toMatchObject({ ...first, addedAnchors: [] });

    cpSync(at("published"), at("later"), { recursive: true });
    rmSync(at("later", "Bolt", "RootCA"), { recursive: true });
    const later = await refresh(at("a.json"), at("later"), "--version", "2");
    expect(later).toMatchObject({ addedAnchors: [], removedAnchors: [{ manufacturer: "Bolt" }] });
    const shown = await roots("show", at("a.json"), "--json");
    expect(JSON.parse(shown.out)).toMatchObject({
      manufacturerRootsPin: later.manufacturerRootsPin,
      manufacturers: [{ name: "Acme", anchors: 2 }],
    });
  });

  it("rejects what has no anchor, and leaves the file as it was", async () => {
    await refresh(at("kept.json"), at("published"), "--version", "1");
    const before = readFileSync(at("kept.json"));
    mkdirSync(at("empty"));
    const words = ["refresh", at("empty"), "--out", at("kept.json"), "--version", "2"];
    expect((await roots(...words)).status).toBe(1);
    expect(readFileSync(at("kept.json"))).toEqual(before);
    expect((await roots("refresh", at("published"))).status).toBe(2);
    expect((await roots("refresh", at("none"), "--out", "x", "--version", "1")).status).toBe(2);
  });
});

describe("a sidecar", () => {
  it("starts with the pinned bundle, and with no other", async () => {
    const file = at("pinned.json");
    const { manufacturerRootsPin } = await refresh(file, at("published"), "--version", "1");
    const start = (attester: object): Promise<string> =>
      codeOfAsync(async () => {
        const target = await startTestSidecar({ attester });
        await target.stop();
      });
    const manufacturerRootsFile = file;
    expect(await start({ manufacturerRootsFile, manufacturerRootsPin })).toBe("nothing was thrown");
    expect(await start({ manufacturerRootsFile })).toBe("SERVICE_CONFIG_INVALID");
    writeFileSync(file, readFileSync(file, "utf8").replace("Bolt", "Colt"));
    expect(await start({ manufacturerRootsFile, manufacturerRootsPin })).toBe(
      "SERVICE_CONFIG_INVALID",
    );
  });
});
