/**
 * A client, issuer and origin in Go on cloudflare/circl (go/main.go), in both directions with ours. Runs with the
 * nightly profile, since building it takes half a minute where it was never built; it is passed over, with a
 * message, where there is no Go or its modules cannot be had.
 */
import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createTokenClient } from "../../tokens/client/index.ts";
import {
  createChallenger,
  createRedeemer,
  encodeAmortizedBatchTokenRequest,
  encodeTokenRequest,
  MEDIA_TYPE_AMORTIZED_BATCH_REQUEST,
  MEDIA_TYPE_TOKEN_REQUEST,
  MEDIA_TYPE_TOKEN_RESPONSE,
} from "../../tokens/index.ts";
import type { VoprfTokenType } from "../../tokens/voprf/index.ts";
import { codeOfAsync } from "../support/reject.ts";
import { crypto, memorySpentStore, testClock, testKey } from "../tokens/fixtures.ts";
import { mixedIssuer, mixedSigner, random, voprfKey, voprfOf } from "../tokens/voprf-fixtures.ts";

const GO = process.env["STILE_GO"] ?? "/usr/local/go/bin/go";
const BUILD_MS = 180_000;

interface Answer {
  readonly id: number;
  readonly body?: string;
  readonly tokens?: readonly string[];
  readonly tokenKey?: string;
  readonly valid: boolean;
  readonly error?: string;
}

const folder = mkdtempSync(join(tmpdir(), "stile-go-"));
const program = buildProgram();
let child: ChildProcessWithoutNullStreams;
const waiting: ((answer: Answer) => void)[] = [];

function buildProgram(): string | undefined {
  if (process.env["STILE_GO_INTEROP"] === undefined) return undefined;
  try {
    const out = join(folder, "interop");
    const cwd = join(import.meta.dirname, "go");
    execFileSync(GO, ["build", "-o", out, "."], { cwd, timeout: BUILD_MS, stdio: "pipe" });
    return out;
  } catch (error) {
    console.log(`interoperability with Go is passed over: ${String(error).slice(0, 200)}`);
    return undefined;
  }
}

beforeAll(() => {
  if (program === undefined) return;
  child = spawn(program);
  createInterface({ input: child.stdout }).on("line", (line) =>
    waiting.shift()?.(JSON.parse(line) as Answer),
  );
});
afterAll(() => {
  child?.stdin.end();
  rmSync(folder, { recursive: true, force: true });
});

function ask(command: object): Promise<Answer> {
  return new Promise((resolve) => {
    waiting.push(resolve);
    const bytes = (_name: string, value: unknown): unknown =>
      value instanceof Uint8Array ? Buffer.from(value).toString("base64") : value;
    child.stdin.write(`${JSON.stringify(command, bytes)}\n`);
  });
}

const bytesOf = (text: string | undefined): Uint8Array =>
  Uint8Array.from(Buffer.from(text ?? "", "base64"));

const keys = [testKey(), voprfKey(1), voprfKey(5)];
const { issuer, keyRing } = mixedIssuer(keys);
const clock = testClock();
const challenger = createChallenger({
  issuerName: "issuer.example",
  secret: new Uint8Array(32).fill(1),
  crypto,
  clock,
  windowMs: 60_000,
});
const scope = { originInfo: "a.example", context: "none" } as const;
const { redeem } = createRedeemer({
  keyRing,
  challenger,
  spentStore: memorySpentStore(),
  crypto,
  clock,
  repeatWindowMs: 0,
  privateVerifier: mixedSigner(keys),
});

describe.skipIf(program === undefined)("a client in Go", () => {
  it.each([
    [2, 1],
    [1, 1],
    [1, 7],
    [5, 1],
    [5, 40],
  ] as const)("gets tokens of type %i, %i at once, that we redeem once", async (type, count) => {
    const key = keys.find(({ record }) => record.tokenType === type);
    const tokenKey = key?.record.publicKeySpki;
    const digest = crypto.sha256(challenger.challenge(scope, type));
    const made = await ask({ op: "request", tokenType: type, tokenKey, digest, count });
    const mediaType = count === 1 ? MEDIA_TYPE_TOKEN_REQUEST : MEDIA_TYPE_AMORTIZED_BATCH_REQUEST;
    const { body } = await issuer.issue(mediaType, bytesOf(made.body));
    const changed = body.slice();
    changed[changed.length - 1] = (changed.at(-1) ?? 0) ^ 1;
    expect((await ask({ op: "finish", id: made.id, body: changed })).error).toBeDefined();
    const { tokens = [] } = await ask({ op: "finish", id: made.id, body });
    expect(tokens).toHaveLength(count);
    for (const token of tokens.map(bytesOf)) {
      expect(await redeem({ token, scope })).toMatchObject({ outcome: "fresh" });
      expect(await codeOfAsync(() => redeem({ token, scope }))).toBe("TOKEN_ALREADY_SPENT");
    }
  });
});

describe.skipIf(program === undefined)("an issuer in Go", () => {
  it("issues type 2 to our client, and verifies its token", async () => {
    const { id, tokenKey } = await ask({ op: "issuer", tokenType: 2 });
    const challenge = challenger.challenge(scope, 2);
    const spki = bytesOf(tokenKey);
    const pending = await createTokenClient().request({ challenge, tokenKey: spki, count: 1 });
    const { body } = await ask({ op: "issue", id, body: pending.body });
    const answer = { status: 200, mediaType: MEDIA_TYPE_TOKEN_RESPONSE, body: bytesOf(body) };
    const [token = new Uint8Array(0)] = await pending.finalize(answer);
    expect((await ask({ op: "verify", id, body: token })).valid).toBe(true);
    token[200] = (token[200] ?? 0) ^ 1;
    expect((await ask({ op: "verify", id, body: token })).valid).toBe(false);
  });

  it.each([1, 5] as const)(
    "proves type %i, alone and in a batch, to our verifier",
    async (type) => {
      const { id, tokenKey } = await ask({ op: "issuer", tokenType: type });
      const publicKey = bytesOf(tokenKey);
      const truncatedTokenKeyId = crypto.sha256(publicKey)[31] ?? 0;
      const voprf = voprfOf(type satisfies VoprfTokenType);
      const element = (): Uint8Array =>
        voprf.publicKeyOf(voprf.nonceOf(random(voprf.suite.uniformLength)));
      const one = element();
      const request = encodeTokenRequest({
        tokenType: type,
        truncatedTokenKeyId,
        blindedMessage: one,
      });
      const single = bytesOf((await ask({ op: "issue", id, body: request })).body);
      expect(voprf.verifyResponse(publicKey, one, single)).toBe(true);
      const blindedElements = Array.from({ length: 9 }, element);
      const batch = encodeAmortizedBatchTokenRequest({
        tokenType: type,
        truncatedTokenKeyId,
        blindedElements,
      });
      const answered = bytesOf((await ask({ op: "issue", id, body: batch })).body);
      const blinded = Uint8Array.from(Buffer.concat(blindedElements));
      // Behind its length, of 2 bytes for nine elements.
      const response = answered.subarray(2);
      expect(voprf.verifyResponse(publicKey, blinded, response)).toBe(true);
      response[0] = (response[0] ?? 0) ^ 1;
      expect(voprf.verifyResponse(publicKey, blinded, response)).toBe(false);
    },
  );
});
