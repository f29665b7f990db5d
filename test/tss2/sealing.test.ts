/** Sealing to a TPM, with tpm2-tools as the second opinion, up to a sidecar whose keys open by it. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { openTpm, responseCodeOf, type Tpm } from "../../attest/tss2/index.ts";
import { sealCommand } from "../../service/cli/seal.ts";
import { checkConfig } from "../../service/config/index.ts";
import { developmentCertificates } from "../../service/dev/certificates.ts";
import { type Sidecar, startSidecar } from "../../service/sidecar.ts";
import { sealPassphrase, unsealPassphrase } from "../../service/keystore/tpm-passphrase.ts";
import { codeOf, codeOfAsync } from "../support/reject.ts";
import { useSwtpm } from "../support/swtpm.ts";
import { tool } from "../support/tpm2-tools.ts";

const running = useSwtpm([]);
const other = useSwtpm([]);
const folder = mkdtempSync(join(tmpdir(), "stile-sealing-"));
const secret = Uint8Array.from({ length: 43 }, (_, i) => 0x40 + i);
let tpm: Tpm;
beforeAll(async () => {
  tpm = await openTpm({ tcti: running.swtpm.tcti, maxPendingCalls: 16 });
});
afterAll(async () => {
  await tpm.close();
  rmSync(folder, { recursive: true, force: true });
});

async function responseOf(work: () => Promise<unknown>): Promise<string | undefined> {
  try {
    await work();
  } catch (error) {
    return responseCodeOf(error)?.name;
  }
  return "nothing was thrown";
}

describe("a secret sealed to a TPM", () => {
  it("comes back, often, and leaves nothing loaded", async () => {
    const sealed = await tpm.seal(secret, [7, 16]);
    for (let i = 0; i < 8; i += 1) expect(await tpm.unseal(sealed, [7, 16])).toEqual(secret);
    expect(await tpm.handles(0x8000_0000)).toEqual([]);
    expect(await tpm.handles(0x0200_0000)).toEqual([]);
    const text = Buffer.concat([sealed.publicArea, sealed.privateArea]);
    expect(text.includes(Buffer.from(secret))).toBe(false);
  });

  it("is not given to a password, to other PCRs or after one of them has changed", async () => {
    const sealed = await tpm.seal(secret, [16]);
    expect(await responseOf(() => tpm.unseal(sealed, [7]))).toBe("TPM_RC_POLICY_FAIL");
    await tpm.pcrExtend(16, "sha256", new Uint8Array(32).fill(1));
    expect(await responseOf(() => tpm.unseal(sealed, [16]))).toBe("TPM_RC_POLICY_FAIL");
    expect(await tpm.unseal(await tpm.seal(secret, [16]), [16])).toEqual(secret);
  });

  it("is refused by another TPM, and where a bit of it was changed", async () => {
    const sealed = await tpm.seal(secret, [7]);
    const stranger = await openTpm({ tcti: other.swtpm.tcti, maxPendingCalls: 4 });
    expect(await responseOf(() => stranger.unseal(sealed, [7]))).toBe("TPM_RC_INTEGRITY");
    await stranger.close();
    const privateArea = sealed.privateArea.slice();
    privateArea[40] = (privateArea[40] ?? 0) ^ 1;
    expect(await responseOf(() => tpm.unseal({ ...sealed, privateArea }, [7]))).toBe(
      "TPM_RC_INTEGRITY",
    );
  });

  it("is opened by tpm2-tools under the same policy, and by no empty password", async () => {
    const sealed = await tpm.seal(secret, [7]);
    const at = (name: string): string => join(folder, name);
    writeFileSync(at("pub"), sealed.publicArea);
    writeFileSync(at("priv"), sealed.privateArea);
    // TPMS_ECC_POINT as tpm2-tss lays it out: two coordinates of 32 zeros.
    const coordinate = Buffer.alloc(130);
    coordinate.writeUInt16LE(32);
    writeFileSync(at("unique"), Buffer.concat([coordinate, coordinate]));
    const run = (name: string, ...words: readonly string[]): Promise<Buffer> =>
      tool(running.swtpm.tcti, name, ...words);
    const attributes =
      "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
    const template = ["-C", "o", "-G", "ecc256:null:aes128cfb", "-g", "sha256", "-a", attributes];
    await run("tpm2_createprimary", ...template, "-c", at("srk"), "-u", at("unique"));
    // Without a resource manager nobody else makes room.
    await run("tpm2_flushcontext", "-t");
    await run("tpm2_load", "-C", at("srk"), "-u", at("pub"), "-r", at("priv"), "-c", at("item"));
    await run("tpm2_flushcontext", "-t");
    await run("tpm2_unseal", "-c", at("item"), "-p", "pcr:sha256:7", "-o", at("out"));
    expect(Uint8Array.from(readFileSync(at("out")))).toEqual(secret);
    await expect(run("tpm2_unseal", "-c", at("item"))).rejects.toThrow();
    await tpm.flushTransientObjects();
  });

  it("rejects a secret that is too long, or no PCR", async () => {
    await expect(tpm.seal(new Uint8Array(129), [7])).rejects.toThrow(RangeError);
    await expect(tpm.seal(new Uint8Array(0), [7])).rejects.toThrow(RangeError);
    await expect(tpm.seal(secret, [])).rejects.toThrow(RangeError);
  });
});

describe("a sealed passphrase", () => {
  const sealing = (pcrs = [7]): { tcti: string; pcrs: number[] } => ({
    tcti: running.swtpm.tcti,
    pcrs,
  });

  it("is sealed by the command, and opened at a start", async () => {
    const stateDir = join(folder, "state");
    const file = join(folder, "stile.yaml");
    writeFileSync(file, JSON.stringify({ ...settings(), stateDir, tpmSealing: sealing() }));
    const out = vi.spyOn(process.stdout, "write").mockReturnValue(true);
    const err = vi.spyOn(process.stderr, "write").mockReturnValue(true);
    const status = await sealCommand(["--config", file, "--generate"]);
    const shown = String(out.mock.calls[0]?.[0]).trim();
    out.mockRestore();
    err.mockRestore();
    expect(status).toBe(0);
    expect(Buffer.from(await unsealPassphrase(stateDir, sealing())).toString()).toBe(shown);
    expect(readFileSync(join(stateDir, "tpm-sealed.json"), "utf8")).not.toContain(shown);
  });

  it("opens the keys of a sidecar, again after a restart, and not after the PCR has changed", async () => {
    const stateDir = join(folder, "sidecar");
    const { certificateFile, keyFile } = await developmentCertificates(folder, Date.now());
    const tpmSealing = sealing([16]);
    await sealPassphrase(stateDir, tpmSealing, secret);
    const config = checkConfig({
      ...settings(),
      stateDir,
      tpmSealing,
      tls: { certificateFile, keyFile },
      listen: { host: "127.0.0.1", port: 0 },
      operator: { listen: `unix:${join(folder, "operator")}` },
    });
    const log = { write: (): void => undefined, flush: (): void => undefined };
    const start = (): Promise<Sidecar> => startSidecar(config, { clock: Date.now, log });
    await (await start()).stop();
    const keys = readdirSync(join(stateDir, "issuer-keys"));
    expect(keys).toHaveLength(1);
    await (await start()).stop();
    expect(readdirSync(join(stateDir, "issuer-keys"))).toEqual(keys);
    await tpm.pcrExtend(16, "sha256", new Uint8Array(32).fill(3));
    expect(await codeOfAsync(start)).toBe("TOKEN_KEY_STORE_INVALID");
    await sealPassphrase(stateDir, tpmSealing, secret);
    await (await start()).stop();
    expect(readdirSync(join(stateDir, "issuer-keys"))).toEqual(keys);
  });

  it("rejects what cannot be opened, and says why", async () => {
    const stateDir = join(folder, "refused");
    const reason = async (pcrs?: number[], dir = stateDir): Promise<string> => {
      const work = (): Promise<unknown> => unsealPassphrase(dir, sealing(pcrs));
      expect(await codeOfAsync(work)).toBe("TOKEN_KEY_STORE_INVALID");
      return work().then(
        () => "",
        (error: unknown) => String(error),
      );
    };
    expect(await reason()).toContain("run stile seal");
    await sealPassphrase(stateDir, sealing([16]), secret);
    expect(await reason([7])).toContain("other PCRs");
    await tpm.pcrExtend(16, "sha256", new Uint8Array(32).fill(2));
    expect(await reason([16])).toContain("another value");
    writeFileSync(join(stateDir, "tpm-sealed.json"), "{}");
    expect(await reason()).toContain("damaged");
    const long = new Uint8Array(129).fill(0x41);
    expect(await codeOfAsync(() => sealPassphrase(stateDir, sealing(), long))).toBe(
      "SERVICE_CONFIG_INVALID",
    );
    const nowhere = { tcti: "swtpm:path=/nowhere", pcrs: [7] };
    expect(await codeOfAsync(() => sealPassphrase(stateDir, nowhere, secret))).toBe(
      "ATTEST_TSS_FAILED",
    );
  });

  it("rejects settings with both, or none", () => {
    const both = { ...settings(), passphraseFile: "p", tpmSealing: {} };
    for (const wrong of [settings(), both]) {
      expect(codeOf(() => checkConfig(wrong))).toBe("SERVICE_CONFIG_INVALID");
    }
    expect(checkConfig({ ...settings(), tpmSealing: {} }).tpmSealing?.pcrs).toEqual([7]);
  });
});

function settings(): object {
  return {
    role: "issuer",
    publicUrl: "https://issuer.example",
    tls: { certificateFile: "c", keyFile: "k" },
    issuer: { attesters: [{ name: "a", certificateSha256: ["00".repeat(32)] }] },
  };
}
