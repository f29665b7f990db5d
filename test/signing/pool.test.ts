import { execFileSync } from "node:child_process";
import { createHash, createPrivateKey, generateKeyPairSync, type KeyObject } from "node:crypto";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { SigningPool, type SigningPoolOptions } from "../../service/signing/index.ts";
import { parseTokenRequest } from "../../tokens/index.ts";
import { generateBlindRsaKey, rawRsaSign } from "../../tokens/node/index.ts";
import { isStileError } from "../../wire/index.ts";
import { codeOfAsync } from "../support/reject.ts";
import { sharedMissing } from "../support/shared.ts";
import { testFolder } from "../stores/support/folder.ts";
import { bytesOf, readVectors } from "../tokens/vectors.ts";

const dyingWorker = new URL("./support/dying-worker.ts", import.meta.url);
const brokenWorker = new URL("./support/broken-worker.ts", import.meta.url);
const { tokenKeyId, privateKey } = await generateBlindRsaKey();

function pool(options: Partial<SigningPoolOptions> = {}): SigningPool {
  const made = new SigningPool({ threads: 2, ...options });
  onTestFinished(() => made.close());
  made.addKey(tokenKeyId, privateKey);
  return made;
}

/** 256 bytes below any 2048-bit modulus. */
function blinded(seed: number, first: readonly number[] = [0]): Uint8Array {
  const block = createHash("sha512").update(`blinded ${seed}`).digest();
  const message = new Uint8Array(256).map((_, i) => block[i % block.length] ?? 0);
  message.set(first);
  return message;
}

describe.skipIf(sharedMissing)("signing pool on published vectors", () => {
  it.each([
    "privacypass-ts/pub_verif_rfc9578.go.json",
    "pat-go/type2__type2-issuance-test-vectors.json",
  ])("signs as %s", async (path) => {
    const signer = pool();
    for (const vector of readVectors(path)) {
      const pem = Buffer.from(bytesOf(vector, "skS")).toString("latin1");
      const keyId = new Uint8Array(createHash("sha256").update(bytesOf(vector, "pkS")).digest());
      signer.addKey(keyId, createPrivateKey(pem));
      const { blindedMessage } = parseTokenRequest(bytesOf(vector, "token_request"));
      const signature = await signer.blindSign(keyId, blindedMessage);
      expect(Buffer.from(signature)).toEqual(Buffer.from(bytesOf(vector, "token_response")));
    }
  });
});

