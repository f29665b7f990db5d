/** Puts the edge together: challenges, redemption, clearance, forwarding, and the routes for other proxies. */
import { createHash, randomBytes } from "node:crypto";
import { createForwarder } from "../../tls/index.ts";
import {
  createChallenger,
  createRedeemer,
  type KeyRing,
  type PrivateTokenVerifier,
  type SpentStore,
} from "../../tokens/index.ts";
import { StileError } from "../../wire/index.ts";
import { type Config, type EdgeConfig, expirationGrid } from "../config/index.ts";
import type { OwnEndpoints } from "../http/own-handler.ts";
import type { SidecarSecrets } from "../secrets.ts";
import { metadataPolicyOf } from "../issuer/metadata-policy.ts";
import type { Composition } from "../sidecar.ts";
import { type Adaptive, createAdaptive } from "./adaptive/adaptive.ts";
import { type Admission, createAdmission } from "./admission.ts";
import { createClearance } from "./clearance.ts";
import type { ClearanceKeyring } from "./clearance-keyring.ts";
import { createCors } from "./cors.ts";
import { createGate } from "./gate.ts";
import { createEdgeFastPath } from "./fast-path.ts";
import { createEdgeHandler, type EdgeHandler } from "./handler.ts";
import { normalHost } from "./host.ts";
import { composePage } from "../web/compose.ts";
import type { PageFor } from "./refusal.ts";
import { registerEdgeRoutes } from "./routes.ts";
import { checkExtAuthz, listenExtAuthz } from "./ext-authz/compose.ts";
import { type Agents, openAgents } from "./signatures/agents.ts";
import type { UsedSignatures } from "./signatures/used-signatures.ts";
import { compileRules, type EdgeRules } from "./rules.ts";
import { composeUpstreams, timesOf } from "./upstreams.ts";

export interface EdgeDeps {
  readonly spentStore: Pick<SpentStore, "spend">;
  readonly usedSignatures: UsedSignatures;
  /** Of the issuer in this process, or of the one that is followed. */
  readonly ring: KeyRing;
  readonly tokenTypes: readonly number[];
  readonly clearanceKeys: ClearanceKeyring;
  /** Where the issuer is in this process. */
  readonly privateVerifier?: PrivateTokenVerifier;
  /** Whether browsers can attest at this origin: only then has the page something to do. */
  readonly hasWebAuthn: boolean;
  /** What answers Stile's own endpoints. */
  readonly ownEndpoints: OwnEndpoints;
}

/** Of the secrets only those that decide about requests. */
export type EdgeComposition = Omit<Composition, "secrets"> & {
  readonly secrets: Pick<SidecarSecrets, "challengeSecret">;
};

/** @throws `SERVICE_CONFIG_INVALID` */
export async function composeEdge(
  composition: EdgeComposition,
  edge: EdgeConfig,
  deps: EdgeDeps,
): Promise<EdgeHandler> {
  const { app, config, log, metrics, onClose, proxies } = composition;
  checkEdge(edge, config.listen.trustedProxies.length > 0);
  checkExtAuthz(config, edge);
  const rules = rulesOf(edge, config);
  const admission = composeAdmission(composition, edge, deps);
  const forwarder = createForwarder({
    upstreams: composeUpstreams(composition, edge),
    maxBodyBytes: edge.maxBodyBytes,
    maxUnderWay: edge.maxUpstreamRequests,
    ...timesOf(edge),
    forwardedHeader: edge.forwardedHeader,
    isSpliced: edge.fastPath,
  });
  onClose(() => forwarder.close());
  const hasPage = deps.hasWebAuthn && edge.clearanceSeconds > 0;
  const page = hasPage ? pageOf(composition, edge, admission) : undefined;
  registerEdgeRoutes(app, {
    admission,
    hosts: edge.hosts,
    authorizeHeaders: edge.authorize.headers,
    proxies,
    ...(page === undefined ? {} : { page }),
  });
  if (edge.extAuthz !== undefined) {
    const asked = { admission, hosts: edge.hosts, log, ...(page === undefined ? {} : { page }) };
    await listenExtAuthz(composition, edge.extAuthz.listen, asked);
  }
  const adaptive = composeAdaptive(composition, edge);
  const agents = composeAgents(composition, edge, deps.usedSignatures);
  const shared = {
    hosts: edge.hosts,
    cors: createCors(edge.cors.origins),
    forwarder,
    log,
    proxies,
    gate: createGate({ rules, mode: edge.mode, adaptive, admission, metrics }),
    ...(adaptive === undefined ? {} : { adaptive }),
    ...(page === undefined ? {} : { page }),
    ...(agents === undefined ? {} : { agents }),
    clients: composition.clients,
  };
  const handler = createEdgeHandler({
    ...shared,
    ownEndpoints: deps.ownEndpoints,
  });
  const fastPath = createEdgeFastPath({ ...shared, clock: composition.clock });
  return edge.fastPath ? { ...handler, fastPath } : handler;
}

