/** A runtime that exports no OpenSSL, and token type 0xDA7A, which has no other engine. */
import { expect, it, vi } from "vitest";
import { createPartiallyBlindSigner } from "../../tokens/partially-blind-rsa/index.ts";
import { codeOf, codeOfAsync } from "../support/reject.ts";
import { startTestSidecar } from "../support/sidecar.ts";
import { testKey } from "../tokens/fixtures.ts";

const TWO_DAYS = { expirationPrecisionSeconds: 86_400, maxLifetimeSeconds: 172_800 };

vi.mock("../../tokens/openssl/libcrypto.ts", () => ({ loadLibcrypto: () => undefined }));

it("rejects at the start, and never computes in another way", async () => {
  const issuer = { tokenTypes: [2, 0xda7a], publicMetadata: TWO_DAYS };
  expect(await codeOfAsync(() => startTestSidecar({ issuer }))).toBe("TOKEN_ENGINE_MISSING");
  const { privateKey } = testKey();
  expect(codeOf(() => createPartiallyBlindSigner(privateKey))).toBe("TOKEN_ENGINE_MISSING");
});
