/** Rotation of the clearance key as an operator does it, at sidecars that serve meanwhile. */
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { exchange } from "../../service/agent/exchange.ts";
import { clearanceKeyCommand } from "../../service/cli/clearance-key.ts";
import type { ClearanceKeyView } from "../../service/edge/clearance-keys.ts";
import { CLEARANCE_KEYS, openKeystore, openSecrets } from "../../service/keystore/index.ts";
import { startChildSidecar } from "../support/child-sidecar.ts";
import { freePort } from "../support/free-port.ts";
import { openMint } from "../support/mint.ts";
import { codeOfAsync } from "../support/reject.ts";
import { startTestSidecar, type TestSidecar } from "../support/sidecar.ts";
import { parseWwwAuthenticate } from "../../tokens/index.ts";

const DAY = 86_400_000;

let target: TestSidecar;
beforeAll(async () => {
  target = await startTestSidecar();
});
afterAll(() => target.stop());

/** What `stile clearance-key` says, and its exit code. */
async function command(
  operatorAddress: string,
  ...words: readonly string[]
): Promise<{ readonly code: number; readonly said: string }> {
  const said: string[] = [];
  const spies = [process.stdout, process.stderr].map((stream) =>
    vi.spyOn(stream, "write").mockImplementation((text) => said.push(String(text)) > 0),
  );
  try {
    const { host } = new URL(operatorAddress);
    const code = await clearanceKeyCommand([...words, "--operator", host]);
    return { code, said: said.join("") };
  } finally {
    for (const spy of spies) spy.mockRestore();
  }
}

async function keysOf(
  operatorAddress: string,
  ...words: readonly string[]
): Promise<ClearanceKeyView[]> {
  const { code, said } = await command(operatorAddress, ...words, "--json");
  expect(code, said).toBe(0);
  return (JSON.parse(said) as { readonly keys: ClearanceKeyView[] }).keys;
}

async function published({ get }: Pick<TestSidecar, "get">): Promise<string[]> {
  const answer = await get("/.well-known/jwks.json");
  const { keys } = JSON.parse(Buffer.from(answer.body).toString()) as { keys: { kid: string }[] };
  return keys.map(({ kid }) => kid);
}

async function newCookie({ get, mint }: TestSidecar): Promise<string> {
  const admitted = await get("/", { authorization: await mint() });
  return admitted.headers["set-cookie"]?.[0]?.split(";")[0] ?? "";
}

async function statusOf({ get }: Pick<TestSidecar, "get">, cookie: string): Promise<number> {
  return (await get("/", { cookie })).status;
}

describe("the key of clearances", () => {
  it("is rotated: published a day ahead, then it signs, and the old one ends", async () => {
    const { operatorAddress } = target.sidecar;
    const [first] = await keysOf(operatorAddress, "list");
    const before = await newCookie(target);
    const [next] = await keysOf(operatorAddress, "rotate");
    expect([next?.state, next?.signs, first?.signs]).toEqual(["published", false, true]);
    expect(await published(target)).toEqual(expect.arrayContaining([first?.kid, next?.kid]));
    expect(await command(operatorAddress, "rotate")).toMatchObject({
      code: 1,
      said: expect.stringContaining("published already") as string,
    });
    target.clock.offsetMs += DAY - 60_000;
    const last = await newCookie(target);
    expect(await statusOf(target, before)).toBe(401);
    target.clock.offsetMs += 60_000;
    const after = await newCookie(target);
    expect([await statusOf(target, last), await statusOf(target, after)]).toEqual([200, 200]);
    const [signing, old] = await keysOf(operatorAddress, "list");
    expect([signing?.kid, signing?.signs, old?.kid]).toEqual([next?.kid, true, first?.kid]);
    const metrics = await (await fetch(`${operatorAddress}/metrics`)).text();
    expect(metrics).toContain('stile_clearance_keys{state="active"} 2');
    target.clock.offsetMs += 45 * 60_000;
    target.sidecar.reloadCertificates();
    const folder = join(target.dir, "state", "clearance-keys");
    await expect.poll(() => readdirSync(folder).length).toBe(1);
    expect(await published(target)).not.toContain(first?.kid);
  });

  it("is revoked: refused at once, wherever it is asked about, and another signs", async () => {
    const { operatorAddress } = target.sidecar;
    const cookie = await newCookie(target);
    expect(await statusOf(target, cookie)).toBe(200);
    const [key] = await keysOf(operatorAddress, "list");
    const [next] = await keysOf(operatorAddress, "revoke", key?.kid ?? "");
    expect([next?.signs, next?.kid === key?.kid]).toEqual([true, false]);
    expect(await statusOf(target, cookie)).toBe(401);
    expect(await published(target)).not.toContain(key?.kid);
    expect(await statusOf(target, await newCookie(target))).toBe(200);
    expect(await command(operatorAddress, "revoke", key?.kid ?? "")).toMatchObject({ code: 1 });
    expect(await command(operatorAddress, "revoke", `-${"m".repeat(21)}`)).toMatchObject({
      code: 1,
    });
    await expect(command(operatorAddress, "revoke", "../keys")).rejects.toThrow("identifier");
    await expect(command(operatorAddress, "turn")).rejects.toThrow("expected");
  });

  it("is in the JWKS for longer than that may be cached before it signs", async () => {
    const { headers } = await target.get("/.well-known/jwks.json");
    const maxAge = Number(/max-age=(\d+)/.exec(headers["cache-control"] ?? "")?.[1]);
    const edge = {
      clearanceKeys: { activeSeconds: 86_400, publishedSeconds: 2 * maxAge, copied: false },
    };
    await (await startTestSidecar({ edge })).stop();
    const tooShort = { ...edge.clearanceKeys, publishedSeconds: 2 * maxAge - 1 };
    const start = (): Promise<unknown> => startTestSidecar({ edge: { clearanceKeys: tooShort } });
    expect(await codeOfAsync(start)).toBe("SERVICE_CONFIG_INVALID");
  });
});

