/** P-384 on an OpenSSL that was built without its deprecated functions. */
import { expect, it, vi } from "vitest";
import { createVoprfEngine } from "../../tokens/voprf/index.ts";
import type * as libcrypto from "../../tokens/openssl/libcrypto.ts";
import { concatBytes } from "../../wire/index.ts";
import { random } from "./voprf-fixtures.ts";

vi.mock("../../tokens/openssl/libcrypto.ts", async (original) => {
  const { loadLibcrypto } = await original<typeof libcrypto>();
  return {
    loadLibcrypto: () => {
      const { multiplySum, ...rest } = loadLibcrypto() ?? {};
      expect(multiplySum).toBeDefined();
      return rest;
    },
  };
});

it("sums public products one by one, with the same result", () => {
  const voprf = createVoprfEngine(1, "native");
  expect(voprf.engine).toMatch(/^openssl /);
  const portable = createVoprfEngine(1, "portable");
  const [key, nonce] = [voprf.nonceOf(random(72)), voprf.nonceOf(random(72))];
  const publicKey = voprf.publicKeyOf(key);
  const blinded = concatBytes([publicKey, voprf.publicKeyOf(nonce), publicKey]);
  const response = voprf.blindEvaluate(key, publicKey, blinded, nonce);
  expect(portable.blindEvaluate(key, publicKey, blinded, nonce)).toEqual(response);
  expect(voprf.verifyResponse(publicKey, blinded, response)).toBe(true);
});
