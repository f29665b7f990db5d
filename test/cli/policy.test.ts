/** `stile policy check` as an operator uses it: what is wrong with a file, and which rule decides. */
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { loadPolicy } from "../../service/policy/load.ts";
import { codeOfAsync } from "../support/reject.ts";

const folder = mkdtempSync(join(tmpdir(), "stile-policy-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
function file(name: string, content: string): string {
  writeFileSync(join(folder, name), content);
  return join(folder, name);
}

function check(...words: string[]): Promise<{ status: number; out: string; err: string }> {
  const main = join(import.meta.dirname, "../../service/cli/main.ts");
  return new Promise((resolve) => {
    execFile(process.execPath, [main, "policy", "check", ...words], (error, out, err) => {
      const code = (error as { code?: unknown } | null)?.code;
      resolve({ status: typeof code === "number" ? code : 0, out, err });
    });
  });
}

const WHOLE = `
id: urn:example:policy:7
allowSha1: false
pcrBanks:
  - { hash: sha256, pcrs: [0, 1, 2, 3, 4, 5, 6, 7, 11] }
  - { hash: sha384, pcrs: [7] }
referenceValues:
  - { hash: sha256, pcr: 11, value: ${"ab".repeat(32)} }
manufacturers: { allow: ["id:494E5443", "id:49465800"], deny: ["id:00000000"] }
acceptOddities: []
revocation: { mode: required }
firmware: { refuse: possible, ignore: [denial-of-service], oldest: { "id:494E5443": "600.7.0.0" } }
refuseClockFindings: [clock-went-back, clock-not-safe]
eventLog:
  mode: required
  secureBoot: "on"
  bootApplications: [${"cd".repeat(32)}]
  acceptFindings: [boot-application-unexpected]
  workarounds: []
classes:
  - { name: intel, manufacturers: ["id:494E5443"], secureBoot: "on", tokens: 200 }
  - { name: others, tokens: 20 }
`;
const FACTS = {
  manufacturer: "id:494E5443",
  firmwareVersion: "id:02580008",
  pcrValues: { sha256: { "11": "ab".repeat(32) } },
  eventLog: { secureBoot: "on", findings: [], bootApplications: ["cd".repeat(32)] },
};
const base = { pcrs: [0, 7], channelBinding: "required" } as const;

describe("policy check", () => {
  it("shows a policy as it will be applied", async () => {
    const { out, status } = await check(file("whole.yaml", WHOLE), "--json");
    expect(status).toBe(0);
    expect(JSON.parse(out)).toMatchObject({
      verdict: "valid",
      id: "urn:example:policy:7",
      channelBinding: "required",
      pcrBanks: [{ hash: "sha256" }, { hash: "sha384", pcrs: [7] }],
      eventLog: { bootApplications: ["cd".repeat(32)] },
      classes: [{ name: "intel", tokens: 200 }, { name: "others" }],
    });
  });

  it("says which rule decides", async () => {
    const policy = file("whole.yaml", WHOLE.replace("refuse: possible", "refuse: affected"));
    const affirmed = await check(
      policy,
      "--facts",
      file("f.json", JSON.stringify(FACTS)),
      "--json",
    );
    expect(affirmed.status).toBe(0);
    expect(JSON.parse(affirmed.out)).toMatchObject({
      verdict: "affirmed",
      deviceClass: { name: "intel", tokens: 200 },
    });
    const old = { ...FACTS, firmwareVersion: "id:02570008" };
    const refused = await check(policy, "--facts", file("f.json", JSON.stringify(old)));
    expect(refused.status).toBe(1);
    expect(refused.out).toContain("policy rule firmware: ");
  });

  it("rejects facts and uses that mean nothing", async () => {
    const policy = file("whole.yaml", WHOLE);
    const facts = file("f.json", JSON.stringify({ ...FACTS, secureBoot: "on" }));
    const { out, status } = await check(policy, "--facts", facts);
    expect(status).toBe(1);
    expect(out).toContain("unknown setting secureBoot");
    expect((await check()).status).toBe(2);
  });
});

describe("a policy file", () => {
  it.each([
    ["no name", "manufacturers: {}", "missing setting id"],
    ["an unknown rule", "id: urn:a:b\nsecureboot: on", "unknown setting secureboot"],
    ["an unknown word", "id: urn:a:b\nfirmware: { refuse: some }", "firmware.refuse"],
    ["a vendor's name", "id: urn:a:b\nmanufacturers: { allow: [Intel] }", "manufacturers.allow"],
    ["a key twice", "id: urn:a:b\nid: urn:a:c", "unique"],
    ["an alias", "id: &a urn:a:b\nclasses: [{ name: *a }]", "alias"],
    ["no map", "- 1", "object"],
    ["a log that no quote covers", "id: urn:a:b\neventLog: { mode: required }", "PCRs 0 to 7"],
    [
      "a reference value that no quote covers",
      `id: urn:a:b\nreferenceValues: [{ hash: sha256, pcr: 9, value: ${"00".repeat(32)} }]`,
      "referenceValues",
    ],
    ["a CRL that is not there", "id: urn:a:b\nrevocation: { crlFiles: [none.crl] }", "expected"],
  ])("rejects %s", async (_name, content, told) => {
    const path = file("bad.yaml", content);
    const load = (): Promise<unknown> => loadPolicy(path, base, undefined);
    expect(await codeOfAsync(load)).toBe("SERVICE_CONFIG_INVALID");
    await expect(load()).rejects.toThrow(new RegExp(told, "i"));
  });

  it("that is missing or too large stops the start", async () => {
    const missing = join(folder, "missing.yaml");
    expect(await codeOfAsync(() => loadPolicy(missing, base, undefined))).toBe(
      "SERVICE_CONFIG_INVALID",
    );
    const large = file("large.yaml", `id: urn:a:b\n${"# \n".repeat(400_000)}`);
    await expect(loadPolicy(large, base, undefined)).rejects.toThrow("too large");
  });
});
