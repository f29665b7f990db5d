/**
 * The attester's endpoints: the two steps of TPM attestation, and token requests of attested devices.
 * A token request is looked at in this order: media type, attestation result, proof of possession,
 * revocation, whether the issuer could issue it, allowance, issuance. So nothing is charged for what cannot be issued,
 * and what is found out only then, of a batch or by an issuer elsewhere, is given back.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import {
  type AttestationResultSigner,
  type AttestationResultVerifier,
  type AppraisedDevice,
  type DpopVerifier,
  encodeChallengeResponse,
  encodeEvidenceResponse,
  parseChallengeRequest,
  parseDpopAuthorization,
  parseEvidenceRequest,
  type TpmAttester,
} from "../../attest/index.ts";
import { ISSUANCE_MEDIA_TYPES, type IssuanceResult, type Issuer } from "../../tokens/index.ts";
import { issuanceMediaType, outcomeOf } from "../http/app.ts";
import { TOKEN_REQUEST_PATH } from "../issuer/tenants.ts";
import type { Metrics } from "../metrics.ts";
import type { AllowanceCharge, AllowanceStore, DeviceRegistryStore } from "../stores/index.ts";

export interface AttesterRoutesOptions {
  readonly attester: TpmAttester;
  readonly resultSigner: AttestationResultSigner;
  readonly resultVerifier: AttestationResultVerifier;
  readonly dpopVerifier: DpopVerifier;
  readonly allowances: AllowanceStore;
  readonly registry: Pick<DeviceRegistryStore, "checkAdmissible">;
  /** Tokens in one window by the name of a device class; undefined: as the allowances have it. */
  readonly classLimits: ReadonlyMap<string, number | undefined>;
  /** Tokens of one WebAuthn credential in one window. */
  readonly webauthnTokens: number;
  readonly issuer: Issuer;
  /** URL of this service as clients see it; DPoP proofs name it. */
  readonly publicUrl: string;
  readonly clock: () => number;
  readonly metrics: Metrics;
  /** 32 bytes of the connection that carries a request (RFC 9266). */
  readonly tlsExporterOf: (request: FastifyRequest) => Uint8Array | undefined;
}

export function registerAttesterRoutes(app: FastifyInstance, options: AttesterRoutesOptions): void {
  app.post(
    "/attest/tpm/challenge",
    { schema: { summary: "TPM attestation, step 1: certificates and public areas" } },
    (request) =>
      counted(options, "challenge", async () =>
        encodeChallengeResponse(
          await options.attester.challenge(parseChallengeRequest(request.body)),
        ),
      ),
  );
  app.post(
    "/attest/tpm/evidence",
    { schema: { summary: "TPM attestation, step 2: activated secret, quote, certified key" } },
    (request) =>
      counted(options, "evidence", async () => {
        const evidence = parseEvidenceRequest(request.body);
        const exporter = options.tlsExporterOf(request);
        const device = await options.attester.evidence(evidence, exporter);
        return answerWithResult(options, device);
      }),
  );
  registerTokenRequests(app, options);
}

async function answerWithResult(
  options: AttesterRoutesOptions,
  device: AppraisedDevice,
): Promise<ReturnType<typeof encodeEvidenceResponse>> {
  const { jwt, expiresAtMs } = await options.resultSigner.sign({
    subject: device.pseudonym,
    deviceKey: device.deviceKey,
    trustworthiness: device.appraisal.trustworthiness,
    channelBinding: device.channelBinding,
    appraisalPolicyId: device.appraisal.policyId,
  });
  const expiresIn = Math.max(0, Math.floor((expiresAtMs - options.clock()) / 1_000));
  return encodeEvidenceResponse({ attestationResult: jwt, expiresIn });
}

