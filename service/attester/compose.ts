/** Puts the attester together: trust roots, policy, result keys, the issuer it forwards to, its routes. */
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { TLSSocket } from "node:tls";
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
import { tlsExporter } from "../../tls/index.ts";
import { createIssuer, type Issuer } from "../../tokens/index.ts";
import { isStileError, StileError } from "../../wire/index.ts";
import type { Config } from "../config/index.ts";
import { loadPolicy } from "../policy/load.ts";
import type { Composition } from "../sidecar.ts";
import { VERSION } from "../version.ts";
import { registerAttesterRoutes } from "./routes.ts";

/** A generic batch holds 259 bytes for each request of type 0x0002, and less of every other type. */
const BYTES_PER_REQUEST = 259;
/** Length prefix of a batch. */
const BATCH_OVERHEAD_BYTES = 8;
/** Signatures of one batch that are asked for at a time: two batches fill no queue. */
const BATCH_CONCURRENCY = 32;

/** @throws `SERVICE_CONFIG_INVALID` where the manufacturer roots cannot be used */
export async function composeAttester(
  composition: Composition,
): Promise<{ readonly publicJwk: JWK }> {
  const { app, clock, config, metrics, secrets } = composition;
  const { registry } = composition;
  const crypto = createNodeAttestCrypto();
  const roots = await readRoots(config.attester);
  const policy = await loadPolicy(config.attester.policyFile, config.attester, roots);
  const identity = {
    ...secrets.resultKey,
    issuer: config.publicUrl,
    audience: config.publicUrl,
    clock,
  };
  const resultSigner = createAttestationResultSigner({
    ...identity,
    lifetimeSeconds: config.attester.resultSeconds,
    verifierId: { developer: "stile", build: VERSION },
  });
  registerAttesterRoutes(app, {
    attester: createTpmAttester({
      crypto,
      random: (length) => Uint8Array.from(randomBytes(length)),
      clock,
      roots,
      policy,
      registry,
      pseudonymSecret: secrets.pseudonymSecret,
      sessionMs: config.attester.sessionSeconds * 1_000,
      maxSessions: config.attester.maxSessions,
    }),
    resultSigner,
    resultVerifier: createAttestationResultVerifier(identity),
    dpopVerifier: createDpopVerifier({ crypto, clock }),
    allowances: composition.allowances,
    registry,
    classLimits: new Map(policy.classes.map(({ name, tokens }) => [name, tokens])),
    issuer: composeIssuer(composition),
    publicUrl: config.publicUrl,
    clock,
    metrics,
    tlsExporterOf: (request) =>
      request.raw.socket instanceof TLSSocket ? tlsExporter(request.raw.socket) : undefined,
  });
  return { publicJwk: await resultSigner.publicJwk() };
}

/** In joint mode the issuer is in this process; it still gets the request bytes and nothing else. */
function composeIssuer(composition: Composition): Issuer {
  const { maxBatch } = composition.config.issuer;
  return createIssuer({
    keyRing: composition.ring,
    signer: composition.pool,
    limits: { maxItems: maxBatch, maxBytes: maxBatch * BYTES_PER_REQUEST + BATCH_OVERHEAD_BYTES },
    batchConcurrency: BATCH_CONCURRENCY,
  });
}

async function readRoots({
  manufacturerRootsFile: file,
  manufacturerRootsPin: pin,
}: Config["attester"]): Promise<TrustedRoots> {
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
