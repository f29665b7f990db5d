/** Requests in full, as bytes, made before the clock starts: tokens, clearances, batches with their proofs. */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  randomBytes,
  sign,
} from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createDpopProof } from "../attest/agent/index.ts";
import { createAttestationResultSigner } from "../attest/index.ts";
import { exchange } from "../service/agent/exchange.ts";
import { openSecrets } from "../service/keystore/index.ts";
import { openMint } from "../test/support/mint.ts";
import {
  encodeAmortizedBatchTokenRequest,
  encodeGenericBatchTokenRequest,
  ISSUER_DIRECTORY_PATH,
  MEDIA_TYPE_AMORTIZED_BATCH_REQUEST,
  MEDIA_TYPE_GENERIC_BATCH_REQUEST,
  parseIssuerDirectory,
  parseWwwAuthenticate,
  TOKEN_TYPE_BLIND_RSA,
} from "../tokens/index.ts";
import { createVoprfEngine, isVoprfTokenType } from "../tokens/voprf/index.ts";
import type { BenchServer } from "./servers.ts";

/** A GET without a body. */
export function getRequest(server: BenchServer, headers: readonly string[]): Uint8Array {
  const lines = [`GET / HTTP/1.1`, `Host: ${server.host}`, ...headers, "", ""];
  return Buffer.from(lines.join("\r\n"));
}

/** What the sidecar asks of a client without a token. */
async function challengeOf(server: BenchServer): Promise<Uint8Array> {
  const url = `https://${server.host}/`;
  const answer = await exchange({ url, method: "GET", headers: {}, ca: server.ca });
  const [first] = parseWwwAuthenticate(answer.headers["www-authenticate"] ?? "");
  if (first === undefined) throw new Error("the sidecar does not challenge");
  return first.challenge;
}

/** Values of Authorization headers, each with a token of its own. */
export async function tokenHeaders(server: BenchServer, count: number): Promise<string[]> {
  const challenge = await challengeOf(server);
  const mint = await openMint(server.dir);
  return Array.from({ length: count }, () => `Authorization: ${mint.authorization(challenge)}`);
}

/** A Cookie header with a clearance. */
export async function clearanceHeader(server: BenchServer): Promise<string> {
  const [token = ""] = await tokenHeaders(server, 1);
  const answer = await exchange({
    url: `https://${server.host}/`,
    method: "GET",
    headers: { authorization: token.slice("Authorization: ".length) },
    ca: server.ca,
  });
  const cookie = answer.headers["set-cookie"]?.[0]?.split(";")[0];
  if (cookie === undefined) throw new Error("the sidecar gave no clearance");
  return `Cookie: ${cookie}`;
}

export interface BatchSpec {
  readonly tokenType: number;
  readonly batches: number;
  /** Token requests in each. */
  readonly size: number;
}

/** POSTs of batches, every one with a proof of its own: generic ones of type 2, amortized ones of the others. */
export async function batchRequests(server: BenchServer, spec: BatchSpec): Promise<Uint8Array[]> {
  const url = `https://${server.host}`;
  const device = softwareDevice();
  const accessToken = await attestationResult(server, url, device.deviceKeyJwk);
  const truncatedTokenKeyId = await truncatedKeyId(server, spec.tokenType);
  const isRsa = spec.tokenType === TOKEN_TYPE_BLIND_RSA;
  const mediaType = isRsa ? MEDIA_TYPE_GENERIC_BATCH_REQUEST : MEDIA_TYPE_AMORTIZED_BATCH_REQUEST;
  const requests: Uint8Array[] = [];
  const proofOf = async (nonce?: string): Promise<string> =>
    createDpopProof({
      device,
      method: "POST",
      uri: `${url}/token-request`,
      accessToken,
      nonce,
      clock: Date.now,
      random: (length) => Uint8Array.from(randomBytes(length)),
    });
  // The result is not of the sidecar's own run, so that each proof needs a nonce.
  const asked = await exchange({
    url: `${url}/token-request`,
    method: "POST",
    headers: {
      authorization: `DPoP ${accessToken}`,
      dpop: await proofOf(),
      "content-type": mediaType,
    },
    ca: server.ca,
  });
  const nonce = String(asked.headers["dpop-nonce"]);
  for (let i = 0; i < spec.batches; i += 1) {
    const body = isRsa
      ? rsaBatch(spec.size, truncatedTokenKeyId)
      : voprfBatch(spec, truncatedTokenKeyId);
    const head = [
      "POST /token-request HTTP/1.1",
      `Host: ${server.host}`,
      `Authorization: DPoP ${accessToken}`,
      `DPoP: ${await proofOf(nonce)}`,
      `Content-Type: ${mediaType}`,
      `Content-Length: ${body.length}`,
      "",
      "",
    ];
    requests.push(Buffer.concat([Buffer.from(head.join("\r\n")), body]));
  }
  return requests;
}

