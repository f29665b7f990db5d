/**
 * `stile directory-log verify`: for a client or an auditor, of any issuer that runs Stile. Verifies the log of
 * its directories from the first entry, or on from what `--state` remembers, and that the directory which it
 * serves now is the newest entry. Whoever keeps the state and runs it from several places learns of a
 * directory that was served to some alone.
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { createNodeTokenCrypto } from "../../tokens/node/index.ts";
import { encodeBase64Url, StileError } from "../../wire/index.ts";
import { normalHost } from "../edge/host.ts";
import {
  encodeKnownLog,
  fetchLoggedDirectory,
  type FollowedIssuer,
  type KnownLog,
  parseKnownLog,
} from "../keys/follow-log.ts";
import { es256KeyId } from "../secrets.ts";
import { hasCode, replaceFileDurably } from "../stores/durable-file.ts";
import { CliUsageError } from "./usage.ts";
import { type Facts, needed, readBytes, report } from "./verify/report.ts";

const USAGE =
  "directory-log verify URL [--issuer NAME] [--ca PEM] [--key-id ID] [--state FILE] [--json]";

export function directoryLogCommand(args: readonly string[]): Promise<number> {
  const { positionals, values } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      issuer: { type: "string" },
      ca: { type: "string" },
      "key-id": { type: "string" },
      state: { type: "string" },
      json: { type: "boolean" },
    },
  });
  const [verb, url] = positionals;
  if (verb !== "verify" || !URL.canParse(url ?? "")) {
    throw new CliUsageError(`expected: stile ${USAGE}`);
  }
  const origin = needed(url, USAGE);
  const issuer: FollowedIssuer = {
    url: origin,
    name: values.issuer ?? normalHost(new URL(origin).host),
    ca: values.ca === undefined ? undefined : Buffer.from(readBytes(values.ca)).toString("utf8"),
    keyId: values["key-id"],
    crypto: createNodeTokenCrypto(),
  };
  return report(values.json ?? false, () => verify(issuer, values.state));
}

/** @throws `TOKEN_DIRECTORY_LOG_INVALID`, `TOKEN_ISSUER_UNAVAILABLE` */
async function verify(issuer: FollowedIssuer, state: string | undefined): Promise<Facts> {
  const known = state === undefined ? undefined : readKnown(state);
  const { isLogged, log } = await fetchLoggedDirectory(issuer, known);
  if (log === undefined) {
    throw new StileError("TOKEN_DIRECTORY_LOG_INVALID", "the issuer keeps no log");
  }
  if (!isLogged) {
    throw new StileError(
      "TOKEN_DIRECTORY_LOG_INVALID",
      "the directory that the issuer serves is not the newest of its log",
    );
  }
  if (state !== undefined) {
    await replaceFileDurably(state, new TextEncoder().encode(encodeKnownLog(log)));
  }
  const { entries, head, publicKey } = log;
  return {
    verdict: "consistent",
    issuer: head.issuer,
    keyId: es256KeyId(publicKey),
    entries: head.index + 1,
    newEntries: entries.length,
    newest: new Date(head.timeMs).toISOString(),
    head: encodeBase64Url(head.digest),
    revokedKeys: [...head.revoked],
  };
}

function readKnown(state: string): KnownLog | undefined {
  try {
    return parseKnownLog(readFileSync(state, "utf8"));
  } catch (cause) {
    if (hasCode(cause, "ENOENT")) return undefined;
    throw new CliUsageError(`--state ${state}: cannot be read`);
  }
}
