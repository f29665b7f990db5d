/** The log of an issuer's directories as an auditor follows it, with every lie that it must not let through. */
import { generateKeyPairSync } from "node:crypto";
import { CompactSign, compactVerify } from "jose";
import { describe, expect, it } from "vitest";
import {
  type DirectoryLogEntry,
  type DirectoryLogEvent,
  type DirectoryLogHead,
  type DirectoryLogVerifier,
  encodeDirectoryLogEntry,
  encodeIssuerDirectory,
  followDirectoryLog,
  isLoggedDirectory,
  tokenKeyIdOf,
} from "../../tokens/index.ts";
import { encodeHex, encodeUtf8 } from "../../wire/index.ts";
import { codeOfAsync } from "../support/reject.ts";
import { crypto, START_MS } from "./fixtures.ts";

const ISSUER = "issuer.example";
const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const stranger = generateKeyPairSync("ec", { namedCurve: "P-256" });
const verifier: DirectoryLogVerifier = {
  issuer: ISSUER,
  crypto,
  verify: async (jws) => (await compactVerify(jws, publicKey)).payload,
};

const keyOf = (n: number): Uint8Array => new Uint8Array(300).fill(n);
function directoryOf(...keys: readonly number[]): Uint8Array {
  const tokenKeys = keys.map((n) => ({ tokenType: 2, tokenKey: keyOf(n) }));
  return encodeIssuerDirectory({ issuerRequestUri: "/token-request", tokenKeys });
}
const directory = (...keys: readonly number[]): DirectoryLogEvent => ({
  kind: "directory",
  directory: directoryOf(...keys),
});
const revocation = (n: number): DirectoryLogEvent => ({
  kind: "revocation",
  tokenKeyId: tokenKeyIdOf(crypto, keyOf(n)),
});
const digestOf = (line: string): Uint8Array => crypto.sha256(encodeUtf8(line));
const sign = (payload: Uint8Array, key = privateKey): Promise<string> =>
  new CompactSign(payload).setProtectedHeader({ alg: "ES256" }).sign(key);

async function logOf(
  events: readonly DirectoryLogEvent[],
  change: (entry: DirectoryLogEntry) => Partial<DirectoryLogEntry> = () => ({}),
): Promise<string[]> {
  const lines: string[] = [];
  for (const [index, event] of events.entries()) {
    const last = lines.at(-1);
    const entry: DirectoryLogEntry = {
      issuer: ISSUER,
      index,
      previous: last === undefined ? new Uint8Array(0) : digestOf(last),
      timeMs: START_MS + index,
      event,
    };
    lines.push(await sign(encodeDirectoryLogEntry({ ...entry, ...change(entry) })));
  }
  return lines;
}

const EVENTS = [directory(1), directory(1, 2), revocation(1), directory(2)];
const refusal = (lines: readonly string[], known?: DirectoryLogHead): Promise<string> =>
  codeOfAsync(() => followDirectoryLog(lines, known, verifier));
const INVALID = "TOKEN_DIRECTORY_LOG_INVALID";

describe("a directory log", () => {
  it("is followed from its first entry, or on from what is known, to the same head", async () => {
    const lines = await logOf(EVENTS);
    const whole = await followDirectoryLog(lines, undefined, verifier);
    expect(whole.entries.map(({ event }) => event.kind)).toEqual(EVENTS.map(({ kind }) => kind));
    expect(whole.head.revoked).toEqual([encodeHex(tokenKeyIdOf(crypto, keyOf(1)))]);
    const { head } = await followDirectoryLog(lines.slice(0, 2), undefined, verifier);
    const rest = await followDirectoryLog(lines.slice(1), head, verifier);
    expect(rest.entries).toHaveLength(2);
    expect(rest.head).toEqual(whole.head);
    expect((await followDirectoryLog(lines.slice(3), whole.head, verifier)).entries).toEqual([]);
  });

  it("tells its newest directory from an old one, and from one for somebody alone", async () => {
    const lines = await logOf(EVENTS);
    const before = (await followDirectoryLog(lines.slice(0, 2), undefined, verifier)).head;
    const after = await followDirectoryLog(lines.slice(1), before, verifier);
    const isLogged = (...keys: readonly number[]): boolean =>
      isLoggedDirectory(before, after, directoryOf(...keys), crypto);
    expect([isLogged(2), isLogged(1, 2)]).toEqual([true, true]);
    expect([isLogged(3), isLogged(2, 3), isLogged(1)]).toEqual([false, false, false]);
  });

  it("rejects a log that lacks, repeats or exchanges entries", async () => {
    const [a = "", b = "", c = "", d = ""] = await logOf(EVENTS);
    for (const lines of [[], [b, c], [a, c, d], [a, b, b], [a, c, b, d], [d, c, b, a]]) {
      expect(await refusal(lines)).toBe(INVALID);
    }
  });

  it("rejects a log that was changed behind what was seen", async () => {
    const known = (await followDirectoryLog(await logOf(EVENTS), undefined, verifier)).head;
    const other = await logOf([directory(1), directory(3), revocation(1), directory(2)]);
    expect(await refusal(other.slice(3), known)).toBe(INVALID);
    expect(await refusal([], known)).toBe(INVALID);
  });

  it("rejects an entry of another key, another issuer or another time, and a changed line", async () => {
    const lines = await logOf(EVENTS);
    const foreign = await sign(encodeDirectoryLogEntry(entryOf({})), stranger.privateKey);
    expect(await refusal([foreign])).toBe(INVALID);
    expect(await refusal([await sign(encodeDirectoryLogEntry(entryOf({})))])).toBe(
      "nothing was thrown",
    );
    expect(await refusal(await logOf(EVENTS, () => ({ issuer: "other.example" })))).toBe(INVALID);
    const early = await logOf(EVENTS, ({ index }) => ({ timeMs: START_MS - index }));
    expect(await refusal(early)).toBe(INVALID);
    const [first = ""] = lines;
    for (const at of [3, first.length >> 1, first.length - 3]) {
      const letter = first[at] === "A" ? "B" : "A";
      expect(await refusal([first.slice(0, at) + letter + first.slice(at + 1)])).toBe(INVALID);
    }
  });

  it("rejects a directory that lists a key which was revoked", async () => {
    expect(await refusal(await logOf([directory(1), revocation(1), directory(2, 1)]))).toBe(
      INVALID,
    );
    expect(await refusal(await logOf([directory(1), revocation(1), directory(2)]))).toBe(
      "nothing was thrown",
    );
  });

  it.each([
    "null",
    "[]",
    "not JSON",
    JSON.stringify({ issuer: ISSUER }),
    text({}).replace("{", "{ "),
    text({}).replace('"index":0', '"index":0.5'),
    text({}).replace('"timeMs":', '"timeMs":1e'),
    text({}).replace('"index"', '"extra":1,"index"'),
    text({ event: { kind: "revocation", tokenKeyId: new Uint8Array(31) } }),
    text({ event: { kind: "directory", directory: encodeUtf8("no directory") } }),
    text({ previous: new Uint8Array(32) }),
  ])("rejects a signed entry that is none: %s", async (payload) => {
    expect(await refusal([await sign(encodeUtf8(payload))])).toBe(INVALID);
  });
});

function entryOf(change: Partial<DirectoryLogEntry>): DirectoryLogEntry {
  const previous = new Uint8Array(0);
  return { issuer: ISSUER, index: 0, previous, timeMs: START_MS, event: directory(1), ...change };
}

function text(change: Partial<DirectoryLogEntry>): string {
  return Buffer.from(encodeDirectoryLogEntry(entryOf(change))).toString("utf8");
}
