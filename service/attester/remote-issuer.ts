/**
 * An issuer elsewhere, as an attester asks it (RFC 9576 §3.2.3): mutual TLS 1.3, and of the client's request the
 * bytes of the body and their media type, nothing else. What comes back is checked for its form; that the
 * signatures are good, the client finds out.
 */
import { readFileSync } from "node:fs";
import { Agent } from "node:https";
import {
  countTokenRequests,
  type IssuanceMediaType,
  type IssuanceResult,
  type MetadataPolicy,
  type Issuer,
  MEDIA_TYPE_AMORTIZED_BATCH_REQUEST,
  MEDIA_TYPE_AMORTIZED_BATCH_RESPONSE,
  MEDIA_TYPE_GENERIC_BATCH_REQUEST,
  MEDIA_TYPE_GENERIC_BATCH_RESPONSE,
  MEDIA_TYPE_TOKEN_REQUEST,
  MEDIA_TYPE_TOKEN_RESPONSE,
  parseGenericBatchTokenResponse,
} from "../../tokens/index.ts";
import { ERROR_CODES, type ErrorCode, isStileError, StileError } from "../../wire/index.ts";
import { exchange, type ExchangeAnswer } from "../agent/exchange.ts";
import type { RemoteIssuerConfig } from "../config/index.ts";
import { TOKEN_REQUEST_PATH } from "../issuer/tenants.ts";
import { PROBLEM_PREFIX } from "../problems.ts";

export interface RemoteIssuerOptions {
  readonly config: RemoteIssuerConfig;
  readonly limits: { readonly maxItems: number; readonly maxBytes: number };
  /** Where the attester holds its clients to the issuer's grid, too. */
  readonly metadataPolicy?: MetadataPolicy;
}

const MAX_CONNECTIONS = 16;
const RESPONSES = {
  [MEDIA_TYPE_TOKEN_REQUEST]: MEDIA_TYPE_TOKEN_RESPONSE,
  [MEDIA_TYPE_GENERIC_BATCH_REQUEST]: MEDIA_TYPE_GENERIC_BATCH_RESPONSE,
  [MEDIA_TYPE_AMORTIZED_BATCH_REQUEST]: MEDIA_TYPE_AMORTIZED_BATCH_RESPONSE,
} as const;

/** What an issuer's refusal may tell a client: that its request was at fault. */
const CLIENT_FAULTS: readonly ErrorCode[] = [
  "TOKEN_REQUEST_INVALID",
  "TOKEN_TYPE_UNSUPPORTED",
  "TOKEN_KEY_UNKNOWN",
  "TOKEN_METADATA_REFUSED",
  "TOKEN_BATCH_TOO_LARGE",
  "TOKEN_BATCH_REFUSED",
];

export interface RemoteIssuer extends Issuer {
  readonly close: () => void;
}

/** @throws `SERVICE_CONFIG_INVALID` where a file cannot be read */
export function createRemoteIssuer({
  config,
  limits,
  metadataPolicy,
}: RemoteIssuerOptions): RemoteIssuer {
  const agent = new Agent({
    keepAlive: true,
    maxSockets: MAX_CONNECTIONS,
    cert: readPem(config.certificateFile),
    key: readPem(config.keyFile),
    minVersion: "TLSv1.3",
    ...(config.caFile === undefined ? {} : { ca: readPem(config.caFile) }),
  });
  const url = new URL(TOKEN_REQUEST_PATH, config.url).href;
  return {
    examine: (mediaType, body) => countTokenRequests(mediaType, body, limits, metadataPolicy),
    issue: async (mediaType, body) => {
      const count = countTokenRequests(mediaType, body, limits);
      const headers = {
        "content-type": mediaType,
        "content-length": String(body.length),
        accept: RESPONSES[mediaType],
      };
      const timeoutMs = config.timeoutSeconds * 1_000;
      const answer = await exchange({ url, method: "POST", headers, body, agent, timeoutMs }).catch(
        (cause: unknown) => {
          throw unavailable("the issuer does not answer", cause);
        },
      );
      return resultOf(mediaType, answer, count);
    },
    close: () => agent.destroy(),
  };
}

function resultOf(
  requested: IssuanceMediaType,
  answer: ExchangeAnswer,
  count: number,
): IssuanceResult {
  const mediaType = (answer.headers["content-type"] ?? "").split(";")[0]?.trim().toLowerCase();
  const expected = RESPONSES[requested];
  const { body, status } = answer;
  if (status === 200 && mediaType === expected)
    return { status, mediaType: expected, body, issued: count };
  if (status === 206 && expected === MEDIA_TYPE_GENERIC_BATCH_RESPONSE && mediaType === expected) {
    return { status, mediaType: expected, body, issued: issuedOf(body, count) };
  }
  throw refusalOf(answer);
}

function issuedOf(body: Uint8Array, count: number): number {
  try {
    const responses = parseGenericBatchTokenResponse(body, {
      maxItems: count,
      maxBytes: body.length,
    });
    return responses.filter((response) => response !== undefined).length;
  } catch (error) {
    if (!isStileError(error)) throw error;
    throw unavailable("the issuer answered with a malformed batch", error);
  }
}

/** Why is for the client only where the client is at fault; that we are not trusted is not. */
function refusalOf({ body, headers, status }: ExchangeAnswer): StileError {
  const code = CLIENT_FAULTS.find((fault) => codeIn(body) === fault);
  if (code !== undefined) return new StileError(code, ERROR_CODES[code]);
  if (status === 422)
    return new StileError("TOKEN_REQUEST_INVALID", ERROR_CODES.TOKEN_REQUEST_INVALID);
  if (status === 429 || status === 503) {
    const seconds = Number(headers["retry-after"]);
    const retryAfterSeconds = Number.isInteger(seconds) && seconds > 0 ? seconds : 1;
    return new StileError("TOKEN_ISSUER_BUSY", "the issuer asks to come later", {
      retryAfterSeconds,
    });
  }
  return unavailable(`the issuer answered with status ${status}`);
}

function codeIn(body: Uint8Array): string | undefined {
  try {
    const { type } = JSON.parse(Buffer.from(body).toString("utf8")) as { type?: unknown };
    if (typeof type !== "string" || !type.startsWith(PROBLEM_PREFIX)) return undefined;
    return type.slice(PROBLEM_PREFIX.length).replaceAll("-", "_").toUpperCase();
  } catch {
    return undefined;
  }
}

function readPem(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    const message = `configuration: attester.issuer: cannot read ${file}`;
    throw new StileError("SERVICE_CONFIG_INVALID", message, { cause });
  }
}

function unavailable(message: string, cause?: unknown): StileError {
  return new StileError("TOKEN_ISSUER_UNAVAILABLE", message, { cause });
}
