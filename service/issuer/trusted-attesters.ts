/**
 * The attesters that an issuer trusts (RFC 9576 §3.2): known by the digest of their certificate, each with a
 * quota and a switch. The switch outlives restarts; a quota is counted in memory, by the minute.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { StileError } from "../../wire/index.ts";
import type { TrustedAttesterConfig } from "../config/index.ts";
import { hasCode, makeFolderDurably, replaceFileDurably } from "../stores/durable-file.ts";

export interface TrustedAttesters {
  /**
   * @param certificateSha256 of the certificate that the connection's client has proved to own, lower-case
   * hexadecimal; undefined where it showed none
   * @returns the name of the attester
   * @throws `TOKEN_ATTESTER_REFUSED`
   */
  readonly nameOf: (certificateSha256: string | undefined) => string;
  /** @throws `TOKEN_ATTESTER_QUOTA_EXCEEDED` with the seconds to the next minute */
  readonly charge: (name: string, tokens: number) => void;
  readonly list: () => readonly { readonly name: string; readonly enabled: boolean }[];
  /** Holds from its call on, and is on disk when it returns. @throws `SERVICE_NOT_FOUND` */
  readonly setEnabled: (name: string, enabled: boolean) => Promise<void>;
}

export interface TrustedAttestersOptions {
  readonly trusted: readonly TrustedAttesterConfig[];
  readonly stateDir: string;
  /** Unix milliseconds. */
  readonly clock: () => number;
}

const FILE = "disabled-attesters";
const MINUTE_MS = 60_000;

/** @throws `SERVICE_CONFIG_INVALID` where two attesters share a name or a certificate */
export async function openTrustedAttesters({
  clock,
  stateDir,
  trusted,
}: TrustedAttestersOptions): Promise<TrustedAttesters> {
  checkDistinct(trusted);
  const byCertificate = new Map(
    trusted.flatMap(({ certificateSha256, name }) =>
      certificateSha256.map((digest) => [digest, name]),
    ),
  );
  const quotas = new Map(trusted.map(({ name, tokensPerMinute }) => [name, tokensPerMinute]));
  const path = join(stateDir, FILE);
  const disabled = await readDisabled(path);
  const used = new Map<string, number>();
  let minute = 0;
  return {
    nameOf: (digest) => {
      const name = digest === undefined ? undefined : byCertificate.get(digest);
      if (name !== undefined && !disabled.has(name)) return name;
      throw new StileError("TOKEN_ATTESTER_REFUSED", "this attester may not ask for tokens here");
    },
    charge: (name, tokens) => {
      const nowMs = clock();
      if (Math.floor(nowMs / MINUTE_MS) !== minute) {
        minute = Math.floor(nowMs / MINUTE_MS);
        used.clear();
      }
      const total = (used.get(name) ?? 0) + tokens;
      if (total > (quotas.get(name) ?? 0)) {
        const retryAfterSeconds = Math.ceil(((minute + 1) * MINUTE_MS - nowMs) / 1_000);
        const message = "this attester has used up its tokens for this minute";
        throw new StileError("TOKEN_ATTESTER_QUOTA_EXCEEDED", message, { retryAfterSeconds });
      }
      used.set(name, total);
    },
    list: () => trusted.map(({ name }) => ({ name, enabled: !disabled.has(name) })),
    setEnabled: async (name, enabled) => {
      if (!quotas.has(name)) throw new StileError("SERVICE_NOT_FOUND", "no such attester");
      if (enabled) disabled.delete(name);
      else disabled.add(name);
      await makeFolderDurably(stateDir);
      await replaceFileDurably(path, new TextEncoder().encode([...disabled].join("\n")));
    },
  };
}

async function readDisabled(path: string): Promise<Set<string>> {
  try {
    const text = await readFile(path, "utf8");
    return new Set(text.split("\n").filter((name) => name !== ""));
  } catch (error) {
    if (hasCode(error, "ENOENT")) return new Set();
    throw error;
  }
}

function checkDistinct(trusted: readonly TrustedAttesterConfig[]): void {
  const names = trusted.map(({ name }) => name);
  const digests = trusted.flatMap(({ certificateSha256 }) => certificateSha256);
  const isDistinct = (words: readonly string[]): boolean => new Set(words).size === words.length;
  if (isDistinct(names) && isDistinct(digests)) return;
  throw new StileError(
    "SERVICE_CONFIG_INVALID",
    "configuration: issuer.attesters: two share a name or a certificate",
  );
}
