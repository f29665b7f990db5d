import { execFile, spawn } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, describe, expect, it } from "vitest";
import { loadEk, readEkCertificates } from "../../attest/agent/index.ts";
import { openTpm } from "../../attest/tss2/index.ts";
import { createManufacturerCa, openManufacturerCa, startSwtpm } from "../../swtpm/index.ts";
import { decodePem } from "../../swtpm/pem.ts";
import { codeOf, codeOfAsync } from "../support/reject.ts";
import { testNow, useSwtpm } from "../support/swtpm.ts";
import { tool } from "../support/tpm2-tools.ts";

const run = promisify(execFile);
const running = useSwtpm();
const folder = mkdtempSync(join(tmpdir(), "stile-test-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A process that ended stays visible as a zombie until its parent reaps it. */
function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 400 && !condition(); i += 1) await new Promise((r) => setTimeout(r, 5));
  expect(condition()).toBe(true);
}

describe("the manufacturer", () => {
  it.each(["rsa", "ecc"] as const)(
    "certifies an EK that openssl accepts: %s",
    async (algorithm) => {
      const tpm = await openTpm({ tcti: running.swtpm.tcti, maxPendingCalls: 4 });
      const [leaf, ...chain] = await readEkCertificates(tpm, algorithm);
      await tpm.close();
      expect(chain).toStrictEqual([running.ca.intermediate]);
      const paths = { root: running.ca.root, chain: running.ca.intermediate, leaf };
      for (const [name, der] of Object.entries(paths)) {
        writeFileSync(join(folder, `${name}.pem`), new X509Certificate(der).toString());
      }
      // -ignore_critical: openssl does not know the names of a TPM in a critical subjectAltName.
      const { stdout } = await run(
        "openssl",
        "verify -x509_strict -ignore_critical -CAfile root.pem -untrusted chain.pem leaf.pem".split(
          " ",
        ),
        { cwd: folder },
      );
      expect(stdout).toContain("leaf.pem: OK");
      const text = (
        await run("openssl", ["x509", "-noout", "-text", "-in", join(folder, "leaf.pem")])
      ).stdout;
      expect(text).toMatch(/Subject: *\n/);
      expect(text).toMatch(/Basic Constraints: critical\s+CA:FALSE/);
      expect(text).toMatch(/Extended Key Usage: \s+2\.23\.133\.8\.1/);
      expect(text).toMatch(
        /Subject Alternative Name: critical\s+DirName:.*2\.23\.133\.2\.1 ?= ?id:49424D00.*2\.23\.133\.2\.2 ?= ?swtpm.*2\.23\.133\.2\.3 ?= ?id:/,
      );
      expect(text).toMatch(
        algorithm === "rsa"
          ? /Key Usage: critical\s+Key Encipherment\n/
          : /Key Usage: critical\s+Key Agreement\n/,
      );
    },
  );

  it("is the same after it is opened again, also by two at once", async () => {
    const deps = { clock: () => testNow, folder: join(folder, "ca") };
    const [a, b] = await Promise.all([openManufacturerCa(deps), openManufacturerCa(deps)]);
    const again = await openManufacturerCa(deps);
    expect(b.rootPem).toBe(a.rootPem);
    expect(again.rootPem).toBe(a.rootPem);
    expect(
      new X509Certificate(again.intermediate).verify(new X509Certificate(a.root).publicKey),
    ).toBe(true);
  });

  it("rejects a file that is not one PEM block", () => {
    expect(codeOf(() => decodePem("nonsense", "CERTIFICATE"))).toBe("WIRE_BAD_ENCODING");
    const other = "-----BEGIN X-----\nAAAA\n-----END X-----\n";
    expect(codeOf(() => decodePem(other, "CERTIFICATE"))).toBe("WIRE_BAD_ENCODING");
  });
});

