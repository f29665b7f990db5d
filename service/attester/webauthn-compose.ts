/** Puts WebAuthn attestation together: policy, trust, credentials, the network's limit, its routes. */
import { randomBytes } from "node:crypto";
import type { FastifyInstance } from "fastify";
import type { AttestationResultSigner, AttestCrypto } from "../../attest/index.ts";
import {
  createWebAuthnAttester,
  type CredentialStore,
} from "../../attest/webauthn-enrolment/index.ts";
import { StileError } from "../../wire/index.ts";
import type { WebAuthnConfig } from "../config/webauthn.ts";
import type { Log } from "../log.ts";
import type { Metrics } from "../metrics.ts";
import type { AllowanceStore, DeviceRegistryStore } from "../stores/index.ts";
import { createNetworkLimit } from "./webauthn-network.ts";
import { registerWebAuthnRoutes } from "./webauthn-routes.ts";
import { loadWebAuthnTrust, webauthnPolicy } from "./webauthn-trust.ts";

export interface WebAuthnComposition {
  readonly app: FastifyInstance;
  readonly publicUrl: string;
  readonly attester: {
    readonly webauthn: WebAuthnConfig;
    readonly sessionSeconds: number;
    readonly maxSessions: number;
    readonly allowance: { readonly windowSeconds: number };
  };
  readonly credentials: CredentialStore;
  readonly allowances: AllowanceStore;
  readonly registry: Pick<DeviceRegistryStore, "checkAdmissible">;
  readonly resultSigner: AttestationResultSigner;
  readonly pseudonymSecret: Uint8Array;
  readonly crypto: AttestCrypto;
  readonly clock: () => number;
  readonly log: Log;
  readonly metrics: Metrics;
}

/** @throws `SERVICE_CONFIG_INVALID` */
export async function composeWebAuthn(composition: WebAuthnComposition): Promise<void> {
  const { app, attester, clock, crypto, metrics, publicUrl, resultSigner } = composition;
  const config = attester.webauthn;
  const trust = await loadWebAuthnTrust(config, crypto, clock);
  if (config.unsafeAcceptUnanchored.length > 0) {
    // Said at each start: with it, whoever can run a program can attest.
    const formats = config.unsafeAcceptUnanchored.join(" ");
    composition.log.write("warn", "webauthn.unsafe-accept-unanchored", { formats });
  }
  const url = new URL(publicUrl);
  const network = createNetworkLimit({
    allowances: composition.allowances,
    limit: config.attestationsPerNetwork,
    windowMs: attester.allowance.windowSeconds * 1_000,
    secret: composition.pseudonymSecret,
    clock,
  });
  const options = {
    crypto,
    random: (length: number) => Uint8Array.from(randomBytes(length)),
    clock,
    rpId: config.rpId ?? url.hostname,
    origins: config.allowedOrigins ?? [url.origin],
    policy: webauthnPolicy(config),
    trust,
    credentials: composition.credentials,
    chargeNetwork: network,
    checkAdmissible: composition.registry.checkAdmissible,
    pseudonymSecret: composition.pseudonymSecret,
    sessionMs: attester.sessionSeconds * 1_000,
    maxSessions: attester.maxSessions,
  };
  registerWebAuthnRoutes(app, { attester: createAttester(options), resultSigner, clock, metrics });
}

function createAttester(
  options: Parameters<typeof createWebAuthnAttester>[0],
): ReturnType<typeof createWebAuthnAttester> {
  try {
    return createWebAuthnAttester(options);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    const message = `configuration: attester.webauthn: ${cause.message}`;
    throw new StileError("SERVICE_CONFIG_INVALID", message, { cause });
  }
}
