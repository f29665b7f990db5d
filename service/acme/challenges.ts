/**
 * The challenges that an ACME server may ask about now: of orders under way, and of no others. Each is answered for
 * its own name alone, over plain HTTP (RFC 8555 §8.3) or in a TLS handshake (RFC 8737 §3).
 */
import { createHash } from "node:crypto";
import { OctetString } from "asn1js";
import type { ServerCertificate } from "../../tls/index.ts";
import type { AcmeChallengeType } from "../config/index.ts";
import { extension, newP256Keys, privateKeyPem, signCertificate } from "../x509.ts";
import { subjectAltName } from "./csr.ts";

/** id-pe-acmeIdentifier (RFC 8737 §6.1). */
const ACME_IDENTIFIER = "1.3.6.1.5.5.7.1.31";
const CHALLENGE_LIFETIME_MS = 86_400_000;

export interface ChallengeToAnswer {
  readonly type: AcmeChallengeType;
  /** DNS name in lower case. */
  readonly name: string;
  readonly token: string;
  /** `token || '.' || thumbprint of the account key` (RFC 8555 §8.1). */
  readonly keyAuthorization: string;
}

export interface PendingChallenges {
  /** Answers it until the returned function is called. */
  readonly answer: (challenge: ChallengeToAnswer) => Promise<() => void>;
  /** http-01. @param name and `token` are hostile */
  readonly keyAuthorization: (name: string, token: string) => string | undefined;
  /** tls-alpn-01. @param name hostile */
  readonly certificate: (name: string) => ServerCertificate | undefined;
}

export function createPendingChallenges(clock: () => number): PendingChallenges {
  const overHttp = new Map<string, string>();
  const overTls = new Map<string, ServerCertificate>();
  return {
    answer: async (challenge) => {
      const { keyAuthorization, name, token, type } = challenge;
      if (type === "http-01") {
        const key = `${name} ${token}`;
        overHttp.set(key, keyAuthorization);
        return () => void overHttp.delete(key);
      }
      overTls.set(name, await challengeCertificate(challenge, clock()));
      return () => void overTls.delete(name);
    },
    keyAuthorization: (name, token) => overHttp.get(`${name} ${token}`),
    certificate: (name) => overTls.get(name),
  };
}

/** RFC 8737 §3: self-signed, one dNSName, and the critical digest of the key authorization. */
async function challengeCertificate(
  { keyAuthorization, name }: ChallengeToAnswer,
  nowMs: number,
): Promise<ServerCertificate> {
  const keys = await newP256Keys();
  const digest = createHash("sha256").update(keyAuthorization).digest();
  const cert = await signCertificate({
    subject: "ACME challenge",
    issuer: "ACME challenge",
    subjectKey: keys.publicKey,
    issuerKey: keys.publicKey,
    signingKey: keys.privateKey,
    nowMs,
    lifetimeMs: CHALLENGE_LIFETIME_MS,
    extensions: [
      subjectAltName([name]),
      extension(
        ACME_IDENTIFIER,
        true,
        new OctetString({ valueHex: Uint8Array.from(digest).buffer }),
      ),
    ],
  });
  return {
    cert,
    key: await privateKeyPem(keys.privateKey),
    signsWith: "ECDSA+SHA256",
    names: [name],
    notAfterMs: nowMs + CHALLENGE_LIFETIME_MS,
  };
}