describe("a software TPM", () => {
  it("keeps its keys over a reset and loses what is loaded", async () => {
    const tpm = await openTpm({ tcti: running.swtpm.tcti, maxPendingCalls: 4 });
    const [certificate] = await readEkCertificates(tpm, "ecc");
    const before = await loadEk(tpm, "ecc", certificate);
    await running.swtpm.reset();
    expect(await tpm.handles(0x8000_0000)).toStrictEqual([]);
    const after = await loadEk(tpm, "ecc", certificate);
    expect(after.name).toStrictEqual(before.name);
    await tpm.flush(after);
    await tpm.close();
  });

  it("has the RSA EK at the handle of the TCG, as tpm2-tools sees it", async () => {
    const file = join(folder, "ek.pub");
    await tool(
      running.swtpm.tcti,
      "tpm2_readpublic",
      "-Q",
      "-c",
      "0x81010001",
      "-f",
      "pem",
      "-o",
      file,
    );
    const nv = await tool(running.swtpm.tcti, "tpm2_nvread", "-C", "o", "0x01c00002");
    const key = new X509Certificate(nv).publicKey.export({ type: "spki", format: "pem" });
    expect(readFileSync(file, "utf8")).toBe(key);
  });

  it("keeps its state in a folder, with a long path, and is not provisioned twice", async () => {
    const stateDir = join(folder, "a-long-name".repeat(12), "tpm");
    const ca = await createManufacturerCa({ clock: () => testNow });
    const read = async (tcti: string): Promise<Uint8Array> => {
      const tpm = await openTpm({ tcti, maxPendingCalls: 1 });
      const [certificate] = await readEkCertificates(tpm, "ecc");
      await tpm.close();
      return certificate;
    };
    const first = await startSwtpm({ ca, stateDir, ekAlgorithms: ["ecc"] });
    const before = await read(first.tcti);
    await first.kill();
    const second = await startSwtpm({ ca, stateDir, ekAlgorithms: ["ecc"] });
    expect(await read(second.tcti)).toStrictEqual(before);
    const used = await codeOfAsync(() => startSwtpm({ ca, stateDir, ekAlgorithms: [] }));
    expect(used).toBe("SWTPM_FAILED");
    await second.stop();
    await first.stop();
    expect(existsSync(stateDir)).toBe(true);
    const other = await createManufacturerCa({ clock: () => testNow });
    const third = await startSwtpm({ ca: other, stateDir, ekAlgorithms: ["ecc"] });
    expect(await read(third.tcti)).not.toStrictEqual(before);
    await third.stop();
  });

  it("runs eight at once, each with an EK of its own, and removes what it made", async () => {
    const tpms = await Promise.all(
      Array.from({ length: 8 }, () => startSwtpm({ ca: running.ca, ekAlgorithms: ["ecc"] })),
    );
    const certificates = await Promise.all(
      tpms.map(({ tcti }) => tool(tcti, "tpm2_nvread", "-C", "o", "0x01c0000a")),
    );
    expect(new Set(certificates.map((der) => der.toString("hex"))).size).toBe(8);
    await Promise.all(tpms.map((tpm) => tpm.stop()));
    for (const tpm of tpms) {
      expect(isRunning(tpm.pid)).toBe(false);
      expect(existsSync(tpm.stateDir)).toBe(false);
      expect(existsSync(tpm.tcti.replace("swtpm:path=", ""))).toBe(false);
    }
  });

  it("rejects a state folder that cannot be used", async () => {
    const file = join(folder, "file");
    writeFileSync(file, "");
    await expect(startSwtpm({ ca: running.ca, stateDir: join(folder, "a,b") })).rejects.toThrow(
      RangeError,
    );
    const broken = join(folder, "broken");
    mkdirSync(broken);
    writeFileSync(join(broken, "tpm2-00.permall"), "no state");
    expect(await codeOfAsync(() => startSwtpm({ ca: running.ca, stateDir: broken }))).toBe(
      "SWTPM_FAILED",
    );
  });

  it("rejects a reset when it has been killed", async () => {
    const tpm = await startSwtpm({ ca: running.ca, ekAlgorithms: [] });
    await tpm.kill();
    expect(await codeOfAsync(() => tpm.reset())).toBe("SWTPM_FAILED");
    await tpm.restart();
    await tpm.reset();
    await tpm.stop();
    await tpm.stop();
  });
});

describe("npm run swtpm", () => {
  const main = join(import.meta.dirname, "..", "..", "swtpm", "main.ts");

  async function start(
    ...words: string[]
  ): Promise<{ facts: Record<string, unknown>; child: ReturnType<typeof spawn> }> {
    const child = spawn(process.execPath, [main, "--json", ...words], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const line = await new Promise<string>((settle) =>
      child.stdout.once("data", (data: Buffer) => settle(data.toString())),
    );
    return { facts: JSON.parse(line) as Record<string, unknown>, child };
  }

  it("prints how to reach the TPM and ends cleanly at an interrupt", async () => {
    const { facts, child } = await start("--state", join(folder, "main"));
    expect(await tool(String(facts["tcti"]), "tpm2_getrandom", "--hex", "4")).toHaveLength(8);
    expect(readFileSync(String(facts["rootCertificate"]), "utf8")).toContain("BEGIN CERTIFICATE");
    const exited = new Promise((settle) => child.once("exit", settle));
    child.kill("SIGINT");
    expect(await exited).toBe(0);
    await until(() => !isRunning(Number(facts["pid"])));
  });

  it("takes the TPM with it when it is killed, and the next start cleans up", async () => {
    const { facts, child } = await start();
    expect(isRunning(Number(facts["pid"]))).toBe(true);
    child.kill("SIGKILL");
    await until(() => !isRunning(Number(facts["pid"])));
    await until(() => child.exitCode !== null || child.signalCode !== null);
    expect(existsSync(String(facts["stateDir"]))).toBe(true);
    const next = await startSwtpm({ ca: running.ca, ekAlgorithms: [] });
    expect(existsSync(String(facts["stateDir"]))).toBe(false);
    await next.stop();
  });

  it("rejects an unknown option with the usage", async () => {
    const failure = run(process.execPath, [main, "--nonsense"]);
    await expect(failure).rejects.toMatchObject({
      code: 1,
      stderr: expect.stringContaining("Usage:") as string,
    });
  });
});