function registerTokenRequests(app: FastifyInstance, options: AttesterRoutesOptions): void {
  app.addContentTypeParser(
    [...ISSUANCE_MEDIA_TYPES],
    { parseAs: "buffer" },
    (_request, body, done) => done(null, body),
  );
  app.post(
    TOKEN_REQUEST_PATH,
    { schema: { summary: "Blind signatures for an attested device (RFC 9578 §5, §6)" } },
    async (request, reply) => {
      try {
        const result = await issueFor(request, options);
        options.metrics.tokenRequests.inc({ outcome: "OK" });
        options.metrics.tokensIssued.inc(result.issued);
        return await reply
          .code(result.status)
          .type(result.mediaType)
          .send(Buffer.from(result.body));
      } catch (error) {
        options.metrics.tokenRequests.inc({ outcome: outcomeOf(error) });
        return unauthorizedOr(reply, error, options.dpopVerifier);
      }
    },
  );
}

async function issueFor(
  request: FastifyRequest,
  options: AttesterRoutesOptions,
): Promise<IssuanceResult> {
  const mediaType = issuanceMediaType(request);
  const accessToken = parseDpopAuthorization(request.headers.authorization);
  const result = await options.resultVerifier.verify(accessToken);
  await options.dpopVerifier.verify({
    proof: onlyHeader(request, "dpop"),
    method: "POST",
    uri: `${options.publicUrl}${TOKEN_REQUEST_PATH}`,
    accessToken,
    jwk: result.deviceKey,
    run: result.run,
  });
  // A result outlives a revocation by minutes: the registry is asked each time.
  const deviceClass = await options.registry.checkAdmissible(result.subject);
  const body = new Uint8Array(request.body instanceof Buffer ? request.body : []);
  const charge = {
    pseudonym: result.subject,
    count: options.issuer.examine(mediaType, body),
    atMs: options.clock(),
    limit: tokenLimit(options, result.attestedBy, deviceClass),
  };
  return issueCharged(options, charge, () => options.issuer.issue(mediaType, body));
}

/** The device is charged for what it is given, and is given nothing that it is not charged for. */
async function issueCharged(
  { allowances }: AttesterRoutesOptions,
  charge: AllowanceCharge,
  issue: () => Promise<IssuanceResult>,
): Promise<IssuanceResult> {
  let given = 0;
  await allowances.charge(charge);
  try {
    const result = await issue();
    const more = result.issued - charge.count;
    // A key that came to its time while the charge was written signs requests that were not counted.
    if (more > 0) await allowances.charge({ ...charge, count: more });
    given = result.issued;
    return result;
  } finally {
    const unused = charge.count - given;
    // Where even this fails, the device keeps the charge until its window ends: never more tokens.
    if (unused > 0) await allowances.refund({ ...charge, count: unused }).catch(() => undefined);
  }
}

/** A credential is made at a touch, and a device is bought: they do not share a limit. */
function tokenLimit(
  { classLimits, webauthnTokens }: AttesterRoutesOptions,
  attestedBy: "tpm" | "webauthn",
  deviceClass: string | undefined,
): number | undefined {
  if (attestedBy === "webauthn") return webauthnTokens;
  return deviceClass === undefined ? undefined : classLimits.get(deviceClass);
}

/** A header that occurs at most once: two could be read as either by two readers. */
function onlyHeader(request: FastifyRequest, name: string): string | undefined {
  const values = request.raw.headersDistinct[name] ?? [];
  return values.length === 1 ? values[0] : undefined;
}

/** RFC 9449 §7.1, §8: a refused credential is answered with what would be accepted. */
function unauthorizedOr(
  reply: FastifyReply,
  error: unknown,
  { nonce }: Pick<DpopVerifier, "nonce">,
): never {
  const code = outcomeOf(error);
  if (code === "ATTEST_PROOF_NONCE_REQUIRED") {
    void reply.header("www-authenticate", 'DPoP error="use_dpop_nonce", algs="ES256"');
    void reply.header("dpop-nonce", nonce());
  } else if (code === "ATTEST_RESULT_INVALID" || code === "ATTEST_PROOF_INVALID") {
    void reply.header("www-authenticate", 'DPoP algs="ES256"');
  }
  throw error;
}

async function counted<T>(
  options: AttesterRoutesOptions,
  step: "challenge" | "evidence",
  work: () => Promise<T>,
): Promise<T> {
  try {
    const result = await work();
    options.metrics.attestations.inc({ step, outcome: "OK" });
    return result;
  } catch (error) {
    options.metrics.attestations.inc({ step, outcome: outcomeOf(error) });
    throw error;
  }
}
