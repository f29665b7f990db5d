/** Puts the edge together: challenges, redemption, clearance, forwarding, and the routes for other proxies. */
import { createHash } from "node:crypto";
import type { JWK } from "jose";
import { createForwarder, parseUpstream, type Upstream } from "../../tls/index.ts";
import { createChallenger, createRedeemer } from "../../tokens/index.ts";
import { StileError } from "../../wire/index.ts";
import type { Config } from "../config/index.ts";
import type { Composition } from "../sidecar.ts";
import { createAdmission } from "./admission.ts";
import { type Clearance, createClearance } from "./clearance.ts";
import { createEdgeHandler, type EdgeHandler } from "./handler.ts";
import { registerEdgeRoutes, registerJwks } from "./routes.ts";

const CONNECT_TIMEOUT_MS = 5_000;

export interface ComposedEdge {
  readonly handler: EdgeHandler;
  readonly close: () => Promise<void>;
}

/**
 * @param attesterJwk the attester's public key, served beside the edge's in joint mode
 * @throws `SERVICE_CONFIG_INVALID`
 */
export function composeEdge(composition: Composition, attesterJwk: JWK): ComposedEdge {
  const { app, config, log } = composition;
  const { edge } = config;
  checkEdge(config);
  const clearance = composeClearance(composition);
  const admission = composeAdmission(composition, clearance);
  const forwarder = createForwarder({
    upstream: upstreamOf(config),
    maxBodyBytes: edge.maxBodyBytes,
    maxUnderWay: edge.maxUpstreamRequests,
    connectTimeoutMs: CONNECT_TIMEOUT_MS,
    idleTimeoutMs: edge.upstreamTimeoutSeconds * 1_000,
  });
  registerEdgeRoutes(app, {
    admission,
    hosts: edge.hosts,
    authorizeHeaders: edge.authorize.headers,
  });
  registerJwks(app, async () => [await clearance.publicJwk(), attesterJwk]);
  const handler = createEdgeHandler({
    hosts: edge.hosts,
    admission,
    forwarder,
    ownEndpoints: (request, response) => app.routing(request, response),
    log,
  });
  return { handler, close: () => forwarder.close() };
}

function composeClearance({ clock, config, secrets }: Composition): Clearance {
  return createClearance({
    ...secrets.clearanceKey,
    issuer: config.publicUrl,
    lifetimeSeconds: config.edge.clearanceSeconds,
    clock,
  });
}

function composeAdmission(
  composition: Composition,
  clearance: Clearance,
): ReturnType<typeof createAdmission> {
  const { clock, metrics, pool, ring, tokenCrypto, tokenTypes } = composition;
  const { edge } = composition.config;
  const challenger = createChallenger({
    issuerName: edge.issuerName,
    secret: composition.secrets.challengeSecret,
    crypto: tokenCrypto,
    clock,
    windowMs: edge.windowSeconds * 1_000,
  });
  const redeemer = createRedeemer({
    keyRing: ring,
    challenger,
    spentStore: composition.spentStore,
    crypto: tokenCrypto,
    privateVerifier: pool,
    clock,
    repeatWindowMs: edge.clearanceSeconds * 1_000,
  });
  return createAdmission({
    challenger,
    redeemer,
    keyRing: ring,
    tokenTypes,
    clearance,
    context: edge.redemptionContext,
    challengeMaxAgeSeconds: edge.challengeMaxAgeSeconds,
    sha256: (bytes) => Uint8Array.from(createHash("sha256").update(bytes).digest()),
    metrics,
  });
}

/** Settings that exclude each other, or that only their parsers can judge. @throws `SERVICE_CONFIG_INVALID` */
function checkEdge({ edge }: Config): void {
  const isWindowed = edge.redemptionContext.startsWith("window");
  if (isWindowed && edge.challengeMaxAgeSeconds > edge.windowSeconds) {
    // A challenge made at the end of a window is accepted for one window more, and no longer.
    throw invalid("edge.challengeMaxAgeSeconds must not be above edge.windowSeconds");
  }
  const perConnection = edge.redemptionContext === "connection";
  if (perConnection && edge.authorize.headers !== "off") {
    // The TLS connection ends at the other proxy: no challenge could name it.
    throw invalid("edge.authorize.headers must be off where edge.redemptionContext is connection");
  }
}

function upstreamOf({ edge }: Config): Upstream {
  try {
    return parseUpstream(edge.upstream);
  } catch (cause) {
    throw invalid("edge.upstream: expected http://host:port or unix:/path", cause);
  }
}

function invalid(message: string, cause?: unknown): StileError {
  return new StileError("SERVICE_CONFIG_INVALID", `configuration: ${message}`, { cause });
}
