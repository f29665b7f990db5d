/**
 * `stile agent attest|tokens|fetch`: the device side. `--tcti` names the TPM (`device:/dev/tpmrm0`,
 * `swtpm:path=…`, `tabrmd:`); without it, and against a development sidecar on this machine, a software
 * TPM is started for the command.
 */
import { randomBytes } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { EkAlgorithm } from "../../attest/agent/index.ts";
import { openManufacturerCa, startSwtpm } from "../../swtpm/index.ts";
import { createClientMetadata, type ExpirationGrid } from "../../tokens/index.ts";
import { type Agent, openAgent } from "../agent/agent.ts";
import { readEventLog } from "../agent/event-log.ts";
import { CliUsageError } from "./usage.ts";

const OPTIONS = {
  attester: { type: "string" },
  ca: { type: "string" },
  tcti: { type: "string" },
  ek: { type: "string", default: "rsa" },
  "event-log": { type: "string" },
  wallet: { type: "string" },
  count: { type: "string", default: "10" },
  "expiration-precision": { type: "string", default: "86400" },
  "max-lifetime": { type: "string", default: "172800" },
  "dev-state": { type: "string", default: join(".stile", "dev") },
  help: { type: "boolean", short: "h", default: false },
} as const;

const HOME_WALLET = join(homedir(), ".local", "state", "stile", "wallet");

const USAGE = `Usage: stile agent attest [URL] | tokens URL | fetch URL

  attest [URL]   attest to the attester at the origin of URL and print the attestation result
  tokens URL     fetch tokens for what URL asks for into the wallet
  fetch URL      GET the URL, presenting a token if one is asked for; the body goes to standard output

  --attester ORIGIN  the attester, if it is not at the origin of URL
  --ca FILE          PEM of a further CA to trust
  --tcti TCTI        the TPM: device:/dev/tpmrm0, swtpm:path=..., tabrmd:
  --ek rsa|ecc       which EK to attest with (default rsa)
  --event-log FILE   the firmware's log, for an attester that asks (default: the kernel's, with device:)
  --wallet DIR       where tokens are kept (default ~/.local/state/stile/wallet)
  --count N          tokens to fetch, 1 to 100 (default 10)
  --expiration-precision SECONDS, --max-lifetime SECONDS
                     as the issuer's issuer.publicMetadata, for tokens with an expiration
                     (default 86400 and 172800, as there; 3600 and 7200 at least)
  --dev-state DIR    folder of a development sidecar on this machine (default .stile/dev): its CA is
                     trusted, and without --tcti a software TPM of its manufacturer is used
`;

export async function agentCommand(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...args],
    options: OPTIONS,
    allowPositionals: true,
  });
  if (values.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  const [verb = "", url = "https://localhost:8443/"] = positionals;
  const run = VERBS[verb];
  if (run === undefined || !URL.canParse(url)) throw new CliUsageError(`wrong use\n${USAGE}`);
  return withAgent(values, url, (agent) => run(agent, url, countOf(values.count)));
}

type Verb = (agent: Agent, url: string, count: number) => Promise<number>;

const VERBS: Readonly<Record<string, Verb>> = {
  attest: async (agent) => {
    const { attestationResult } = await agent.attest();
    process.stdout.write(`${attestationResult}\n`);
    return 0;
  },
  tokens: async (agent, url, count) => {
    const challenge = await agent.challengeOf(url);
    const got = await agent.obtainTokens(challenge, count);
    process.stdout.write(`${got} tokens fetched, ${agent.count(challenge)} in the wallet\n`);
    return 0;
  },
  fetch: async (agent, url) => {
    const answer = await agent.fetch(url);
    process.stderr.write(
      `${answer.status}, ${answer.token === undefined ? "no" : "one"} token spent\n`,
    );
    process.stdout.write(answer.body);
    return answer.status < 400 ? 0 : 1;
  },
};

type Values = ReturnType<typeof parseArgs<{ options: typeof OPTIONS }>>["values"];

async function withAgent(
  values: Values,
  url: string,
  run: (agent: Agent) => Promise<number>,
): Promise<number> {
  const attester = values.attester ?? new URL(url).origin;
  const devDir = values["dev-state"];
  const development = isLocal(attester) && existsSync(devDir) ? devDir : undefined;
  const caFile = values.ca ?? developmentFile(development, "tls", "ca.pem");
  const tpm = await tpmFor(values.tcti, development);
  try {
    const agent = await openAgent({
      attester,
      ca: caFile === undefined ? undefined : readFileSync(caFile, "utf8"),
      tcti: tpm.tcti,
      ekAlgorithm: ekOf(values.ek),
      readEventLog: () => readEventLog(tpm.tcti, values["event-log"]),
      walletDir: values.wallet ?? developmentFile(development, "wallet") ?? HOME_WALLET,
      expirationGrid: gridOf(values),
      clock: Date.now,
      random: (length) => Uint8Array.from(randomBytes(length)),
    });
    try {
      return await run(agent);
    } finally {
      await agent.close();
    }
  } finally {
    await tpm.stop();
  }
}

async function tpmFor(
  tcti: string | undefined,
  development: string | undefined,
): Promise<{ readonly tcti: string; readonly stop: () => Promise<void> }> {
  if (tcti !== undefined) return { tcti, stop: () => Promise.resolve() };
  if (development === undefined) {
    throw new CliUsageError("expected --tcti, for example device:/dev/tpmrm0");
  }
  const folder = join(development, "manufacturer");
  const ca = await openManufacturerCa({ clock: Date.now, folder });
  return startSwtpm({ ca, stateDir: join(development, "tpm") });
}

function developmentFile(
  development: string | undefined,
  ...path: readonly string[]
): string | undefined {
  return development === undefined ? undefined : join(development, ...path);
}

function isLocal(origin: string): boolean {
  return ["localhost", "127.0.0.1", "[::1]"].includes(new URL(origin).hostname);
}

function ekOf(text: string): EkAlgorithm {
  if (text !== "rsa" && text !== "ecc") throw new CliUsageError("--ek: expected rsa or ecc");
  return text;
}

function countOf(text: string): number {
  const count = Number(text);
  if (!Number.isInteger(count) || count < 1 || count > 100) {
    throw new CliUsageError("--count: expected 1 to 100");
  }
  return count;
}

function gridOf(values: Values): ExpirationGrid {
  const grid = {
    precisionSeconds: Number(values["expiration-precision"]),
    maxLifetimeSeconds: Number(values["max-lifetime"]),
  };
  try {
    createClientMetadata({ ...grid, clock: Date.now });
    return grid;
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new CliUsageError(`--expiration-precision, --max-lifetime: ${error.message}`);
  }
}
