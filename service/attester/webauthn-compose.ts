/** Puts WebAuthn attestation together: policy, trust, credentials, the network's limit, its routes. */
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import type { FastifyInstance } from "fastify";
import type { AttestationResultSigner, AttestCrypto } from "../../attest/index.ts";
import type { WebAuthnTrust } from "../../attest/webauthn/index.ts";
import { createWebAuthnAttester } from "../../attest/webauthn-enrolment/index.ts";
import { StileError } from "../../wire/index.ts";
import type { WebAuthnConfig } from "../config/webauthn.ts";
import { errorFields, type Log } from "../log.ts";
import type { Metrics } from "../metrics.ts";
import {
  type AllowanceStore,
  type DeviceRegistryStore,
  openWebAuthnCredentials,
  type WebAuthnCredentialStore,
} from "../stores/index.ts";
import { createNetworkLimit } from "./webauthn-network.ts";
import { registerWebAuthnRoutes } from "./webauthn-routes.ts";
import { webauthnPolicy } from "./webauthn-trust.ts";
import { createTrustWatch } from "./webauthn-trust-watch.ts";

export interface WebAuthnComposition {
  readonly app: FastifyInstance;
  readonly config: { readonly publicUrl: string; readonly stateDir: string };
  readonly attester: {
    readonly webauthn: WebAuthnConfig;
    readonly retentionDays: number;
    readonly sessionSeconds: number;
    readonly maxSessions: number;
    readonly allowance: { readonly windowSeconds: number };
  };
  readonly allowances: AllowanceStore;
  readonly registry: Pick<DeviceRegistryStore, "checkAdmissible">;
  readonly resultSigner: AttestationResultSigner;
  readonly pseudonymSecret: Uint8Array;
  readonly crypto: AttestCrypto;
  readonly clock: () => number;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly onClose: (close: () => Promise<void> | void) => void;
}

const DAY_MS = 86_400_000;
/** Metadata is renewed by the month, and a status list by the day. */
const TRUST_LOOK_MS = 60_000;

/**
 * Does nothing where the configuration has it off.
 * @throws `SERVICE_CONFIG_INVALID`, `ATTEST_WEBAUTHN_STORE_UNAVAILABLE`
 */
export async function composeWebAuthn(composition: WebAuthnComposition): Promise<void> {
  const { app, attester, clock, crypto, metrics, resultSigner } = composition;
  const config = attester.webauthn;
  if (!config.enabled) return;
  const trust = await watchWebAuthnTrust(composition);
  if (config.unsafeAcceptUnanchored.length > 0) {
    // Said at each start: with it, whoever can run a program can attest.
    const formats = config.unsafeAcceptUnanchored.join(" ");
    composition.log.write("warn", "webauthn.unsafe-accept-unanchored", { formats });
  }
  const url = new URL(composition.config.publicUrl);
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
    credentials: await openCredentials(composition),
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

/** Trust of the files as they are now, looked at again in the background. */
async function watchWebAuthnTrust(composition: WebAuthnComposition): Promise<() => WebAuthnTrust> {
  const { attester, clock, crypto, log, onClose } = composition;
  const watch = await createTrustWatch({ config: attester.webauthn, clock, crypto, log });
  const looks = setInterval(() => void watch.look(), TRUST_LOOK_MS);
  onClose(() => clearInterval(looks));
  return watch.trust;
}

async function openCredentials(composition: WebAuthnComposition): Promise<WebAuthnCredentialStore> {
  const { attester, clock, config, log, onClose } = composition;
  const credentials = await openWebAuthnCredentials({
    folder: join(config.stateDir, "webauthn"),
    retentionDays: attester.retentionDays,
    clock,
  });
  onClose(() => credentials.close());
  const sweep = (): void =>
    void credentials.sweep().then(
      (forgotten) => log.write("info", "webauthn.swept", { forgotten }),
      (error: unknown) => log.write("error", "webauthn.sweep-failed", errorFields(error)),
    );
  sweep();
  const days = setInterval(sweep, DAY_MS);
  onClose(() => clearInterval(days));
  return credentials;
}
