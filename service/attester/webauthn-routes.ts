/** The attester's endpoints for browsers: the two steps of WebAuthn attestation. */
import type { FastifyInstance, FastifyRequest } from "fastify";
import { type AttestationResultSigner, encodeEvidenceResponse } from "../../attest/index.ts";
import {
  parseCeremonyEvidence,
  parseCeremonyRequest,
  type WebAuthnAttester,
} from "../../attest/webauthn-enrolment/index.ts";
import { networkOf } from "../edge/host.ts";
import { outcomeOf } from "../http/app.ts";
import type { Metrics } from "../metrics.ts";

export interface WebAuthnRoutesOptions {
  readonly attester: WebAuthnAttester;
  readonly resultSigner: AttestationResultSigner;
  readonly clock: () => number;
  readonly metrics: Metrics;
}

export function registerWebAuthnRoutes(app: FastifyInstance, options: WebAuthnRoutesOptions): void {
  const { attester } = options;
  app.post(
    "/attest/webauthn/options",
    { schema: { summary: "WebAuthn attestation, step 1: a device key; options for the browser" } },
    (request) =>
      counted(options, "webauthn-options", () =>
        attester.options(parseCeremonyRequest(request.body), clientNetwork(request)),
      ),
  );
  app.post(
    "/attest/webauthn/evidence",
    { schema: { summary: "WebAuthn attestation, step 2: the browser's credential" } },
    (request) =>
      counted(options, "webauthn-evidence", async () => {
        const evidence = parseCeremonyEvidence(request.body);
        const { jwt, expiresAtMs } = await sign(
          options,
          await attester.evidence(evidence, clientNetwork(request)),
        );
        const expiresIn = Math.max(0, Math.floor((expiresAtMs - options.clock()) / 1_000));
        return encodeEvidenceResponse({ attestationResult: jwt, expiresIn });
      }),
  );
}

function sign(
  { resultSigner }: WebAuthnRoutesOptions,
  attested: Awaited<ReturnType<WebAuthnAttester["evidence"]>>,
): ReturnType<AttestationResultSigner["sign"]> {
  return resultSigner.sign({
    attestedBy: "webauthn",
    subject: attested.pseudonym,
    deviceKey: attested.deviceKey,
    trustworthiness: attested.trustworthiness,
    // A page learns nothing of its connection; the origin in clientDataJSON is what ties evidence here.
    channelBinding: "none",
    appraisalPolicyId: attested.policyId,
  });
}

/** Clients without an address share one place. */
function clientNetwork(request: FastifyRequest): string {
  return networkOf(request.ip) ?? "none";
}

async function counted<T>(
  { metrics }: WebAuthnRoutesOptions,
  step: "webauthn-options" | "webauthn-evidence",
  work: () => Promise<T>,
): Promise<T> {
  try {
    const result = await work();
    metrics.attestations.inc({ step, outcome: "OK" });
    return result;
  } catch (error) {
    metrics.attestations.inc({ step, outcome: outcomeOf(error) });
    throw error;
  }
}
