/** Puts the attester together: trust roots, policy, result keys, the issuer it forwards to, its routes. */
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import type { JWK } from "jose";
import {
  createAttestationResultSigner,
  createAttestationResultVerifier,
  createDpopVerifier,
  createTpmAttester,
  parseManufacturerBundle,
  parseTrustedRoots,
  type TrustedRoots,
} from "../../attest/index.ts";
import { createNodeAttestCrypto } from "../../attest/node/index.ts";
import type { Issuer } from "../../tokens/index.ts";
import { encodeBase64Url, isStileError, StileError } from "../../wire/index.ts";
import type { AttesterConfig } from "../config/index.ts";
import { batchLimits } from "../issuer/compose.ts";
import { peerOf } from "../http/peer.ts";
import { errorFields, type Log } from "../log.ts";
import type { RevocationRoutes } from "../operator/revocations.ts";
import { loadPolicy } from "../policy/load.ts";
import { metadataPolicyOf } from "../issuer/metadata-policy.ts";
import type { Composition } from "../sidecar.ts";
import type { AttesterState } from "../state.ts";
import { VERSION } from "../version.ts";
import { createRemoteIssuer } from "./remote-issuer.ts";
import { registerAttesterRoutes } from "./routes.ts";
import { composeWebAuthn } from "./webauthn-compose.ts";

const DAY_MS = 86_400_000;
const RUN_BYTES = 16;
const random = (length: number): Uint8Array => Uint8Array.from(randomBytes(length));
const monotonicMs = (): number => performance.now();

export interface AttesterDeps extends AttesterState {
  /** In joint mode the issuer is in this process; it still gets the request bytes and nothing else. */
  readonly local?: { readonly issuer: Issuer } | undefined;
}

export interface ComposedAttester {
  readonly publicJwk: JWK;
  readonly revocations: RevocationRoutes;
}

/** @throws `SERVICE_CONFIG_INVALID` where the manufacturer roots, the policy or a certificate cannot be used */
export async function composeAttester(
  composition: Composition,
  settings: AttesterConfig,
  { allowances, local, registry }: AttesterDeps,
): Promise<ComposedAttester> {
  const { app, clock, config, log, metrics, onClose, secrets } = composition;
  const crypto = createNodeAttestCrypto();
  const roots = await readRoots(settings);
  const policy = await loadPolicy(settings.policyFile, settings, roots);
  onClose(sweepDaily(registry, log));
  // New with each start, and the memory of proofs with it.
  const run = encodeBase64Url(random(RUN_BYTES));
  const identity = {
    ...secrets.resultKey,
    issuer: config.publicUrl,
    audience: config.publicUrl,
    clock,
  };
  const resultSigner = createAttestationResultSigner({
    ...identity,
    lifetimeSeconds: settings.resultSeconds,
    run,
    verifierId: { developer: "stile", build: VERSION },
  });
  registerAttesterRoutes(app, {
    attester: createTpmAttester({
      crypto,
      random,
      clock,
      roots,
      policy,
      registry,
      pseudonymSecret: secrets.pseudonymSecret,
      sessionMs: settings.sessionSeconds * 1_000,
      maxSessions: settings.maxSessions,
    }),
    resultSigner,
    resultVerifier: createAttestationResultVerifier({ ...identity, crypto }),
    dpopVerifier: createDpopVerifier({ crypto, clock, monotonicMs, random, run }),
    allowances,
    registry,
    classLimits: new Map(policy.classes.map(({ name, tokens }) => [name, tokens])),
    webauthnTokens: settings.webauthn.tokens,
    issuer: local?.issuer ?? composeRemoteIssuer(composition, settings),
    publicUrl: config.publicUrl,
    clock,
    metrics,
    tlsExporterOf: (request) => peerOf(request.raw.socket).tlsExporter,
  });
  const { pseudonymSecret } = secrets;
  const shared = { allowances, registry, resultSigner, pseudonymSecret, crypto };
  await composeWebAuthn({ ...composition, ...shared, attester: settings });
  return {
    publicJwk: await resultSigner.publicJwk(),
    revocations: { registry, crypto, pseudonymSecret },
  };
}

function composeRemoteIssuer(
  { clock, config, onClose }: Composition,
  { issuer }: AttesterConfig,
): Issuer {
  if (issuer === undefined) throw new TypeError("the configuration was checked");
  const limits = batchLimits(config.issuer.maxBatch);
  const remote = createRemoteIssuer({
    config: issuer,
    limits,
    ...metadataPolicyOf(config.issuer, clock),
  });
  onClose(() => remote.close());
  return remote;
}

/** Forgets devices that were not seen for the retention time, at the start and each day. */
function sweepDaily({ sweep }: AttesterState["registry"], log: Log): () => void {
  const run = (): void =>
    void sweep().then(
      (forgotten) => log.write("info", "devices.swept", { forgotten }),
      (error: unknown) => log.write("error", "devices.sweep-failed", errorFields(error)),
    );
  run();
  const days = setInterval(run, DAY_MS);
  return () => clearInterval(days);
}

async function readRoots({
  manufacturerRootsFile: file,
  manufacturerRootsPin: pin,
}: AttesterConfig): Promise<TrustedRoots> {
  try {
    const bytes = Uint8Array.from(readFileSync(file));
    if (pin !== undefined) return (await parseManufacturerBundle(bytes, pin)).roots;
    return await parseTrustedRoots(Buffer.from(bytes).toString("utf8"));
  } catch (cause) {
    const reason = isStileError(cause) ? cause.message : "cannot be read";
    const message = `configuration: attester.manufacturerRootsFile ${file}: ${reason}`;
    throw new StileError("SERVICE_CONFIG_INVALID", message, { cause });
  }
}
