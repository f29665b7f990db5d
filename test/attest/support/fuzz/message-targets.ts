/** Messages of an enrolment in JSON, and the JWTs that a device shows afterwards. */
import { generateKeyPairSync } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import { SignJWT } from "jose";
import {
  createAttestationResultSigner,
  createAttestationResultVerifier,
  createDpopVerifier,
  encodeChallengeRequest,
  encodeChallengeResponse,
  encodeEvidenceRequest,
  encodeEvidenceResponse,
  type Es256PublicJwk,
  parseChallengeRequest,
  parseChallengeResponse,
  parseEvidenceRequest,
  parseEvidenceResponse,
} from "../../../../attest/index.ts";
import { createNodeAttestCrypto } from "../../../../attest/node/index.ts";
import { type FuzzTarget, jsonTarget, textTarget } from "./target.ts";

const NOW = Date.UTC(2026, 10, 23);
const ISSUER = "https://attester.example";
const URI = "https://stile.example/token-request";
const crypto = createNodeAttestCrypto();

export async function messageTargets(): Promise<FuzzTarget[]> {
  return [...jsonTargets(), await resultTarget(), await dpopTarget()];
}

function jsonTargets(): FuzzTarget[] {
  const some = (length: number): Uint8Array => new Uint8Array(length).fill(0xa5);
  const signed = { attest: some(140), signature: some(70) };
  return [
    messageTarget("challenge request", parseChallengeRequest, encodeChallengeRequest, {
      ekCertificates: [some(900), some(700)],
      ekPublic: some(300),
      akPublic: some(90),
    }),
    messageTarget("challenge response", parseChallengeResponse, encodeChallengeResponse, {
      session: "session-1",
      credentialBlob: some(68),
      encryptedSecret: some(258),
      nonce: some(32),
      pcrSelection: some(10),
      channelBinding: "tls-exporter",
      eventLog: "if-present",
      expiresIn: 60,
    }),
    messageTarget("evidence request", parseEvidenceRequest, encodeEvidenceRequest, {
      session: "session-1",
      activatedSecret: some(32),
      quote: signed,
      pcrValues: [0, 7].map((pcr) => ({ hash: "sha256" as const, pcr, value: some(32) })),
      deviceKey: { public: some(90), ...signed },
      eventLog: some(400),
    }),
    messageTarget("evidence response", parseEvidenceResponse, encodeEvidenceResponse, {
      attestationResult: "aaaa.bbbb.cccc",
      expiresIn: 300,
    }),
  ];
}

/** What is accepted is written again as the same JSON. */
function messageTarget<T>(
  name: string,
  parse: (json: unknown) => T,
  encode: (message: T) => object,
  seed: T,
): FuzzTarget {
  return jsonTarget({
    name,
    share: 20,
    seeds: [JSON.parse(JSON.stringify(encode(seed)))],
    parse,
    fault: (message, json) =>
      isDeepStrictEqual(JSON.parse(JSON.stringify(encode(message))), json)
        ? undefined
        : "it re-encodes to another message",
  });
}

async function resultTarget(): Promise<FuzzTarget> {
  const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const signer = createAttestationResultSigner({
    ...pair,
    keyId: "key-1",
    issuer: ISSUER,
    audience: ISSUER,
    lifetimeSeconds: 300,
    clock: () => NOW,
    verifierId: { developer: "stile", build: "test" },
  });
  const { jwt } = await signer.sign({
    subject: "pseudonym",
    deviceKey: deviceKey(),
    trustworthiness: {
      instanceIdentity: 2,
      configuration: 0,
      executables: 0,
      fileSystem: 0,
      hardware: 2,
      runtimeOpaque: 0,
      storageOpaque: 0,
      sourcedData: 0,
    },
    channelBinding: "tls-exporter",
    appraisalPolicyId: "urn:stile:policy:test",
  });
  const { publicKey } = pair;
  const verifier = createAttestationResultVerifier({
    crypto,
    publicKey,
    issuer: ISSUER,
    audience: ISSUER,
    clock: () => NOW,
  });
  return textTarget({
    name: "attestation result (EAR)",
    share: 30,
    seeds: [jwt],
    parse: verifier.verify,
    fault: otherText,
  });
}

function deviceKey(): Es256PublicJwk {
  const { publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const { x = "", y = "" } = publicKey.export({ format: "jwk" });
  return { kty: "EC", crv: "P-256", x, y };
}

async function dpopTarget(): Promise<FuzzTarget> {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const { x = "", y = "" } = publicKey.export({ format: "jwk" });
  const jwk: Es256PublicJwk = { kty: "EC", crv: "P-256", x, y };
  const accessToken = "header.payload.signature";
  const ath = Buffer.from(crypto.hash("sha256", Buffer.from(accessToken))).toString("base64url");
  const claims = { jti: "proof-1", htm: "POST", htu: URI, iat: NOW / 1_000, ath };
  const header = { alg: "ES256", typ: "dpop+jwt", jwk };
  const proof = await new SignJWT(claims).setProtectedHeader(header).sign(privateKey);
  return textTarget({
    name: "DPoP proof",
    share: 30,
    seeds: [proof],
    parse: (text) =>
      // A memory of its own for each: a replay must not hide that a proof is believed.
      createDpopVerifier({
        crypto,
        clock: () => NOW,
        monotonicMs: () => 0,
        random: (length) => new Uint8Array(length),
        run: "run",
      }).verify({
        run: "run",
        proof: text,
        method: "POST",
        uri: URI,
        accessToken,
        jwk,
      }),
    fault: otherText,
  });
}

const otherText = (): string => "accepted in another spelling, or with other claims";
