/** Keys of types 0x0001 and 0x0005 on the worker threads. */
import { createSecretKey } from "node:crypto";
import { describe, expect, it, onTestFinished } from "vitest";
import { SigningPool, type SigningPoolOptions } from "../../service/signing/index.ts";
import { concatBytes } from "../../wire/index.ts";
import { generateBlindRsaKey } from "../../tokens/node/index.ts";
import { codeOfAsync } from "../support/reject.ts";
import { sharedMissing } from "../support/shared.ts";
import { bytesOf, readVectors } from "../tokens/vectors.ts";
import { voprfKey, voprfOf } from "../tokens/voprf-fixtures.ts";

function pool(options: Partial<SigningPoolOptions> = {}): SigningPool {
  const made = new SigningPool({ threads: 1, ...options });
  onTestFinished(() => made.close());
  return made;
}

describe.skipIf(sharedMissing).each([
  [1, "privacypass-ts/priv_verif_rfc9578.go.json"],
  [5, "pat-go/private__type5-issuance-test-vectors.json"],
] as const)("type %i as in %s", (type, path) => {
  it("evaluates, proves and verifies", async () => {
    const signer = pool();
    const { Ne } = voprfOf(type).suite;
    for (const vector of readVectors(path)) {
      const { privateKey, record } = voprfKey(type, bytesOf(vector, "skS"));
      const { tokenKeyId, publicKeySpki } = record;
      signer.addKey(tokenKeyId, privateKey, type);
      const blinded = bytesOf(vector, "token_request").subarray(3);
      const response = await signer.blindSign(tokenKeyId, blinded);
      const expected = bytesOf(vector, "token_response").subarray(0, Ne);
      expect(response.subarray(0, Ne)).toEqual(expected);
      expect(voprfOf(type).verifyResponse(publicKeySpki, blinded, response)).toBe(true);
      const token = bytesOf(vector, "token");
      const [input, authenticator] = [token.subarray(0, 98), token.subarray(98)];
      expect(await signer.verifyPrivate(tokenKeyId, input, authenticator)).toBe(true);
      const other = input.with(9, input[9]! ^ 1);
      expect(await signer.verifyPrivate(tokenKeyId, other, authenticator)).toBe(false);
      expect(await signer.verifyPrivate(tokenKeyId, input, authenticator.subarray(1))).toBe(false);
    }
  });
});

describe.each([1, 5] as const)("type %i in the pool", (type) => {
  const { privateKey, record } = voprfKey(type);
  const { tokenKeyId, publicKeySpki: element } = record;

  it.each(["native", "any", "portable"] as const)("works on the %s engine", async (voprfEngine) => {
    const signer = pool({ voprfEngine });
    signer.addKey(tokenKeyId, privateKey, type);
    const response = await signer.blindSign(tokenKeyId, element);
    expect(voprfOf(type).verifyResponse(element, element, response)).toBe(true);
  });

  it("rejects what is no element, a scalar that is none, and a removed key", async () => {
    const signer = pool();
    signer.addKey(tokenKeyId, privateKey, type);
    const refused = (blinded: Uint8Array): Promise<string | undefined> =>
      codeOfAsync(() => signer.blindSign(tokenKeyId, blinded));
    expect(await refused(new Uint8Array(element.length))).toBe("TOKEN_REQUEST_INVALID");
    expect(await refused(element.subarray(1))).toBe("TOKEN_REQUEST_INVALID");
    expect(await refused(new Uint8Array(0))).toBe("TOKEN_REQUEST_INVALID");
    const badId = new Uint8Array(32);
    signer.addKey(badId, createSecretKey(new Uint8Array(48)), type);
    expect(await codeOfAsync(() => signer.blindSign(badId, element))).toBe(
      "TOKEN_KEY_STORE_INVALID",
    );
    signer.removeKey(tokenKeyId);
    expect(await refused(element)).toBe("TOKEN_KEY_UNKNOWN");
    expect(
      await codeOfAsync(() => signer.verifyPrivate(tokenKeyId, new Uint8Array(98), element)),
    ).toBe("TOKEN_KEY_UNKNOWN");
  });

  it("weighs a batch by its elements, and rejects as busy behind too many", async () => {
    const shed: boolean[] = [];
    const signer = pool({ maxQueued: 20, observe: { shed: () => shed.push(true) } });
    signer.addKey(tokenKeyId, privateKey, type);
    const batch = concatBytes(Array.from({ length: 20 }, () => element));
    const first = signer.blindSign(tokenKeyId, batch);
    expect(await codeOfAsync(() => signer.blindSign(tokenKeyId, element))).toBe(
      "TOKEN_ISSUER_BUSY",
    );
    expect(shed).toEqual([true]);
    expect(voprfOf(type).verifyResponse(element, batch, await first)).toBe(true);
    // the queue is empty again
    expect(await signer.blindSign(tokenKeyId, element)).toHaveLength(type === 1 ? 145 : 96);
  });
});

describe("keys of the pool", () => {
  it("rejects a key that is not of its type, and to verify with a public one", async () => {
    const signer = pool();
    const rsa = await generateBlindRsaKey();
    const scalar = voprfKey(5);
    for (const [key, type] of [
      [scalar.privateKey, 2],
      [rsa.privateKey, 1],
      [scalar.privateKey, 9],
    ] as const) {
      expect(() => signer.addKey(new Uint8Array(32), key, type)).toThrow(TypeError);
    }
    signer.addKey(rsa.tokenKeyId, rsa.privateKey);
    expect(
      await codeOfAsync(() =>
        signer.verifyPrivate(rsa.tokenKeyId, new Uint8Array(98), rsa.tokenKeyId),
      ),
    ).toBe("TOKEN_KEY_UNKNOWN");
  });
});
