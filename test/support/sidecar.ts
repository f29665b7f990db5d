/**
 * A sidecar in the test's own process: a temporary folder, free ports, a clock that the test may turn, a
 * captured log, a demo upstream that counts what reaches it, and a mint of valid tokens.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { exchange, type ExchangeAnswer } from "../../service/agent/exchange.ts";
import type { Config } from "../../service/config/index.ts";
import { type DemoUpstream, startDemoUpstream } from "../../service/dev/demo-upstream.ts";
import { type DevelopmentOverrides, prepareDevelopment } from "../../service/dev/development.ts";
import type { Log } from "../../service/log.ts";
import { type Sidecar, startSidecar } from "../../service/sidecar.ts";
import { parseWwwAuthenticate, type ReceivedChallenge } from "../../tokens/index.ts";
import { freePort } from "./free-port.ts";
import { type Mint, openMint } from "./mint.ts";
import type { RawTarget } from "./raw-client.ts";

export interface TestSidecar extends RawTarget {
  readonly url: string;
  readonly dir: string;
  readonly config: Config;
  readonly sidecar: Sidecar;
  readonly upstream: DemoUpstream;
  /** Every line that was logged, as JSON. */
  readonly lines: string[];
  /** Turn it to move time on, in milliseconds. */
  /** Runs with the machine's, `offsetMs` later, or stands at an instant. */
  readonly clock: { offsetMs: number; standsAtMs: number | undefined };
  readonly get: (path: string, headers?: Record<string, string>) => Promise<ExchangeAnswer>;
  readonly post: (
    path: string,
    body: string | Uint8Array,
    headers?: Record<string, string>,
  ) => Promise<ExchangeAnswer>;
  /** What an unauthenticated GET is challenged with. */
  readonly challenge: () => Promise<ReceivedChallenge>;
  /** The value of an Authorization header with a fresh, valid token. */
  readonly mint: () => Promise<string>;
  /** The same for the challenge of an answer that the test has got. */
  readonly mintFor: (challenged: Pick<ExchangeAnswer, "headers" | "status">) => Promise<string>;
  readonly stop: () => Promise<void>;
}

export interface TestSidecarOptions extends DevelopmentOverrides {
  /** Instead of the demo upstream's. */
  readonly upstreamUrl?: string;
  /** A sidecar whose issuer keys and secrets this one starts with, as a second edge of the same operator. */
  readonly twinOf?: TestSidecar;
  /** Puts into its folder what is to be there before it starts. */
  readonly prepare?: (dir: string) => Promise<void>;
}

export async function startTestSidecar(options: TestSidecarOptions = {}): Promise<TestSidecar> {
  const dir = mkdtempSync(join(tmpdir(), "stile-sidecar-"));
  const port = await freePort();
  if (options.twinOf !== undefined) copyKeys(options.twinOf.dir, dir);
  await options.prepare?.(dir);
  const upstream = await startDemoUpstream();
  const clock: TestSidecar["clock"] = { offsetMs: 0, standsAtMs: undefined };
  const now = (): number => clock.standsAtMs ?? Date.now() + clock.offsetMs;
  const development = await prepareDevelopment({
    dir,
    port,
    operatorListen: "127.0.0.1:0",
    upstream: options.upstreamUrl ?? upstream.url,
    logLevel: "silent",
    clock: now,
    overrides: {
      ...options,
      limits: { requestsPerMinute: 1_000_000, drainSeconds: 2, ...options.limits },
    },
  });
  const lines: string[] = [];
  const sidecar = await startSidecar(development.config, { clock: now, log: capturedLog(lines) });
  const ca = readFileSync(development.caFile, "utf8");
  const url = `https://localhost:${port}`;
  const get: TestSidecar["get"] = (path, headers = {}) =>
    exchange({ url: `${url}${path}`, method: "GET", headers, ca });
  const challenge = async (): Promise<ReceivedChallenge> => challengeIn(await get("/"));
  // Opened once: unsealing the key costs half a second by design.
  let mint: Promise<Mint> | undefined;
  const mintFor: TestSidecar["mintFor"] = async (challenged) => {
    mint ??= openMint(dir);
    return (await mint).authorization(challengeIn(challenged).challenge);
  };
  return {
    port,
    ca,
    host: `localhost:${port}`,
    url,
    dir,
    config: development.config,
    sidecar,
    upstream,
    lines,
    clock,
    get,
    challenge,
    post: (path, body, headers = {}) =>
      exchange({ url: `${url}${path}`, method: "POST", headers, body: Buffer.from(body), ca }),
    mint: async () => mintFor(await get("/")),
    mintFor,
    stop: async () => {
      await sidecar.stop();
      await upstream.stop();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

function challengeIn(answer: Pick<ExchangeAnswer, "headers" | "status">): ReceivedChallenge {
  const [first] = parseWwwAuthenticate(answer.headers["www-authenticate"] ?? "");
  if (first === undefined) throw new Error(`not challenged: ${answer.status}`);
  return first;
}

function copyKeys(from: string, to: string): void {
  const keys = ["issuer-keys", "clearance-keys", "secrets"].map((name) => `state/${name}`);
  for (const name of ["passphrase", ...keys, "tls", "manufacturer"]) {
    cpSync(join(from, name), join(to, name), { recursive: true });
  }
}

function capturedLog(lines: string[]): Log {
  return {
    write: (level, event, fields = {}) => lines.push(JSON.stringify({ level, event, ...fields })),
    flush: () => undefined,
  };
}

/** The problem document of an answer. */
export function problemIn(answer: ExchangeAnswer): { type: string; status: number; title: string } {
  return JSON.parse(Buffer.from(answer.body).toString()) as {
    type: string;
    status: number;
    title: string;
  };
}