async function truncatedKeyId(server: BenchServer, tokenType: number): Promise<number> {
  const url = `https://${server.host}${ISSUER_DIRECTORY_PATH}`;
  const { body } = await exchange({ url, method: "GET", headers: {}, ca: server.ca });
  const key = parseIssuerDirectory(body).tokenKeys.find((listed) => listed.tokenType === tokenType);
  if (key === undefined) throw new Error(`the sidecar has no key of type ${tokenType}`);
  return createHash("sha256").update(key.tokenKey).digest()[31] ?? 0;
}

function rsaBatch(size: number, truncatedTokenKeyId: number): Uint8Array {
  return encodeGenericBatchTokenRequest(
    Array.from({ length: size }, () => ({
      tokenType: TOKEN_TYPE_BLIND_RSA,
      truncatedTokenKeyId,
      blindedMessage: blindedMessage(),
    })),
  );
}

/** Blinded elements are uniform, and so are the public keys of random keys. */
function voprfBatch({ size, tokenType }: BatchSpec, truncatedTokenKeyId: number): Uint8Array {
  if (!isVoprfTokenType(tokenType)) throw new TypeError("expected a VOPRF type");
  const voprf = createVoprfEngine(tokenType, "native");
  const random = (length: number): Uint8Array => Uint8Array.from(randomBytes(length));
  const blindedElements = Array.from({ length: size }, () =>
    voprf.publicKeyOf(voprf.nonceOf(random(voprf.suite.uniformLength))),
  );
  return encodeAmortizedBatchTokenRequest({ tokenType, truncatedTokenKeyId, blindedElements });
}

/** Any number below the modulus will do: blinded messages are uniform. */
function blindedMessage(): Uint8Array {
  const message = Uint8Array.from(randomBytes(256));
  message[0] = 0;
  return message;
}

type SoftwareDevice = Parameters<typeof createDpopProof>[0]["device"];

/** A device key in software: the benchmark is of the issuer, not of a TPM. */
function softwareDevice(): SoftwareDevice {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const { x = "", y = "" } = publicKey.export({ format: "jwk" });
  return {
    deviceKeyJwk: { kty: "EC", crv: "P-256", x, y },
    signEs256: (message) => {
      const key = { key: privateKey, dsaEncoding: "ieee-p1363" } as const;
      return Promise.resolve(Uint8Array.from(sign("sha256", message, key)));
    },
  };
}

/** Signed with the sidecar's own key, which the benchmark may open in a development folder. */
async function attestationResult(
  server: BenchServer,
  url: string,
  deviceKey: SoftwareDevice["deviceKeyJwk"],
): Promise<string> {
  const passphrase = Uint8Array.from(readFileSync(join(server.dir, "passphrase")));
  const secrets = await openSecrets({ dir: join(server.dir, "state", "secrets"), passphrase });
  const pkcs8 = await secrets.getOrCreate("attestation-result", () => {
    throw new Error("the sidecar has not made its keys");
  });
  const privateKey = createPrivateKey({ key: Buffer.from(pkcs8), format: "der", type: "pkcs8" });
  const signer = createAttestationResultSigner({
    privateKey,
    publicKey: createPublicKey(privateKey),
    keyId: "bench",
    issuer: url,
    audience: url,
    lifetimeSeconds: 900,
    clock: Date.now,
    verifierId: { developer: "stile", build: "bench" },
  });
  const none = { configuration: 0, executables: 0, fileSystem: 0, runtimeOpaque: 0 };
  const trustworthiness = {
    ...none,
    instanceIdentity: 2,
    hardware: 2,
    storageOpaque: 0,
    sourcedData: 0,
  };
  const { jwt } = await signer.sign({
    subject: "bench",
    deviceKey,
    trustworthiness,
    channelBinding: "none",
    appraisalPolicyId: "bench",
  });
  return jwt;
}
