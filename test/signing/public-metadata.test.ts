/** Keys of type 0xDA7A on the worker threads. */
import { createSecretKey } from "node:crypto";
import { expect, it, describe, onTestFinished } from "vitest";
import { SigningPool } from "../../service/signing/index.ts";
import { parseExtendedTokenRequest } from "../../tokens/index.ts";
import { codeOfAsync } from "../support/reject.ts";
import { sharedMissing } from "../support/shared.ts";
import { testKey } from "../tokens/fixtures.ts";
import { metadataKey, metadataVectors } from "../tokens/metadata-fixtures.ts";
import { bytesOf } from "../tokens/vectors.ts";

const TYPE = 0xda7a;

describe.skipIf(sharedMissing)("type 0xDA7A in the pool", () => {
  it("signs the vectors, and only with metadata, and only under keys that have some", async () => {
    const pool = new SigningPool({ threads: 1 });
    onTestFinished(() => pool.close());
    const { privateKey, record } = metadataKey();
    const { tokenKeyId } = record;
    pool.addKey(tokenKeyId, privateKey, TYPE);
    for (const vector of metadataVectors()) {
      const { extensions, request } = parseExtendedTokenRequest(bytesOf(vector, "token_request"));
      const [message, metadata] = [request.blindedMessage, extensions.encoded];
      expect(await pool.blindSign(tokenKeyId, message, metadata)).toEqual(
        bytesOf(vector, "token_response"),
      );
      // A signature under 65537 would be one of another scheme, by the same key.
      expect(await codeOfAsync(() => pool.blindSign(tokenKeyId, message))).toBe(
        "TOKEN_REQUEST_INVALID",
      );
      const blind = testKey();
      pool.addKey(blind.record.tokenKeyId, blind.privateKey);
      const mixed = (): Promise<unknown> =>
        pool.blindSign(blind.record.tokenKeyId, message, metadata);
      expect(await codeOfAsync(mixed)).toBe("TOKEN_REQUEST_INVALID");
      const verify = (): Promise<unknown> => pool.verifyPrivate(tokenKeyId, message, message);
      expect(await codeOfAsync(verify)).toBe("TOKEN_KEY_UNKNOWN");
      const two = new Uint8Array(512).fill(1);
      expect(await codeOfAsync(() => pool.blindSign(tokenKeyId, two, metadata))).toBe(
        "TOKEN_REQUEST_INVALID",
      );
      pool.removeKey(tokenKeyId);
      expect(await codeOfAsync(() => pool.blindSign(tokenKeyId, message, metadata))).toBe(
        "TOKEN_KEY_UNKNOWN",
      );
    }
    const scalar = createSecretKey(Buffer.alloc(48, 1));
    expect(() => pool.addKey(tokenKeyId, scalar, TYPE)).toThrow(TypeError);
  });
});
