/**
 * Decides about one request: clearance, then token, then challenge. It knows the values of a few headers
 * and nothing of sockets, so the data path, `/.stile/authorize` and `/.stile/redeem` share it.
 * Fails closed: whatever is thrown on the way ends in a refusal.
 */
import {
  type Challenger,
  formatWwwAuthenticate,
  withGrease,
  type IssuerKeyRecord,
  type KeyRing,
  parseAuthorization,
  type PresentedToken,
  type ChallengeScope,
  type Redeemer,
} from "../../tokens/index.ts";
import { type ErrorCode, encodeUtf8, isStileError, StileError } from "../../wire/index.ts";
import type { AdmittedBy, Metrics } from "../metrics.ts";
import type { Clearance, GrantedClearance } from "./clearance.ts";

/** What a decision is made from. Every string is hostile. */
export interface AdmissionRequest {
  /** One of the configured hosts. */
  readonly host: string;
  readonly cookie?: string | undefined;
  readonly authorization?: string | undefined;
  readonly idempotencyKey?: string | undefined;
  /** 32 bytes; absent where TLS ends before Stile. */
  readonly tlsExporter?: Uint8Array | undefined;
  /** The client's network, for the context `window+network`. */
  readonly network?: string | undefined;
}

export type AdmissionDecision =
  | {
      readonly kind: "admitted";
      readonly by: AdmittedBy;
      readonly clearance?: GrantedClearance | undefined;
      /** Name of the agent whose signature admitted it. */
      readonly agent?: string | undefined;
    }
  | {
      readonly kind: "challenged";
      readonly error: StileError;
      readonly wwwAuthenticate: string;
    };

export type Admitted = Extract<AdmissionDecision, { readonly kind: "admitted" }>;
export type Challenged = Extract<AdmissionDecision, { readonly kind: "challenged" }>;
/** What a clearance is looked for in. */
type Cleared = Pick<AdmissionRequest, "host" | "cookie">;

export interface AdmissionOptions {
  readonly challenger: Challenger;
  readonly redeemer: Redeemer;
  readonly keyRing: KeyRing;
  /** Types that are asked for, preferred first; a client answers one of the challenges. */
  readonly tokenTypes: readonly number[];
  readonly clearance: Clearance;
  readonly context: ChallengeScope["context"];
  readonly challengeMaxAgeSeconds: number;
  /** Random bytes, where greased challenges are to be among the real ones. */
  readonly grease?: (length: number) => Uint8Array;
  readonly sha256: (bytes: Uint8Array) => Uint8Array;
  readonly metrics: Metrics;
}

export interface Admission {
  /** @throws `TOKEN_STORE_UNAVAILABLE`, `TOKEN_ISSUER_BUSY` and anything unforeseen: the caller refuses the request */
  readonly decide: (request: AdmissionRequest) => Promise<AdmissionDecision>;
  /** Where a clearance admits that was verified before: nothing is waited for. */
  readonly byKnownClearance: (request: Cleared) => Admitted | undefined;
  /** Where a clearance admits: nothing is spent, counted or challenged otherwise. */
  readonly byClearance: (request: Cleared) => Promise<Admitted | undefined>;
  /** The same for a token that did not come in an Authorization header. */
  readonly redeem: (
    request: AdmissionRequest,
    presented: PresentedToken,
  ) => Promise<AdmissionDecision>;
}

/** RFC 9110 gives no bound; a retry key is a UUID or a digest, so longer ones are ignored. */
const MAX_IDEMPOTENCY_KEY_CHARS = 255;

function createClearanceCheck({
  clearance,
  metrics,
}: AdmissionOptions): Pick<Admission, "byClearance" | "byKnownClearance"> {
  function admittedIf(isCleared: boolean): Admitted | undefined {
    if (!isCleared) return undefined;
    metrics.admissions.inc("clearance");
    return { kind: "admitted", by: "clearance" };
  }
  return {
    byKnownClearance: ({ cookie, host }) => admittedIf(clearance.isKnown(host, cookie)),
    byClearance: async ({ cookie, host }) => admittedIf(await clearance.isValid(host, cookie)),
  };
}