describe("edges that share the keys of clearances", () => {
  it("take what one of them makes, and forget what it revokes, once it is copied", async () => {
    const clearanceKeys = { activeSeconds: 30 * 86_400, publishedSeconds: 600, copied: true };
    const maker = await startTestSidecar();
    const twin = await startTestSidecar({ twinOf: maker, edge: { clearanceKeys } });
    const copy = async (): Promise<void> => {
      const [from = "", to = ""] = [maker, twin].map(({ dir }) =>
        join(dir, "state", "clearance-keys"),
      );
      for (const name of readdirSync(to)) rmSync(join(to, name));
      cpSync(from, to, { recursive: true });
      twin.sidecar.reloadCertificates();
    };
    try {
      const [key] = await keysOf(maker.sidecar.operatorAddress, "list");
      expect(await published(twin)).toContain(key?.kid);
      expect(await command(twin.sidecar.operatorAddress, "rotate")).toMatchObject({
        code: 1,
        said: expect.stringContaining("not this sidecar's") as string,
      });
      await keysOf(maker.sidecar.operatorAddress, "revoke", key?.kid ?? "");
      await copy();
      await expect.poll(() => published(twin)).not.toContain(key?.kid);
      const [next] = await keysOf(maker.sidecar.operatorAddress, "list");
      expect(await published(twin)).toContain(next?.kid);
    } finally {
      await twin.stop();
      await maker.stop();
    }
  });
});

describe("an installation whose clearance key had no life of its own", () => {
  it("keeps it, with the clearances that it has signed", async () => {
    let kid = "";
    const upgraded = await startTestSidecar({
      twinOf: target,
      prepare: async (dir) => {
        // As it was: one secret, and no store of keys.
        const passphrase = Uint8Array.from(readFileSync(join(dir, "passphrase")));
        const folder = join(dir, "state", "clearance-keys");
        const store = await openKeystore({ dir: folder, passphrase, kind: CLEARANCE_KEYS });
        const [stored] = await store.load();
        if (stored === undefined) throw new Error("the other sidecar has no key");
        kid = Buffer.from(stored.record.tokenKeyId.subarray(0, 16)).toString("base64url");
        rmSync(folder, { recursive: true });
        const secrets = await openSecrets({ dir: join(dir, "state", "secrets"), passphrase });
        const pkcs8 = stored.privateKey.export({ format: "der", type: "pkcs8" });
        await secrets.getOrCreate("clearance", () => pkcs8);
      },
    });
    try {
      expect(await published(upgraded)).toContain(kid);
      expect(readdirSync(join(upgraded.dir, "state", "secrets"))).not.toContain("clearance.json");
    } finally {
      await upgraded.stop();
    }
  });
});

describe("kill -9", { timeout: 180_000 }, () => {
  it("behind a rotation, and behind a revocation, loses no key and brings none back", async () => {
    const dir = mkdtempSync(join(tmpdir(), "stile-clearance-kill-"));
    const port = await freePort();
    let child = await startChildSidecar(dir, port);
    const ca = readFileSync(join(dir, "dev", "tls", "ca.pem"), "utf8");
    const get = (
      path: string,
      headers: Record<string, string> = {},
    ): ReturnType<TestSidecar["get"]> =>
      exchange({ url: `https://localhost:${port}${path}`, method: "GET", headers, ca });
    const killed = async (): Promise<void> => {
      await child.end("SIGKILL");
      child = await startChildSidecar(dir, port);
    };
    try {
      const mint = await openMint(join(dir, "dev"));
      const [asked] = parseWwwAuthenticate((await get("/")).headers["www-authenticate"] ?? "");
      const authorization = mint.authorization(asked?.challenge ?? new Uint8Array());
      const admitted = await get("/", { authorization });
      const cookie = admitted.headers["set-cookie"]?.[0]?.split(";")[0] ?? "";
      const [, first] = await keysOf(child.operatorAddress, "rotate");
      const shown = await published({ get });
      await killed();
      expect(await published({ get })).toEqual(shown);
      expect(await statusOf({ get }, cookie)).toBe(200);
      await keysOf(child.operatorAddress, "revoke", first?.kid ?? "");
      await killed();
      expect(await statusOf({ get }, cookie)).toBe(401);
      expect(await published({ get })).not.toContain(first?.kid);
    } finally {
      await child.end("SIGKILL");
      rmSync(dir, { recursive: true, force: true });
    }
  });
});
