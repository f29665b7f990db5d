/** `stile verify` as an operator uses it: real logs, tpm2-tools' files, exit codes, both outputs. */
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readEkCertificates } from "../../attest/agent/index.ts";
import { parseEventLog } from "../../attest/eventlog/index.ts";
import { openTpm } from "../../attest/tss2/index.ts";
import { readShared, readSharedJson, sharedMissing } from "../support/shared.ts";
import { useSwtpm } from "../support/swtpm.ts";
import { tool } from "../support/tpm2-tools.ts";
import { openTpmAuthenticator } from "../support/tpm-authenticator.ts";

const folder = mkdtempSync(join(tmpdir(), "stile-verify-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const at = (name: string): string => join(folder, name);
function file(name: string, content: string | Uint8Array): string {
  writeFileSync(at(name), content);
  return at(name);
}

interface Outcome {
  readonly status: number;
  readonly out: string;
  readonly err: string;
}
function verify(...words: string[]): Promise<Outcome> {
  const main = join(import.meta.dirname, "../../service/cli/main.ts");
  return new Promise((resolve) => {
    execFile(process.execPath, [main, "verify", ...words], (error, out, err) => {
      const code = (error as { code?: unknown } | null)?.code;
      resolve({ status: typeof code === "number" ? code : 0, out, err });
    });
  });
}
const jsonOf = ({ out }: Outcome): Record<string, unknown> =>
  JSON.parse(out) as Record<string, unknown>;

describe("a wrong use", () => {
  it.each([
    [[]],
    [["nothing"]],
    [["eventlog"]],
    [["eventlog", "/does/not/exist", "--pcrs", "x"]],
    [["ima", "/dev/null", "--form", "xml", "--pcrs", "x"]],
    [["ek"]],
    [["ek", "/dev/null", "--roots", "/dev/null", "--at", "yesterday"]],
    [["ek", "/dev/null", "--roots", "/dev/null", "--accept-oddity", "anything"]],
    [["quote", "--unknown"]],
    [["webauthn", "/dev/null"]],
  ])("%j ends with 2 and one message", async (words) => {
    const { status, err, out } = await verify(...words);
    expect({ status, out }).toEqual({ status: 2, out: "" });
    expect(err).toMatch(/^stile: /);
    expect(err).not.toMatch(/\n +at /);
  });
});

describe.skipIf(sharedMissing)("eventlog and ima", () => {
  const banks = (name: string): Record<string, Record<string, string>> =>
    (
      readSharedJson("corpora/eventlogs/expected.json") as Record<
        string,
        { pcrBanks: Record<string, Record<string, string>> }
      >
    )[name]!.pcrBanks;

  it("says of a real boot what is covered, as JSON and in words", async () => {
    const log = file("rhel8.bin", readShared("corpora/eventlogs/rhel8-uefi.bin"));
    const pcrs = file("pcrs.json", JSON.stringify(banks("rhel8-uefi.bin")));
    const json = await verify("eventlog", log, "--pcrs", pcrs, "--json", "--events");
    expect(json.status).toBe(0);
    expect(jsonOf(json)).toMatchObject({
      verdict: "verified",
      secureBoot: {
        state: "on",
        databases: [{ name: "PK", entries: 1, covered: true }, {}, {}, {}],
      },
      uncoveredPcrs: [],
      findings: [],
    });
    expect(jsonOf(json)["events"]).toHaveLength(
      parseEventLog(readShared("corpora/eventlogs/rhel8-uefi.bin")).events.length,
    );
    const words = await verify("eventlog", log, "--pcrs", pcrs);
    expect(words.out).toContain("verdict: verified\n");
    expect(words.out).toContain("  state: on\n");
    expect(words.out).toContain("name KEK, entries 1, covered true");
  });

  it("refuses a log that is not of these PCRs, with its code and exit code 1", async () => {
    const log = file("rhel8.bin", readShared("corpora/eventlogs/rhel8-uefi.bin"));
    const pcrs = file("pcrs.json", JSON.stringify(banks("ubuntu-2104-no-dbx.bin")));
    const { status, out } = await verify("eventlog", log, "--pcrs", pcrs, "--json");
    expect(status).toBe(1);
    expect(JSON.parse(out)).toMatchObject({
      verdict: "refused",
      code: "ATTEST_EVENT_LOG_MISMATCH",
    });
  });

  it("refuses an IMA log that PCR 10 does not know, and bad PCR files", async () => {
    const log = file("ima", readShared("corpora/ima/ima-log-sha256"));
    const pcrs = file("pcr10.json", JSON.stringify({ sha256: { 10: "11".repeat(32) } }));
    const words = ["ima", log, "--form", "ascii", "--pcrs"];
    expect((await verify(...words, pcrs)).out).toContain("code: ATTEST_EVENT_LOG_MISMATCH");
    const none = file("none.json", JSON.stringify({ sha256: { 10: "00".repeat(32) } }));
    expect((await verify(...words, none)).out).toContain("laterEntries: 2");
    for (const bad of ["[1]", '{"sm3":{}}', '{"sha256":{"x":"00"}}', '{"sha256":{"1":"0"}}', "{"]) {
      expect((await verify(...words, file("bad.json", bad))).status, bad).toBe(2);
    }
  });
});

describe("with a TPM", () => {
  const running = useSwtpm(["ecc"]);
  /** The EK certificate and its intermediates. */
  let chain: string[];

  beforeAll(async () => {
    const { ca, swtpm } = running;
    file("root.pem", ca.rootPem);
    const run = (name: string, ...words: string[]): Promise<Buffer> =>
      tool(swtpm.tcti, name, ...words);
    await run("tpm2_createek", "-Q", "-c", at("ek.ctx"), "-G", "ecc", "-u", at("ek.pub"));
    await run(
      "tpm2_createak",
      "-Q",
      "-C",
      at("ek.ctx"),
      "-c",
      at("ak.ctx"),
      "-G",
      "ecc",
      "-g",
      "sha256",
      "-s",
      "ecdsa",
      "-u",
      at("ak.pub"),
    );
    await run("tpm2_flushcontext", "-t");
    await run(
      "tpm2_quote",
      "-Q",
      "-c",
      at("ak.ctx"),
      "-l",
      "sha256:0,1,2,7",
      "-q",
      "00112233",
      "-m",
      at("message"),
      "-s",
      at("signature"),
    );
    await run("tpm2_flushcontext", "-t");
    const values = await run("tpm2_pcrread", "sha256:0,1,2,7");
    const pcrs = Object.fromEntries(
      [...values.toString().matchAll(/(\d+) *: *0x([0-9A-F]+)/g)].map(([, pcr, hex]) => [pcr, hex]),
    );
    file("quoted.json", JSON.stringify({ sha256: pcrs }));
    const tpm = await openTpm({ tcti: swtpm.tcti, maxPendingCalls: 8 });
    chain = (await readEkCertificates(tpm, "ecc")).map((der, i) => file(`ek-${i}.der`, der));
    await tpm.close();
  });

  it("verifies the EK certificate, with and without the key itself", async () => {
    const when = ["--at", "2026-11-23"];
    const words = ["ek", ...chain, "--roots", at("root.pem"), ...when, "--json"];
    const alone = await verify(...words);
    expect(alone.status, alone.out).toBe(0);
    expect(jsonOf(alone)).toMatchObject({
      verdict: "verified",
      keyCompared: false,
      revocation: "unknown",
      subjectKeyType: "ecc",
    });
    expect(jsonOf(await verify(...words, "--public", at("ek.pub")))["keyCompared"]).toBe(true);
    const other = await verify(...words, "--public", at("ak.pub"));
    expect(other.status).toBe(1);
    expect(jsonOf(await verify(...words, "--require-crl"))["code"]).toBe(
      "ATTEST_REVOCATION_UNKNOWN",
    );
  });

  it("verifies a quote of tpm2_quote, and refuses it for another nonce or PCR", async () => {
    const words = (nonce: string, pcrs: string): string[] => [
      "quote",
      "--ak",
      at("ak.pub"),
      "--message",
      at("message"),
      "--signature",
      at("signature"),
      "--pcrs",
      pcrs,
      "--nonce",
      nonce,
      "--json",
    ];
    const good = await verify(...words("00112233", at("quoted.json")));
    expect(good.status, good.out).toBe(0);
    expect(jsonOf(good)["pcrs"]).toEqual(["sha256:0", "sha256:1", "sha256:2", "sha256:7"]);
    expect(jsonOf(await verify(...words("00112234", at("quoted.json"))))["code"]).toBe(
      "ATTEST_NONCE_MISMATCH",
    );
    const changed = readFileSync(at("quoted.json"), "utf8").replace(/"0":"00/, '"0":"01');
    expect(changed).not.toBe(readFileSync(at("quoted.json"), "utf8"));
    expect(jsonOf(await verify(...words("00112233", file("changed.json", changed))))["code"]).toBe(
      "ATTEST_PCR_DIGEST_MISMATCH",
    );
  });

  it("verifies a WebAuthn registration of a TPM, and refuses another origin", async () => {
    const authenticator = await openTpmAuthenticator({ tcti: running.swtpm.tcti });
    const challenge = new Uint8Array(32).fill(5);
    const registration = await authenticator.register({
      challenge,
      origin: "https://stile.example",
      rpId: "stile.example",
    });
    await authenticator.close();
    file("anchor.pem", authenticator.rootPem);
    const words = (origin: string): string[] => [
      "webauthn",
      file("registration.json", JSON.stringify(registration)),
      "--challenge",
      Buffer.from(challenge).toString("base64url"),
      "--origin",
      origin,
      "--rp-id",
      "stile.example",
      "--anchor",
      `tpm=${at("anchor.pem")}`,
      "--json",
    ];
    const good = await verify(...words("https://stile.example"));
    expect(good.status, good.out).toBe(0);
    expect(jsonOf(good)["attestation"]).toMatchObject({ format: "tpm", trust: "anchored" });
    expect((await verify(...words("https://other.example"))).status).toBe(1);
  });
});