export function createAdmission(options: AdmissionOptions): Admission {
  const { metrics } = options;
  const cleared = createClearanceCheck(options);
  // One for all: with whom nothing came, there is nothing to trace.
  const required = new StileError("SERVICE_TOKEN_REQUIRED", "a token is required");

  async function redeem(
    request: AdmissionRequest,
    presented: PresentedToken,
  ): Promise<AdmissionDecision> {
    try {
      const redemption = await options.redeemer.redeem({
        ...presented,
        scope: scopeOf(options, request),
        ...bindingOf(options, request),
      });
      const by = redemption.outcome === "fresh" ? "token" : "repeat";
      const clearance = await options.clearance.grant(request.host, redemption.redeemedAtMs);
      metrics.admissions.inc(by);
      return { kind: "admitted", by, clearance };
    } catch (error) {
      if (isStileError(error) && !isOurFault(error)) return challenge(request, error);
      throw error;
    }
  }

  function challenge(request: AdmissionRequest, error: StileError): AdmissionDecision {
    metrics.challenges.inc({ reason: error.code });
    return {
      kind: "challenged",
      error: asUnauthorized(error),
      wwwAuthenticate: wwwAuthenticateOf(options, request),
    };
  }

  return {
    redeem,
    ...cleared,
    decide: async (request) => {
      const admitted = await cleared.byClearance(request);
      if (admitted !== undefined) return admitted;
      let presented: PresentedToken | undefined;
      try {
        const { authorization } = request;
        presented = authorization === undefined ? undefined : parseAuthorization(authorization);
      } catch (error) {
        if (!isStileError(error)) throw error;
        return challenge(request, error);
      }
      if (presented !== undefined) return redeem(request, presented);
      return challenge(request, required);
    },
  };
}

function wwwAuthenticateOf(options: AdmissionOptions, request: AdmissionRequest): string {
  const scope = scopeOf(options, request);
  const challenges = signingKeys(options).map(({ tokenType, publicKeySpki }) => ({
    challenge: options.challenger.challenge(scope, tokenType),
    tokenKey: publicKeySpki,
    maxAgeSeconds: options.challengeMaxAgeSeconds,
  }));
  const { grease } = options;
  return formatWwwAuthenticate(grease === undefined ? challenges : withGrease(challenges, grease));
}

/** The token may be good and is not spent: asking for another would waste it. */
function isOurFault({ code }: StileError): boolean {
  return code === "TOKEN_STORE_UNAVAILABLE" || code === "TOKEN_ISSUER_BUSY";
}

/** The keys that new tokens are to be made with: the newest active one of each type. */
function signingKeys({ keyRing, tokenTypes }: AdmissionOptions): readonly IssuerKeyRecord[] {
  const keys = tokenTypes.flatMap((tokenType) => keyRing.signingKey(tokenType) ?? []);
  if (keys.length === 0) throw new StileError("SERVICE_OVERLOADED", "no issuer key is active");
  return keys;
}

/** @throws `SERVICE_REQUEST_INVALID` where a proxy did not say from where the client comes */
function scopeOf(options: AdmissionOptions, request: AdmissionRequest): ChallengeScope {
  if (options.context === "window+network" && request.network === undefined) {
    throw new StileError("SERVICE_REQUEST_INVALID", "the client's address is not known");
  }
  return {
    originInfo: request.host,
    context: options.context,
    ...(request.network === undefined ? {} : { network: request.network }),
    ...(request.tlsExporter === undefined ? {} : { tlsExporter: request.tlsExporter }),
  };
}

/**
 * What makes a second redemption a retry of the first: the key that the client chose, else the TLS
 * connection. A client may share its key with others; see `docs/architecture.md` on why that gives them
 * no more than sharing the clearance cookie would.
 */
function bindingOf(
  options: AdmissionOptions,
  request: AdmissionRequest,
): { binding: Uint8Array } | Record<string, never> {
  const key = request.idempotencyKey;
  if (key !== undefined && key.length > 0 && key.length <= MAX_IDEMPOTENCY_KEY_CHARS) {
    return { binding: options.sha256(encodeUtf8(`idempotency-key ${key}`)) };
  }
  return request.tlsExporter === undefined ? {} : { binding: options.sha256(request.tlsExporter) };
}

/** Malformed credentials are a failed authentication (RFC 9110 §11.6.1), whatever layer found out. */
function asUnauthorized(error: StileError): StileError {
  const malformed: ReadonlySet<ErrorCode> = new Set([
    "TOKEN_TYPE_UNSUPPORTED",
    "TOKEN_KEY_UNKNOWN",
    "TOKEN_METADATA_REFUSED",
    "WIRE_BAD_ENCODING",
    "WIRE_LENGTH_OUT_OF_BOUNDS",
    "WIRE_TOO_SHORT",
    "WIRE_TRAILING_BYTES",
    "WIRE_VALUE_NOT_ALLOWED",
  ]);
  if (!malformed.has(error.code)) return error;
  return new StileError("TOKEN_AUTHENTICATOR_INVALID", "the token is not valid here", {
    cause: error,
  });
}