function composeAdaptive(composition: EdgeComposition, edge: EdgeConfig): Adaptive | undefined {
  if (edge.adaptive === undefined) return undefined;
  const { clock, log, metrics, onClose } = composition;
  const hosts = edge.hosts.map((host) => normalHost(host));
  const adaptive = createAdaptive({ settings: edge.adaptive, hosts, clock, log, metrics });
  onClose(() => adaptive.close());
  return adaptive;
}

function composeAgents(
  composition: EdgeComposition,
  edge: EdgeConfig,
  usedSignatures: UsedSignatures,
): Agents | undefined {
  if (edge.agents.length === 0) return undefined;
  const { clock, config, log, metrics, onClose, onReload } = composition;
  const pollMs = config.tls.reloadSeconds * 1_000;
  const agents = openAgents({
    agents: edge.agents,
    usedSignatures,
    pollMs,
    clock,
    log,
    metrics,
  });
  onClose(() => agents.close());
  onReload(() => agents.reload());
  return agents;
}

function composeAdmission(
  { clock, config, metrics, secrets, tokenCrypto }: EdgeComposition,
  edge: EdgeConfig,
  deps: EdgeDeps,
): ReturnType<typeof createAdmission> {
  const { privateVerifier, ring, spentStore, tokenTypes } = deps;
  const clearance = createClearance({
    keys: deps.clearanceKeys,
    issuer: config.publicUrl,
    lifetimeSeconds: edge.clearanceSeconds,
    clock,
  });
  const challenger = createChallenger({
    issuerName: edge.issuerName,
    secret: secrets.challengeSecret,
    crypto: tokenCrypto,
    clock,
    windowMs: edge.windowSeconds * 1_000,
  });
  const redeemer = createRedeemer({
    keyRing: ring,
    challenger,
    spentStore,
    crypto: tokenCrypto,
    ...(privateVerifier === undefined ? {} : { privateVerifier }),
    ...metadataPolicyOf(config.issuer, clock),
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
    ...(edge.grease ? { grease: (length) => Uint8Array.from(randomBytes(length)) } : {}),
    sha256: (bytes) => Uint8Array.from(createHash("sha256").update(bytes).digest()),
    metrics,
  });
}

function pageOf(
  { app, config }: EdgeComposition,
  { fallbackUrl, hosts }: EdgeConfig,
  admission: Admission,
): PageFor {
  const { publicMetadata } = config.issuer;
  const grid = publicMetadata && expirationGrid(publicMetadata);
  return composePage(app, { admission, hosts, fallbackUrl, expirationGrid: grid });
}

/** Settings that exclude each other, or that only their parsers can judge. @throws `SERVICE_CONFIG_INVALID` */
function checkEdge(edge: EdgeConfig, hasProxies: boolean): void {
  const isWindowed = edge.redemptionContext.startsWith("window");
  if (isWindowed && edge.challengeMaxAgeSeconds > edge.windowSeconds) {
    // A challenge made at the end of a window is accepted for one window more, and no longer.
    throw invalid("edge.challengeMaxAgeSeconds must not be above edge.windowSeconds");
  }
  if (edge.redemptionContext === "connection" && hasProxies) {
    // The client's TLS connection ends at the proxy: no challenge could name it.
    throw invalid(
      "edge.redemptionContext must not be connection where listen.trustedProxies is set",
    );
  }
  if (edge.authorize.headers !== "off" && !hasProxies) {
    // Whoever may ask is believed what it says of its client.
    throw invalid("edge.authorize.headers must be off where listen.trustedProxies is empty");
  }
  for (const name of ["unadmitted", "slow", "failures"] as const) {
    const thresholds = edge.adaptive?.[name];
    if (thresholds !== undefined && thresholds.below >= thresholds.above) {
      // With one threshold for both, each request could turn it.
      throw invalid(`edge.adaptive.${name}.below must be below edge.adaptive.${name}.above`);
    }
  }
  const judges = edge.rules.length > 0 || edge.mode !== "enforce";
  if (judges && edge.authorize.headers !== "off") {
    // The other proxy forwards, and reads paths in its own way: a rule here would not hold there.
    throw invalid("edge.authorize.headers must be off where edge.rules or edge.mode are set");
  }
}

function rulesOf(edge: EdgeConfig, config: Config): EdgeRules {
  try {
    return compileRules(edge.rules, edge.hosts, {
      agents: edge.agents.map(({ name }) => name),
      certificates: config.tls.clientCertificates.map(({ name }) => name),
    });
  } catch (cause) {
    if (cause instanceof RangeError) throw invalid(`edge.rules: ${cause.message}`, cause);
    throw cause;
  }
}

function invalid(message: string, cause?: unknown): StileError {
  return new StileError("SERVICE_CONFIG_INVALID", `configuration: ${message}`, { cause });
}
