/**
 * Makes token challenges and says which ones would have been ours, without storing any: redemption
 * contexts come from a keyed PRF over what the request shows (RFC 9577 §2.1.1.2). Every edge with the
 * same secret and issuer accepts the same challenges, so those edges must share the spent store
 * (RFC 9577 §2.2.2).
 */
import { encodeUtf8, Writer } from "../../wire/index.ts";
import type { TokenCrypto } from "../crypto.ts";
import { isOriginInfo, isServerName } from "../structures/server-name.ts";
import { encodeTokenChallenge } from "../structures/token-challenge.ts";

/** What a token is bound to. */
export interface ChallengeScope {
  /** Origin names joined by commas; should name this origin. */
  readonly originInfo: string;
  /**
   * `none`: an empty context; tokens are fetched ahead and last as long as their key.
   * `window`: a period of time. `window+network`: and the client's network.
   * `connection`: one TLS connection; no stored token fits it.
   */
  readonly context: "none" | "window" | "window+network" | "connection";
  /** Canonical name of the client's network (an AS number, a prefix); for `window+network`. */
  readonly network?: string;
  /** 32 bytes, RFC 9266 `tls-exporter`; for `connection`. */
  readonly tlsExporter?: Uint8Array;
}

export interface ChallengerOptions {
  /** `host[:port]` of the issuer. */
  readonly issuerName: string;
  /** 32 bytes or more, shared by the edges that share a spent store. */
  readonly secret: Uint8Array;
  readonly crypto: TokenCrypto;
  /** Unix milliseconds. */
  readonly clock: () => number;
  /** Length of a window; a token is accepted in its window and in the next one. */
  readonly windowMs: number;
}

export interface Challenger {
  /** The encoded TokenChallenge of now. @throws TypeError when the scope lacks what its context needs */
  challenge(scope: ChallengeScope, tokenType: number): Uint8Array;
  /**
   * SHA-256 of each challenge that is still accepted in this scope: the current one, and that of the
   * previous window. One or two digests of 32 bytes. @throws TypeError as above
   */
  acceptedDigests(scope: ChallengeScope, tokenType: number): readonly Uint8Array[];
}

const MIN_SECRET_BYTES = 32;
const MIN_WINDOW_MS = 1000;
const TLS_EXPORTER_BYTES = 32;
const LABEL = encodeUtf8("stile/1 redemption context");

/** @throws RangeError */
export function createChallenger(options: ChallengerOptions): Challenger {
  const { issuerName, crypto, clock, windowMs } = options;
  if (!isServerName(issuerName)) throw new RangeError("issuerName: expected a server name");
  if (options.secret.length < MIN_SECRET_BYTES) {
    throw new RangeError(`secret: expected at least ${MIN_SECRET_BYTES} bytes`);
  }
  if (!Number.isSafeInteger(windowMs) || windowMs < MIN_WINDOW_MS) {
    throw new RangeError(`windowMs: expected at least ${MIN_WINDOW_MS}`);
  }
  const secret = Uint8Array.from(options.secret);

  function make(scope: ChallengeScope, tokenType: number, window: number): MadeChallenge {
    if (!isOriginInfo(scope.originInfo)) throw new TypeError("originInfo: expected server names");
    const { originInfo } = scope;
    const input = contextInput(scope, issuerName, window);
    const redemptionContext = input ? crypto.hmacSha256(secret, input) : new Uint8Array(0);
    const fields = { tokenType, issuerName, redemptionContext, originInfo };
    const challenge = encodeTokenChallenge(fields);
    return { challenge, digest: crypto.sha256(challenge) };
  }

  const made = createMemo();
  function challengeOf(scope: ChallengeScope, tokenType: number, window: number): MadeChallenge {
    if (scope.context === "connection") return make(scope, tokenType, window);
    const { context, originInfo, network } = scope;
    const name = JSON.stringify([
      tokenType,
      hasWindow(scope) && window,
      context,
      originInfo,
      network,
    ]);
    return made(name, () => make(scope, tokenType, window));
  }

  return {
    challenge(scope, tokenType) {
      const window = Math.floor(clock() / windowMs);
      return Uint8Array.from(challengeOf(scope, tokenType, window).challenge);
    },
    acceptedDigests(scope, tokenType) {
      const current = Math.floor(clock() / windowMs);
      const windows = hasWindow(scope) ? [current, Math.max(0, current - 1)] : [current];
      return windows.map((window) => Uint8Array.from(challengeOf(scope, tokenType, window).digest));
    },
  };
}

interface MadeChallenge {
  readonly challenge: Uint8Array;
  readonly digest: Uint8Array;
}

/** Sites times networks times two windows; a flood of networks costs what no memory would cost. */
const MAX_REMEMBERED = 1024;

/** Remembers what is a function of its name anyway; emptied when full. */
function createMemo(): (name: string, make: () => MadeChallenge) => MadeChallenge {
  const known = new Map<string, MadeChallenge>();
  return (name, make) => {
    const hit = known.get(name);
    if (hit !== undefined) return hit;
    const made = make();
    if (known.size >= MAX_REMEMBERED) known.clear();
    known.set(name, made);
    return made;
  };
}

function hasWindow(scope: ChallengeScope): boolean {
  return scope.context === "window" || scope.context === "window+network";
}

/**
 * The PRF input of a scope; `undefined` for the empty context. Each part has its length, so that no two
 * scopes share an input. @throws TypeError
 */
function contextInput(
  scope: ChallengeScope,
  issuerName: string,
  window: number,
): Uint8Array | undefined {
  const varying = varyingInput(scope, window);
  if (varying === undefined) return undefined;
  return new Writer()
    .vec16(LABEL)
    .vec16(encodeUtf8(scope.context))
    .vec16(encodeUtf8(issuerName))
    .vec16(encodeUtf8(scope.originInfo))
    .vec16(varying)
    .finish();
}

/** What the context of a scope depends on beside the names. @throws TypeError */
function varyingInput(scope: ChallengeScope, window: number): Uint8Array | undefined {
  switch (scope.context) {
    case "none":
      return undefined;
    case "window":
      return new Writer().u64(BigInt(window)).finish();
    case "window+network":
      if (scope.network === undefined || scope.network === "") {
        throw new TypeError("network: expected the name of a network");
      }
      return new Writer().u64(BigInt(window)).vec16(encodeUtf8(scope.network)).finish();
    case "connection":
      if (scope.tlsExporter?.length !== TLS_EXPORTER_BYTES) {
        throw new TypeError(`tlsExporter: expected ${TLS_EXPORTER_BYTES} bytes`);
      }
      return scope.tlsExporter;
  }
  return unknownContext(scope.context);
}

function unknownContext(context: never): never {
  throw new TypeError(`context: unknown value ${String(context)}`);
}
