/** Clearances as an attacker makes them, and as the sidecar's own key would: what a verifier has to tell apart. */
import { generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { CLEARANCE_KEYS, openKeystore } from "../../service/keystore/index.ts";

export interface Clearances {
  /** By what is wrong with them. */
  readonly bad: Readonly<Record<string, string>>;
  /** As good as the one that they were made from, under another signature. */
  readonly sound: string;
  /** Good for four seconds or five: a busy machine takes one for two requests. */
  readonly short: string;
}

/** What a sidecar signs clearances with. @param dir the folder given to `prepareDevelopment` */
export async function openClearanceKey(dir: string): Promise<KeyObject> {
  const passphrase = Uint8Array.from(readFileSync(join(dir, "passphrase")));
  const folder = join(dir, "state", "clearance-keys");
  const [first] = await (
    await openKeystore({ dir: folder, passphrase, kind: CLEARANCE_KEYS })
  ).load();
  if (first === undefined) throw new Error("the sidecar has made no clearance key");
  return first.privateKey;
}

/** @param good a clearance of the sidecar whose key this is */
export function forgeClearances(good: string, key: KeyObject, nowMs: number): Clearances {
  const [head = "", claims = "", signature = ""] = good.split(".");
  const payload = JSON.parse(Buffer.from(claims, "base64url").toString()) as object;
  const header = JSON.parse(Buffer.from(head, "base64url").toString()) as object;
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const made = (change: object, of: object = header): string =>
    signedWith(key, of, { ...payload, ...change });
  const changed = encoded({ ...payload, exp: 9_999_999_999 });
  return {
    bad: {
      unsigned: `${encoded({ ...header, alg: "none" })}.${claims}.`,
      "unsigned, with a signature": `${encoded({ ...header, alg: "none" })}.${claims}.${signature}`,
      symmetric: `${encoded({ ...header, alg: "HS256" })}.${claims}.${signature}`,
      "of another key": signedWith(privateKey, header, payload),
      over: made({ exp: Math.floor(nowMs / 1_000) - 10 }),
      endless: made({ exp: undefined }),
      "ending in words": made({ exp: "never" }),
      "of another issuer": made({ iss: "https://evil.example" }),
      "for another host": made({ aud: "localhost:1" }),
      "of another type": made({}, { ...header, typ: "JWT" }),
      "of another type of key": made({}, { ...header, alg: "ES384" }),
      changed: `${head}.${changed}.${signature}`,
      cut: `${head}.${claims}.${signature.slice(0, -2)}`,
      empty: "",
      junk: "e30.e30.e30",
    },
    sound: made({}),
    short: made({ exp: Math.floor(nowMs / 1_000) + 5 }),
  };
}

function encoded(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}

function signedWith(key: KeyObject, head: object, claims: object): string {
  const input = `${encoded(head)}.${encoded(claims)}`;
  const signature = sign("sha256", Buffer.from(input), { key, dsaEncoding: "ieee-p1363" });
  return `${input}.${signature.toString("base64url")}`;
}
