/**
 * The whole chain in eight steps, on a software TPM and a sidecar of its own: temporary folders, free
 * ports, nothing left behind. Each step observes what it says from outside, over HTTPS.
 */
import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  createManufacturerCa,
  openManufacturerCa,
  startSwtpm,
  type Swtpm,
} from "../../swtpm/index.ts";
import { formatAuthorization, type ReceivedChallenge } from "../../tokens/index.ts";
import { isStileError } from "../../wire/index.ts";
import { type Agent, openAgent } from "../agent/agent.ts";
import { exchange } from "../agent/exchange.ts";
import { type DemoUpstream, startDemoUpstream } from "../dev/demo-upstream.ts";
import { type Development, prepareDevelopment } from "../dev/development.ts";
import { createLog } from "../log.ts";
import { type Sidecar, startSidecar } from "../sidecar.ts";
import { observe, type StoryStep } from "./story.ts";

const BATCH = 5;

export interface Demo {
  readonly steps: readonly StoryStep[];
  readonly stop: () => Promise<void>;
}

/** What the steps hand on to each other; a step runs only after those before it. */
interface Stage {
  readonly dir: string;
  readonly cleanup: (() => Promise<void> | void)[];
  development?: Development;
  upstream?: DemoUpstream;
  sidecar?: Sidecar;
  tpm?: Swtpm;
  agent?: Agent;
  challenge?: ReceivedChallenge;
  spentToken?: Uint8Array;
}

export function demoSteps(): Demo {
  const dir = mkdtempSync(join(tmpdir(), "stile-demo-"));
  const stage: Stage = { dir, cleanup: [() => rmSync(dir, { recursive: true, force: true })] };
  const step = (title: string, run: (stage: Stage) => Promise<string>): StoryStep => ({
    title,
    run: () => run(stage),
  });
  return {
    steps: [
      step("Start the sidecar: edge, attester and issuer", startTheSidecar),
      step("Start a software TPM with an EK certificate", startTheTpm),
      step("An unattested client is challenged", challengeTheClient),
      step("The device attests", attestTheDevice),
      step("The device fetches a batch of blind tokens", fetchTokens),
      step("The device is admitted with one token", admitTheDevice),
      step("The replayed token is refused", refuseTheReplay),
      step("A TPM of an unknown manufacturer is refused", refuseTheUnknown),
    ],
    stop: async () => {
      for (const clean of stage.cleanup.toReversed()) await clean();
    },
  };
}

async function startTheSidecar(stage: Stage): Promise<string> {
  const upstream = (stage.upstream = await startDemoUpstream());
  stage.cleanup.push(() => upstream.stop());
  const development = (stage.development = await prepareDevelopment({
    dir: join(stage.dir, "sidecar"),
    port: await freePort(),
    operatorListen: "127.0.0.1:0",
    upstream: upstream.url,
    logLevel: "silent",
    clock: Date.now,
    overrides: { limits: { drainSeconds: 1 } },
  }));
  const log = createLog("silent");
  const sidecar = (stage.sidecar = await startSidecar(development.config, {
    clock: Date.now,
    log,
  }));
  stage.cleanup.push(() => sidecar.stop());
  return `on ${development.config.publicUrl}`;
}

async function startTheTpm(stage: Stage): Promise<string> {
  const { manufacturerDir } = there(stage.development);
  const ca = await openManufacturerCa({ clock: Date.now, folder: manufacturerDir });
  const tpm = (stage.tpm = await startSwtpm({ ca, ekAlgorithms: ["rsa"] }));
  stage.cleanup.push(() => tpm.stop());
  return "RSA-2048 EK, certified by a local manufacturer CA";
}

async function challengeTheClient(stage: Stage): Promise<string> {
  const { config, caFile } = there(stage.development);
  const ca = readFileSync(caFile, "utf8");
  const answer = await exchange({ url: `${config.publicUrl}/`, method: "GET", headers: {}, ca });
  observe(answer.status === 401, `expected 401, got ${answer.status}`);
  const header = answer.headers["www-authenticate"] ?? "";
  observe(header.startsWith("PrivateToken challenge="), "expected a PrivateToken challenge");
  observe(there(stage.upstream).hits() === 0, "the upstream was reached without a token");
  return "401 with a PrivateToken challenge, upstream untouched";
}

