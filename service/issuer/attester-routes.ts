/**
 * Issuance for attesters, of an issuer that stands alone (RFC 9578 §5.2, §6.2): mutual TLS, a trust list, a
 * quota. The issuer gets the bytes of the request and nothing about the client behind them.
 */
import type { FastifyInstance, FastifyRequest } from "fastify";
import { ISSUANCE_MEDIA_TYPES } from "../../tokens/index.ts";
import { StileError } from "../../wire/index.ts";
import { issuanceMediaType, outcomeOf } from "../http/app.ts";
import { peerOf } from "../http/peer.ts";
import type { Metrics } from "../metrics.ts";
import { type Tenant, TOKEN_REQUEST_PATH } from "./tenants.ts";
import type { TrustedAttesters } from "./trusted-attesters.ts";

export interface AttesterIssuanceOptions {
  readonly tenantOf: (host: string | undefined) => Tenant;
  readonly attesters: TrustedAttesters;
  readonly metrics: Metrics;
}

export function registerAttesterIssuance(
  app: FastifyInstance,
  { attesters, metrics, tenantOf }: AttesterIssuanceOptions,
): void {
  /** @throws `SERVICE_HOST_UNKNOWN`, `TOKEN_ATTESTER_REFUSED` */
  const callerOf = (request: FastifyRequest): { name: string; issuer: Tenant["issuer"] } => {
    const name = attesters.nameOf(peerOf(request.raw.socket).certificateSha256);
    const { isFor, issuer } = tenantOf(request.headers.host);
    if (isFor(name)) return { name, issuer };
    throw new StileError("TOKEN_ATTESTER_REFUSED", "this attester may not ask this issuer");
  };
  app.addContentTypeParser(
    [...ISSUANCE_MEDIA_TYPES],
    { parseAs: "buffer" },
    (_request, body, done) => done(null, body),
  );
  app.post(
    TOKEN_REQUEST_PATH,
    {
      schema: { summary: "Blind signatures for a trusted attester (RFC 9578 §5, §6)" },
      // An attester asks for many clients from one address; its quota is in tokens.
      config: { rateLimit: false },
      // Before the body: whoever is not trusted does not get it read.
      onRequest: (request, _reply, done) => {
        callerOf(request);
        done();
      },
    },
    async (request, reply) => {
      try {
        const { issuer, name } = callerOf(request);
        const mediaType = issuanceMediaType(request);
        const body = new Uint8Array(request.body instanceof Buffer ? request.body : []);
        attesters.charge(name, issuer.examine(mediaType, body));
        const result = await issuer.issue(mediaType, body);
        metrics.tokenRequests.inc({ outcome: "OK" });
        metrics.tokensIssued.inc(result.issued);
        return await reply
          .code(result.status)
          .type(result.mediaType)
          .send(Buffer.from(result.body));
      } catch (error) {
        metrics.tokenRequests.inc({ outcome: outcomeOf(error) });
        throw error;
      }
    },
  );
}
