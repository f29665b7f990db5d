/**
 * The challenges that an ACME server may ask about now: of orders under way, and of no others. Each is answered for
 * its own name alone: over plain HTTP (RFC 8555 §8.3) from memory, in a TLS handshake (RFC 8737 §3) from a file, since
 * another process may hold the port.
 */
import { createHash } from "node:crypto";
import { rm } from "node:fs/promises";
import { OctetString } from "asn1js";
import { encodeUtf8 } from "../../wire/index.ts";
import type { AcmeChallengeType } from "../config/index.ts";
import {
  makeFolderDurably,
  removeFileDurably,
  replaceFileDurably,
} from "../stores/durable-file.ts";
import { extension, newP256Keys, privateKeyPem, signCertificate } from "../x509.ts";
import { subjectAltName } from "./csr.ts";
import { pendingFile } from "./files.ts";

/** id-pe-acmeIdentifier (RFC 8737 §6.1). */
const ACME_IDENTIFIER = "1.3.6.1.5.5.7.1.31";
const CHALLENGE_LIFETIME_MS = 86_400_000;

export interface ChallengeToAnswer {
  readonly type: AcmeChallengeType;
  /** One of the configuration. */
  readonly name: string;
  readonly token: string;
  /** `token || '.' || thumbprint of the account key` (RFC 8555 §8.1). */
  readonly keyAuthorization: string;
}

export interface PendingChallenges {
  /** Answers it until the returned function is called. */
  readonly answer: (challenge: ChallengeToAnswer) => Promise<() => Promise<void>>;
  /** http-01. @param name and `token` are hostile */
  readonly keyAuthorization: (name: string, token: string) => string | undefined;
}

/** @param folder of tls-alpn-01; what a crash left in it is removed, for it is pending no more */
export async function createPendingChallenges(
  folder: string,
  clock: () => number,
): Promise<PendingChallenges> {
  await rm(folder, { recursive: true, force: true });
  await makeFolderDurably(folder);
  const overHttp = new Map<string, string>();
  return {
    answer: async (challenge) => {
      const { keyAuthorization, name, token, type } = challenge;
      if (type === "http-01") {
        const key = `${name} ${token}`;
        overHttp.set(key, keyAuthorization);
        return () => Promise.resolve(void overHttp.delete(key));
      }
      const file = pendingFile(folder, name);
      await replaceFileDurably(file, encodeUtf8(await challengeCertificate(challenge, clock())));
      return () => removeFileDurably(file);
    },
    keyAuthorization: (name, token) => overHttp.get(`${name} ${token}`),
  };
}

/** RFC 8737 §3: self-signed, one dNSName, and the critical digest of the key authorization. PEM, with its key. */
async function challengeCertificate(
  { keyAuthorization, name }: ChallengeToAnswer,
  nowMs: number,
): Promise<string> {
  const keys = await newP256Keys();
  const digest = createHash("sha256").update(keyAuthorization).digest();
  const certificate = await signCertificate({
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
  return certificate + (await privateKeyPem(keys.privateKey));
}