async function attestTheDevice(stage: Stage): Promise<string> {
  const agent = (stage.agent = await openDemoAgent(stage, there(stage.tpm).tcti, "wallet"));
  stage.cleanup.push(() => agent.close());
  const { attestationResult } = await agent.attest();
  const [header = ""] = attestationResult.split(".");
  const { typ } = JSON.parse(Buffer.from(header, "base64url").toString()) as { typ?: unknown };
  observe(typ === "eat-ear+jwt", "expected an attestation result");
  return "credential activated, quote and device key verified";
}

async function fetchTokens(stage: Stage): Promise<string> {
  const agent = there(stage.agent);
  const url = `${there(stage.development).config.publicUrl}/`;
  const challenge = (stage.challenge = await agent.challengeOf(url));
  const got = await agent.obtainTokens(challenge, BATCH);
  observe(got === BATCH, `expected ${BATCH} tokens, got ${got}`);
  observe(agent.count(challenge) === BATCH, "the wallet does not hold the batch");
  return `${got} tokens in the wallet`;
}

async function admitTheDevice(stage: Stage): Promise<string> {
  const agent = there(stage.agent);
  const answer = await agent.fetch(`${there(stage.development).config.publicUrl}/hello`);
  observe(answer.status === 200, `expected 200, got ${answer.status}`);
  observe(answer.token !== undefined, "no token was asked for");
  observe(there(stage.upstream).hits() === 1, "the upstream was not reached once");
  observe(agent.count(there(stage.challenge)) === BATCH - 1, "not one token left the wallet");
  stage.spentToken = answer.token;
  return "200 from the upstream, one token spent";
}

async function refuseTheReplay(stage: Stage): Promise<string> {
  const { config, caFile } = there(stage.development);
  const answer = await exchange({
    url: `${config.publicUrl}/hello`,
    method: "GET",
    headers: { authorization: formatAuthorization(there(stage.spentToken)) },
    ca: readFileSync(caFile, "utf8"),
  });
  observe(answer.status === 401, `expected 401, got ${answer.status}`);
  const problem = JSON.parse(Buffer.from(answer.body).toString()) as { type?: unknown };
  observe(problem.type === "urn:stile:problem:token-already-spent", `got ${String(problem.type)}`);
  observe(there(stage.upstream).hits() === 1, "the replay reached the upstream");
  return "401 token-already-spent, upstream untouched";
}

async function refuseTheUnknown(stage: Stage): Promise<string> {
  const ca = await createManufacturerCa({ clock: Date.now });
  const tpm = await startSwtpm({ ca, ekAlgorithms: ["rsa"] });
  stage.cleanup.push(() => tpm.stop());
  const agent = await openDemoAgent(stage, tpm.tcti, "unknown-wallet");
  stage.cleanup.push(() => agent.close());
  let refusal: unknown;
  await agent.attest().catch((error: unknown) => {
    refusal = error;
  });
  observe(isStileError(refusal, "ATTEST_AGENT_REFUSED"), "the unknown TPM was not refused");
  observe(refusal.message.includes("403"), `refused for another reason: ${refusal.message}`);
  const refused = await there(stage.sidecar).metrics.attestations.get();
  const counted = refused.values.some(
    ({ labels, value }) => labels.outcome === "ATTEST_EK_CHAIN_UNTRUSTED" && value === 1,
  );
  observe(counted, "the refusal was not for the chain of the EK certificate");
  return "403, its EK certificate leads to no trusted root";
}

function openDemoAgent(stage: Stage, tcti: string, wallet: string): Promise<Agent> {
  const { config, caFile } = there(stage.development);
  return openAgent({
    attester: config.publicUrl,
    ca: readFileSync(caFile, "utf8"),
    tcti,
    ekAlgorithm: "rsa",
    walletDir: join(stage.dir, wallet),
    clock: Date.now,
    random: (length) => Uint8Array.from(randomBytes(length)),
  });
}

/** A part that an earlier step has set up. */
function there<T>(part: T | undefined): T {
  if (part === undefined) throw new Error("an earlier step did not run");
  return part;
}

/** A port that was free a moment ago: the name of the origin, and so the configuration, needs it first. */
function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });
}