describe("signing pool", () => {
  it("signs several messages in one call, all or nothing", async () => {
    const signer = pool();
    const messages = [1, 2, 3].map((seed) => blinded(seed));
    const signed = await signer.blindSign(tokenKeyId, Buffer.concat(messages));
    const expected = messages.map((message) => rawRsaSign(privateKey, message));
    expect(Buffer.from(signed)).toEqual(Buffer.concat(expected));
    const [one, two] = messages;
    for (const bad of [[one, blinded(2, [255])], [one, two?.subarray(1)], []]) {
      const bytes = Buffer.concat(bad.map((part) => part ?? new Uint8Array(0)));
      expect(await codeOfAsync(() => signer.blindSign(tokenKeyId, bytes))).toBe(
        "TOKEN_REQUEST_INVALID",
      );
    }
  });

  it("is closed while its threads start, at any moment of it", async () => {
    // A thread that was terminated while it loaded its native library took the process with it.
    for (const afterMs of [0, 30, 60, 90, 120]) {
      const starting = pool();
      await setTimeout(afterMs);
      await starting.close();
      expect(await codeOfAsync(() => starting.blindSign(tokenKeyId, blinded(1)))).toBe(
        "TOKEN_ISSUER_BUSY",
      );
    }
  });

  it("answers 300 concurrent requests, each its own, with keys side by side", async () => {
    const other = await generateBlindRsaKey();
    const signer = pool();
    signer.addKey(other.tokenKeyId, other.privateKey);
    const keys: readonly (readonly [Uint8Array, KeyObject])[] = [
      [tokenKeyId, privateKey],
      [other.tokenKeyId, other.privateKey],
    ];
    await Promise.all(
      Array.from({ length: 300 }, async (_, i) => {
        const [keyId, key] = keys[i % 2]!;
        expect(await signer.blindSign(keyId, blinded(i))).toEqual(rawRsaSign(key, blinded(i)));
      }),
    );
  });

  it("rejects a message that is no input of the operation with the code of the operation", async () => {
    const signer = pool();
    for (const wrong of [
      new Uint8Array(255),
      new Uint8Array(256),
      new Uint8Array(256).fill(0xff),
    ]) {
      const code = await codeOfAsync(() => signer.blindSign(tokenKeyId, wrong));
      expect(code).toBe("TOKEN_REQUEST_INVALID");
    }
  });

  it("rejects a key that it does not hold, and one that was removed while requests waited", async () => {
    const signer = pool({ threads: 1 });
    const codes = Array.from({ length: 40 }, (_, i) =>
      codeOfAsync(() => signer.blindSign(tokenKeyId, blinded(i))),
    );
    signer.removeKey(tokenKeyId);
    expect(await codeOfAsync(() => signer.blindSign(tokenKeyId, blinded(0)))).toBe(
      "TOKEN_KEY_UNKNOWN",
    );
    expect(new Set(await Promise.all(codes))).toEqual(new Set(["TOKEN_KEY_UNKNOWN"]));
  });

  it("rejects keys that cannot sign and a pool without threads", () => {
    const signer = pool({ threads: 1 });
    const { privateKey: wrong } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    expect(() => signer.addKey(tokenKeyId, wrong)).toThrow(TypeError);
    expect(() => new SigningPool({ threads: 0 })).toThrow(RangeError);
  });

  it("rejects what the queue cannot hold, with the seconds to wait, and signs the rest", async () => {
    let shed = 0;
    const signer = pool({ threads: 1, maxQueued: 10, observe: { shed: () => (shed += 1) } });
    const results = await Promise.allSettled(
      Array.from({ length: 30 }, (_, i) => signer.blindSign(tokenKeyId, blinded(i))),
    );
    const refused = results.filter(({ status }) => status === "rejected");
    expect(results.length - refused.length).toBe(10);
    expect(shed).toBe(refused.length);
    for (const result of refused) {
      const error: unknown = result.status === "rejected" ? result.reason : undefined;
      expect(isStileError(error, "TOKEN_ISSUER_BUSY") && error.retryAfterSeconds).toBe(1);
    }
  });

  it("replaces a thread that dies in the middle of work and loses no request", async () => {
    vi.stubEnv("STILE_TEST_DIED", join(testFolder(), "died"));
    onTestFinished(() => {
      vi.unstubAllEnvs();
    });
    let deaths = 0;
    const observe = { workerDied: () => (deaths += 1) };
    const signer = pool({ workerUrl: dyingWorker, observe });
    const messages = Array.from({ length: 60 }, (_, i) => blinded(i));
    messages.splice(3, 0, blinded(3, [0, 0, 0xfd]));
    const signatures = await Promise.all(messages.map((m) => signer.blindSign(tokenKeyId, m)));
    expect(signatures).toEqual(messages.map((message) => rawRsaSign(privateKey, message)));
    expect(deaths).toBe(1);
  });

  it("rejects a request over which threads die twice, and lives on", async () => {
    let deaths = 0;
    const observe = { workerDied: () => (deaths += 1) };
    const signer = pool({ threads: 1, workerUrl: dyingWorker, observe });
    const killer = signer.blindSign(tokenKeyId, blinded(0, [0, 0, 0xfe]));
    expect(await codeOfAsync(() => killer)).toBe("TOKEN_ISSUER_BUSY");
    expect(deaths).toBe(2);
    expect(await signer.blindSign(tokenKeyId, blinded(1))).toHaveLength(256);
  });

  it("rejects requests while no thread can start", async () => {
    const signer = pool({ workerUrl: brokenWorker });
    const waiting = signer.blindSign(tokenKeyId, blinded(1));
    expect(await codeOfAsync(() => waiting)).toBe("TOKEN_ISSUER_BUSY");
    expect(signer.isReady).toBe(false);
  });

  it("answers what it has taken before it closes, and rejects what comes after", async () => {
    const signer = pool();
    const taken = Array.from({ length: 50 }, (_, i) => signer.blindSign(tokenKeyId, blinded(i)));
    const closing = signer.close();
    const late = await codeOfAsync(() => signer.blindSign(tokenKeyId, blinded(0)));
    expect(late).toBe("TOKEN_ISSUER_BUSY");
    await closing;
    expect((await Promise.all(taken)).map(({ length }) => length)).toEqual(Array(50).fill(256));
  });

  it("does not keep a process alive that has nothing to sign", () => {
    const script = join(import.meta.dirname, "support", "idle.ts");
    expect(execFileSync(process.execPath, [script], { timeout: 10_000 }).toString()).toBe("256");
  });
});
