/**
 * Revocation of a device, a manufacturer or a class by the operator: `GET` and `POST /revocations`, `POST
 * /reinstatements` on the operator listener. It holds at once for challenges, evidence and token requests, and
 * outlives restarts. A device is named by its pseudonym (the `sub` of its results) or by its EK; neither is
 * told again: the list shows a hash of the pseudonym.
 */
import { X509Certificate } from "node:crypto";
import type { FastifyInstance } from "fastify";
import { type AttestCrypto, devicePseudonym } from "../../attest/index.ts";
import { StileError } from "../../wire/index.ts";
import type { DeviceRegistryStore, RevocationTarget } from "../stores/index.ts";

export interface RevocationRoutes {
  readonly registry: Pick<DeviceRegistryStore, "revoke" | "reinstate" | "revocations">;
  readonly crypto: AttestCrypto;
  /** 32 bytes, the attester's. */
  readonly pseudonymSecret: Uint8Array;
}

interface RevocationBody {
  readonly kind: RevocationTarget["kind"];
  readonly name?: string;
  readonly ekCertificate?: string;
}

const schema = {
  body: {
    type: "object",
    additionalProperties: false,
    required: ["kind"],
    properties: {
      kind: { enum: ["device", "manufacturer", "class"] },
      name: { type: "string", minLength: 1, maxLength: 128 },
      ekCertificate: { type: "string", minLength: 1, maxLength: 16_384 },
    },
    oneOf: [{ required: ["name"] }, { required: ["ekCertificate"] }],
  },
} as const;

const FORMS: Readonly<Record<RevocationTarget["kind"], RegExp>> = {
  device: /^[A-Za-z0-9_-]{43}$/,
  manufacturer: /^id:[0-9A-F]{8}$/,
  class: /^[a-z0-9][a-z0-9-]{0,63}$/,
};

export function registerRevocationRoutes(app: FastifyInstance, options: RevocationRoutes): void {
  const { registry } = options;
  app.get("/revocations", async () => ({ revocations: await registry.revocations() }));
  app.post("/revocations", { schema }, async (request, reply) => {
    await registry.revoke(targetOf(options, request.body as RevocationBody));
    return reply.code(204).send();
  });
  app.post("/reinstatements", { schema }, async (request, reply) => {
    await registry.reinstate(targetOf(options, request.body as RevocationBody));
    return reply.code(204).send();
  });
}

/** @throws `SERVICE_REQUEST_INVALID` */
function targetOf(options: RevocationRoutes, body: RevocationBody): RevocationTarget {
  const { ekCertificate, kind, name = "" } = body;
  if (ekCertificate !== undefined && kind === "device") {
    return { kind, pseudonym: pseudonymOf(options, ekCertificate) };
  }
  if (!FORMS[kind].test(name)) {
    throw new StileError("SERVICE_REQUEST_INVALID", `name: not the form of a ${kind}`);
  }
  return kind === "device" ? { kind, pseudonym: name } : { kind, name };
}

/** @param certificate PEM, or DER in base64url; it only names the device, so it is not verified */
function pseudonymOf({ crypto, pseudonymSecret }: RevocationRoutes, certificate: string): string {
  const isPem = certificate.includes("-----BEGIN");
  try {
    const bytes = isPem ? certificate : Buffer.from(certificate, "base64url");
    const { publicKey } = new X509Certificate(bytes);
    const spki = Uint8Array.from(publicKey.export({ type: "spki", format: "der" }));
    return devicePseudonym(crypto, pseudonymSecret, spki);
  } catch (cause) {
    throw new StileError("SERVICE_REQUEST_INVALID", "ekCertificate: not a certificate", { cause });
  }
}
