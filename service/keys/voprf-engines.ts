/**
 * What computes the private token types on this machine. Where that is JavaScript, whose timing can tell a key, the
 * operator is told in words: which library is missing, and how to get it.
 */
import {
  createVoprfEngine,
  isVoprfTokenType,
  type VoprfEnginePreference,
  type VoprfTokenType,
} from "../../tokens/voprf/index.ts";
import { isStileError, StileError } from "../../wire/index.ts";

export interface VoprfEngineView {
  readonly tokenType: VoprfTokenType;
  /** With its version: `libsodium 1.0.18`. */
  readonly engine: string;
  /** Where it is not the native one. */
  readonly warning?: string;
}

export interface VoprfEngineSettings {
  readonly tokenTypes: readonly number[];
  readonly voprfEngine: VoprfEnginePreference;
}

const JAVASCRIPT = "noble";

const REMEDIES: Readonly<Record<VoprfTokenType, string>> = {
  1: "run a Node that exports its OpenSSL, as the builds of nodejs.org do",
  5: "install libsodium 1.0.18 or newer (Debian 12: apt-get install libsodium23)",
};

/** @throws `TOKEN_ENGINE_MISSING`, which says what to install, where JavaScript is not allowed */
export function voprfEngines({
  tokenTypes,
  voprfEngine,
}: VoprfEngineSettings): readonly VoprfEngineView[] {
  return tokenTypes.filter(isVoprfTokenType).map((tokenType) => {
    const engine = engineOf(tokenType, voprfEngine);
    if (engine !== JAVASCRIPT) return { tokenType, engine };
    const what = `token type ${tokenType} is computed in JavaScript, whose timing can tell its key`;
    return { tokenType, engine, warning: `${what}: ${REMEDIES[tokenType]}` };
  });
}

function engineOf(tokenType: VoprfTokenType, preference: VoprfEnginePreference): string {
  try {
    return createVoprfEngine(tokenType, preference).engine;
  } catch (cause) {
    if (!isStileError(cause, "TOKEN_ENGINE_MISSING")) throw cause;
    const message = `${cause.message}; ${REMEDIES[tokenType]}, or set issuer.voprfEngine: any`;
    throw new StileError("TOKEN_ENGINE_MISSING", message, { cause });
  }
}
