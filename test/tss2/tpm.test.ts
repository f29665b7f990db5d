import { verify } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  akTemplate,
  deviceKeyTemplate,
  ekTemplate,
  publicKeyOf,
} from "../../attest/agent/index.ts";
import { openTpm, responseCodeOf, type Tpm, TPMA_NV } from "../../attest/tss2/index.ts";
import { decodeHex, Reader } from "../../wire/index.ts";
import { codeOfAsync } from "../support/reject.ts";
import { useSwtpm } from "../support/swtpm.ts";
import { tool } from "../support/tpm2-tools.ts";

const PCRS_0_TO_7 = decodeHex("00000001" + "000b" + "03" + "ff0000");
const NV_INDEX = 0x0150_0000;
const NV_ATTRIBUTES =
  TPMA_NV.PPWRITE | TPMA_NV.PLATFORMCREATE | TPMA_NV.OWNERREAD | TPMA_NV.AUTHREAD | TPMA_NV.NO_DA;

const running = useSwtpm([]);
let tpm: Tpm;
beforeAll(async () => {
  tpm = await openTpm({ tcti: running.swtpm.tcti, maxPendingCalls: 64 });
});
afterAll(() => tpm.close());

describe("a TPM through tpm2-tss", () => {
  it("gives as many random bytes as are asked for, and others each time", async () => {
    const [a, b] = [await tpm.getRandom(1000), await tpm.getRandom(1000)];
    expect(a.length).toBe(1000);
    expect(a).not.toStrictEqual(b);
    expect(new Set(a).size).toBeGreaterThan(200);
    expect((await tpm.getRandom(0)).length).toBe(0);
  });

  it("tests itself and is started already", async () => {
    await expect(tpm.selfTest()).resolves.toBeUndefined();
    await expect(tpm.startup()).resolves.toBeUndefined();
  });

  it("derives the same primary from the same template, and another from another", async () => {
    const first = await tpm.createPrimary("endorsement", akTemplate());
    const again = await tpm.createPrimary("endorsement", akTemplate());
    const other = await tpm.createPrimary("endorsement", deviceKeyTemplate());
    expect(again.name).toStrictEqual(first.name);
    expect(other.name).not.toStrictEqual(first.name);
    expect(await tpm.readPublic(first)).toStrictEqual(first.publicArea);
    expect(await tpm.handles(0x8000_0000)).toHaveLength(3);
    for (const key of [first, again, other]) await tpm.flush(key);
    expect(await tpm.handles(0x8000_0000)).toStrictEqual([]);
  });

  it("signs so that node:crypto verifies", async () => {
    const key = await tpm.createPrimary("owner", deviceKeyTemplate());
    const digest = decodeHex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    const reader = new Reader(await tpm.sign(key, digest), "TPMT_SIGNATURE");
    expect([reader.u16("sigAlg"), reader.u16("hash")]).toStrictEqual([0x0018, 0x000b]);
    const parts = [reader.vec16("r", 1, 32), reader.vec16("s", 1, 32)];
    const raw = Buffer.concat(
      parts.map((part) => Buffer.concat([Buffer.alloc(32 - part.length), part])),
    );
    const publicKey = publicKeyOf(key.publicArea);
    expect(
      verify("sha256", Buffer.from("abc"), { key: publicKey, dsaEncoding: "ieee-p1363" }, raw),
    ).toBe(true);
    await tpm.flush(key);
  });

  it("makes a key persistent, finds it and evicts it", async () => {
    const key = await tpm.createPrimary("owner", deviceKeyTemplate());
    const persistent = await tpm.makePersistent(key, 0x8100_0042);
    expect(await tpm.handles(0x8100_0000)).toStrictEqual([0x8100_0042]);
    const found = await tpm.loadHandle(0x8100_0042);
    expect(found?.name).toStrictEqual(key.name);
    await tpm.evict(persistent);
    expect(await tpm.loadHandle(0x8100_0042)).toBeUndefined();
    await tpm.flush(key);
  });

  it("stores NV data of several chunks that tpm2-tools reads", async () => {
    const data = Uint8Array.from({ length: 1301 }, (_, i) => i & 0xff);
    await tpm.nvStore(NV_INDEX, data, NV_ATTRIBUTES);
    expect(await tpm.nvRead(NV_INDEX)).toStrictEqual(data);
    const theirs = await tool(running.swtpm.tcti, "tpm2_nvread", "-C", "o", "0x01500000");
    expect(new Uint8Array(theirs)).toStrictEqual(data);
    await tpm.nvStore(NV_INDEX, data.subarray(0, 3), NV_ATTRIBUTES);
    expect((await tpm.nvRead(NV_INDEX))?.length).toBe(3);
    await tpm.nvUndefine(NV_INDEX);
    expect(await tpm.nvRead(NV_INDEX)).toBeUndefined();
  });

  it("reads all 24 PCRs as tpm2-tools does, after an extend", async () => {
    await tpm.pcrExtend(16, "sha256", new Uint8Array(32).fill(5));
    const pcrs = Array.from({ length: 24 }, (_, i) => i);
    const values = await tpm.pcrRead("sha256", pcrs);
    const file = join(running.swtpm.stateDir, "pcrs");
    await tool(running.swtpm.tcti, "tpm2_pcrread", "sha256:all", "-o", file, "-Q");
    const theirs = readFileSync(file);
    expect(Buffer.concat(values).equals(theirs)).toBe(true);
    expect(values[16]).not.toStrictEqual(new Uint8Array(32));
    expect(values[17]).toStrictEqual(new Uint8Array(32).fill(0xff));
  });

  it("rejects a PCR that is not there and a digest of another size", async () => {
    await expect(tpm.pcrRead("sha256", [24])).rejects.toThrow(RangeError);
    await expect(tpm.pcrExtend(16, "sha256", new Uint8Array(20))).rejects.toThrow(RangeError);
  });

  it("rejects a template with bytes left over, without asking the TPM", async () => {
    const template = Buffer.concat([ekTemplate("ecc"), Buffer.alloc(1)]);
    expect(await codeOfAsync(() => tpm.createPrimary("owner", template))).toBe(
      "WIRE_TRAILING_BYTES",
    );
    const cut = ekTemplate("ecc").subarray(0, 20);
    expect(await codeOfAsync(() => tpm.createPrimary("owner", cut))).toBe("ATTEST_TSS_FAILED");
    expect((await tpm.getRandom(4)).length).toBe(4);
  });

  it("names function, code and text where the TPM refuses", async () => {
    const ak = await tpm.createPrimary("endorsement", akTemplate());
    // A restricted key signs no digest that the TPM did not make.
    const error: unknown = await tpm.sign(ak, new Uint8Array(32)).catch((cause: unknown) => cause);
    expect(String(error)).toMatch(/^StileError: Esys_Sign: TPM_RC_TICKET, tpm:parameter\(3\):/);
    expect(responseCodeOf(error)).toMatchObject({ layer: "tpm", name: "TPM_RC_TICKET" });
    await tpm.flush(ak);
  });

  it("ends the policy session of an activation that fails", async () => {
    const ak = await tpm.createPrimary("endorsement", akTemplate());
    const ek = await tpm.createPrimary("endorsement", ekTemplate("ecc"));
    const blob = decodeHex("0024" + "0020" + "00".repeat(32) + "0102");
    const secret = decodeHex("0002" + "0000");
    for (let i = 0; i < 8; i += 1) {
      expect(await codeOfAsync(() => tpm.activateCredential(ek, ak, blob, secret))).toMatch(
        /^(?:ATTEST_TSS_FAILED|WIRE_TRAILING_BYTES)$/,
      );
    }
    expect(await tpm.handles(0x0200_0000)).toStrictEqual([]);
    expect(await tpm.handles(0x0300_0000)).toStrictEqual([]);
    await tpm.flush(ek);
    await tpm.flush(ak);
  });

  it("quotes for 40 callers at once", async () => {
    const ak = await tpm.createPrimary("endorsement", akTemplate());
    const quotes = await Promise.all(
      Array.from({ length: 40 }, (_, i) => tpm.quote(ak, Uint8Array.of(i, 1, 2), PCRS_0_TO_7)),
    );
    quotes.forEach(({ attest }, i) =>
      expect(Buffer.from(attest).includes(Buffer.from([0, 3, i, 1, 2]))).toBe(true),
    );
    await tpm.flush(ak);
  });

  it("rejects calls beyond maxPendingCalls with ATTEST_TSS_BUSY and goes on", async () => {
    const codes = await Promise.all(
      Array.from({ length: 100 }, () => codeOfAsync(() => tpm.getRandom(8))),
    );
    expect(codes.filter((code) => code === "ATTEST_TSS_BUSY")).toHaveLength(36);
    expect((await tpm.getRandom(8)).length).toBe(8);
  });

  it("flushes what a dead process left behind", async () => {
    await tool(running.swtpm.tcti, "tpm2_createprimary", "-Q", "-C", "n");
    expect(await tpm.handles(0x8000_0000)).toHaveLength(1);
    await tpm.flushTransientObjects();
    expect(await tpm.handles(0x8000_0000)).toStrictEqual([]);
  });

  it("rejects the wrong authorisation of a hierarchy and takes the right one", async () => {
    await tool(running.swtpm.tcti, "tpm2_changeauth", "-c", "owner", "secret");
    const withAuth = await openTpm({
      tcti: running.swtpm.tcti,
      maxPendingCalls: 4,
      hierarchyAuth: { owner: Buffer.from("secret") },
    });
    const error: unknown = await tpm
      .createPrimary("owner", deviceKeyTemplate())
      .catch((cause: unknown) => cause);
    expect(responseCodeOf(error)?.name).toBe("TPM_RC_BAD_AUTH");
    await withAuth.flush(await withAuth.createPrimary("owner", deviceKeyTemplate()));
    await withAuth.close();
    await tool(running.swtpm.tcti, "tpm2_changeauth", "-c", "owner", "-p", "secret");
  });
});
