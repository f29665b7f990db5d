/**
 * The Fastify application that answers Stile's own endpoints: what all of them share. Errors become
 * problem documents in one place, bodies are capped before they are read, headers are six fixed lines.
 */
import rateLimit from "@fastify/rate-limit";
import swagger from "@fastify/swagger";
import underPressure from "@fastify/under-pressure";
import {
  fastify,
  type FastifyError,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
} from "fastify";
import { isIssuanceMediaType, type IssuanceMediaType } from "../../tokens/index.ts";
import { type ErrorCode, isStileError, StileError } from "../../wire/index.ts";
import { securityHeaders } from "../edge/refusal.ts";
import { errorFields, type Log } from "../log.ts";
import type { TrustedProxies } from "../edge/trusted-proxies.ts";
import type { Metrics, Outcome } from "../metrics.ts";
import { PROBLEM_MEDIA_TYPE, problemOf } from "../problems.ts";

/**
 * The largest body of Stile's own endpoints. An EK certificate chain with four intermediates, base64url,
 * is about 12 kB; a batch of 1,000 token requests is 261 kB.
 */
export const MAX_BODY_BYTES = 524_288;
/** Event-loop delay (milliseconds) from which on new requests are answered 503. */
const MAX_EVENT_LOOP_DELAY_MS = 1_000;

export interface HttpAppOptions {
  readonly log: Log;
  readonly metrics: Metrics;
  /** Requests that one address may send to Stile's own endpoints in a minute. */
  readonly requestsPerMinute: number;
  /** What they say of the client is `request.ip`; from others it is the connection's other end. */
  readonly proxies: TrustedProxies;
  readonly version: string;
}

/** Routes register on what this returns; `ready()` must be awaited before `routing` is used. */
export async function createHttpApp(options: HttpAppOptions): Promise<FastifyInstance> {
  const app = fastify({
    bodyLimit: MAX_BODY_BYTES,
    trustProxy: options.proxies.isTrusted,
    // Paths are matched exactly: one spelling per resource.
    routerOptions: { ignoreTrailingSlash: false, caseSensitive: true, maxParamLength: 64 },
    exposeHeadRoutes: true,
    ajv: { customOptions: { removeAdditional: false, coerceTypes: false, allErrors: false } },
  });
  refuseErrors(app, options);
  addFixedHeaders(app, options.metrics);
  await app.register(swagger, {
    openapi: {
      openapi: "3.1.0",
      info: {
        title: "Stile",
        version: options.version,
        description: "Attestation, issuance and redemption of Privacy Pass tokens (RFC 9576-9578)",
      },
    },
  });
  await app.register(underPressure, {
    maxEventLoopDelay: MAX_EVENT_LOOP_DELAY_MS,
    pressureHandler: (_request, _reply, _type, delayMs) => {
      // Not measured: while it starts, a process may have no two turns of its loop in a second.
      if (delayMs === Infinity) return;
      throw new StileError("SERVICE_OVERLOADED", "the service sheds load");
    },
  });
  await app.register(rateLimit, {
    max: options.requestsPerMinute,
    timeWindow: 60_000,
    errorResponseBuilder: (_request, context) =>
      new StileError("SERVICE_RATE_LIMITED", "too many requests from this address", {
        retryAfterSeconds: context.ttl / 1_000,
      }),
  });
  return app;
}

/** Every refusal of these routes as a problem document; what nobody expected is logged by its code. */
export function refuseErrors(app: FastifyInstance, { log }: { readonly log: Log }): void {
  app.setErrorHandler((error: FastifyError | StileError, _request, reply) => {
    const known = asStileError(error);
    const problem = problemOf(known);
    if (problem.status === 500) log.write("error", "http.failed", errorFields(error));
    return sendProblem(reply, known);
  });
  app.setNotFoundHandler((_request, reply) =>
    sendProblem(reply, new StileError("SERVICE_NOT_FOUND", "no such resource")),
  );
}

/** Answers with the problem document of an error. */
export function sendProblem(
  reply: FastifyReply,
  error: unknown,
  headers: Readonly<Record<string, string>> = {},
): FastifyReply {
  const problem = problemOf(error);
  return (
    reply
      .code(problem.status)
      .headers({ ...problem.headers, ...headers })
      .type(PROBLEM_MEDIA_TYPE)
      // As bytes: to text, Fastify would add a charset that the media type does not have.
      .send(Buffer.from(JSON.stringify(problem.body)))
  );
}

/** The media type of a token request. @throws `SERVICE_MEDIA_TYPE_UNSUPPORTED` */
export function issuanceMediaType(request: FastifyRequest): IssuanceMediaType {
  const mediaType = (request.headers["content-type"] ?? "").split(";")[0]?.trim().toLowerCase();
  if (mediaType === undefined || !isIssuanceMediaType(mediaType)) {
    throw new StileError("SERVICE_MEDIA_TYPE_UNSUPPORTED", "expected a token request");
  }
  return mediaType;
}

/** The label of an error in a metric. */
export function outcomeOf(error: unknown): Outcome {
  return isStileError(error) ? error.code : "INTERNAL";
}

function addFixedHeaders(app: FastifyInstance, metrics: Metrics): void {
  app.addHook("onRequest", (_request, reply, done) => {
    void reply.headers(securityHeaders);
    done();
  });
  app.addHook("onResponse", (request, reply, done) => {
    const route = request.routeOptions.url ?? "none";
    metrics.httpResponses.inc({ route, status: String(reply.statusCode) });
    done();
  });
}

/** Fastify's own refusals, by their code. */
const CODE_OF_FASTIFY: Readonly<Record<string, ErrorCode>> = {
  FST_ERR_CTP_INVALID_MEDIA_TYPE: "SERVICE_MEDIA_TYPE_UNSUPPORTED",
  FST_ERR_CTP_BODY_TOO_LARGE: "SERVICE_BODY_TOO_LARGE",
  FST_ERR_CTP_EMPTY_JSON_BODY: "SERVICE_REQUEST_INVALID",
  FST_ERR_CTP_INVALID_JSON_BODY: "SERVICE_REQUEST_INVALID",
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: "SERVICE_REQUEST_INVALID",
  FST_ERR_VALIDATION: "SERVICE_REQUEST_INVALID",
};

function asStileError(error: FastifyError | StileError): unknown {
  if (isStileError(error)) return error;
  const code = CODE_OF_FASTIFY[error.code];
  if (code !== undefined)
    return new StileError(code, "the request cannot be read", { cause: error });
  const isClientFault = error.statusCode !== undefined && error.statusCode < 500;
  if (!isClientFault) return error;
  return new StileError("SERVICE_REQUEST_INVALID", "the request cannot be read", { cause: error });
}
