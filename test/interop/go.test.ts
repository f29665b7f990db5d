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
  createExpirationPolicy,
  createIssuer,
  createKeyRing,
  createRedeemer,
  DEFAULT_BATCH_LIMITS,
  encodeAmortizedBatchTokenRequest,
  encodeTokenRequest,
  type Issuer,
  latestExpiration,
  MEDIA_TYPE_AMORTIZED_BATCH_REQUEST,
  MEDIA_TYPE_TOKEN_REQUEST,
  MEDIA_TYPE_TOKEN_RESPONSE,
  type Redeemer,
} from "../../tokens/index.ts";
import { generatePartiallyBlindRsaKey } from "../../tokens/partially-blind-rsa/index.ts";
import type { VoprfTokenType } from "../../tokens/voprf/index.ts";
import { codeOfAsync } from "../support/reject.ts";
import {
  crypto,
  memorySpentStore,
  START_MS,
  testClock,
  type TestKey,
  testKey,
} from "../tokens/fixtures.ts";
import { metadataSigner } from "../tokens/metadata-fixtures.ts";
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

describe.skipIf(program === undefined)("type 0xDA7A in Go", () => {
  const grid = { precisionSeconds: 3_600, maxLifetimeSeconds: 7_200 };
  const metadata = latestExpiration(grid, START_MS);
  let key: TestKey;

  beforeAll(async () => {
    const { privateKey, publicKeySpki, tokenKeyId } = await generatePartiallyBlindRsaKey();
    const record = { ...testKey().record, tokenType: 0xda7a, publicKeySpki, tokenKeyId };
    key = { privateKey, record };
  }, BUILD_MS);

  const pieces = (): { tokenKey: Uint8Array; issuer: Issuer; redeemer: Redeemer } => {
    const ring = createKeyRing({ records: [key.record], clock });
    const metadataPolicy = createExpirationPolicy({ ...grid, clock });
    const limits = DEFAULT_BATCH_LIMITS;
    const shared = { keyRing: ring, metadataPolicy };
    const signer = metadataSigner(key);
    const spentStore = memorySpentStore();
    return {
      tokenKey: key.record.publicKeySpki,
      issuer: createIssuer({ ...shared, signer, limits, batchConcurrency: 1 }),
      redeemer: createRedeemer({
        ...shared,
        challenger,
        spentStore,
        crypto,
        clock,
        repeatWindowMs: 0,
      }),
    };
  };
  const digest = (): Uint8Array => crypto.sha256(challenger.challenge(scope, 0xda7a));

  it("gets a token that both sides take, with its own metadata alone", async () => {
    const { issuer, redeemer, tokenKey } = pieces();
    const made = await ask({ op: "metadata-request", tokenKey, digest: digest(), metadata });
    const { body } = await issuer.issue(MEDIA_TYPE_TOKEN_REQUEST, bytesOf(made.body));
    const { tokens = [] } = await ask({ op: "metadata-finish", id: made.id, body });
    const token = bytesOf(tokens[0]);
    const verify = async (other: Uint8Array): Promise<boolean> =>
      (await ask({ op: "metadata-verify", tokenKey, body: token, metadata: other })).valid;
    expect(await verify(metadata)).toBe(true);
    expect(await verify(metadata.subarray(1))).toBe(false);
    const redemption = { token, extensions: metadata, scope };
    expect(await redeemer.redeem(redemption)).toMatchObject({ outcome: "fresh" });
  });

  it("signs under our key, of safe primes as it wants them, byte for byte as we do", async () => {
    const { issuer, redeemer, tokenKey } = pieces();
    const made = await ask({ op: "metadata-request", tokenKey, digest: digest(), metadata });
    const pkcs8 = Uint8Array.from(key.privateKey.export({ format: "der", type: "pkcs8" }));
    const request = { op: "metadata-issue", key: pkcs8, tokenKey, body: bytesOf(made.body) };
    const theirs = await ask(request);
    expect(theirs.error).toBeUndefined();
    const ours = await issuer.issue(MEDIA_TYPE_TOKEN_REQUEST, bytesOf(made.body));
    expect(bytesOf(theirs.body)).toEqual(ours.body);
    const finish = { op: "metadata-finish", id: made.id, body: bytesOf(theirs.body) };
    const token = bytesOf((await ask(finish)).tokens?.[0]);
    const redemption = { token, extensions: metadata, scope };
    expect(await redeemer.redeem(redemption)).toMatchObject({ outcome: "fresh" });
  });
});
