/**
 * Which library computes: the native one where it can be loaded, big integers in JavaScript where it
 * cannot and the caller allows that. The choice is named, so that it can stand in a metric and a log.
 */
import { StileError } from "../../wire/index.ts";
import { TOKEN_TYPE_VOPRF_P384 } from "../structures/token-types.ts";
import { voprfCiphersuite, type VoprfGroup, type VoprfTokenType } from "./group.ts";
import { createNobleP384, createNobleRistretto255 } from "./noble-groups.ts";
import { createOpensslP384 } from "./openssl-p384.ts";
import { createVoprf, type Voprf } from "./protocol.ts";
import { createSodiumRistretto255 } from "./sodium-ristretto255.ts";

/**
 * - `native`: a native library or `TOKEN_ENGINE_MISSING`; private keys never meet big integers.
 * - `any`: a native library where there is one, else JavaScript.
 * - `portable`: JavaScript; its timing depends on the key. For tests.
 */
export type VoprfEnginePreference = "native" | "any" | "portable";

/** @throws `TOKEN_ENGINE_MISSING` with `native` where the library cannot be loaded */
export function createVoprfEngine(
  tokenType: VoprfTokenType,
  preference: VoprfEnginePreference,
): Voprf {
  return createVoprf(voprfCiphersuite(tokenType), groupFor(tokenType, preference));
}

/** @throws `TOKEN_ENGINE_MISSING`, as above */
export function groupFor(tokenType: VoprfTokenType, preference: VoprfEnginePreference): VoprfGroup {
  const isP384 = tokenType === TOKEN_TYPE_VOPRF_P384;
  const native = isP384 ? createOpensslP384 : createSodiumRistretto255;
  const portable = isP384 ? createNobleP384 : createNobleRistretto255;
  const group = preference === "portable" ? portable() : native();
  if (group !== undefined) return group;
  if (preference === "any") return portable();
  const wanted = isP384 ? "0x0001: expected a runtime with OpenSSL" : "0x0005: expected libsodium";
  throw new StileError("TOKEN_ENGINE_MISSING", `token type ${wanted}`);
}
