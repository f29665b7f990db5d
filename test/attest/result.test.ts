/** Attestation results: what one says, and every way in which one is not believed. */
import { createHmac, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { decodeJwt, decodeProtectedHeader, jwtVerify, SignJWT, UnsecuredJWT } from "jose";
import { describe, expect, it } from "vitest";
import {
  type AttestationResultClaims,
  createAttestationResultSigner,
  createAttestationResultVerifier,
  type Es256PublicJwk,
  type TrustworthinessVector,
} from "../../attest/index.ts";
import { createNodeAttestCrypto } from "../../attest/node/index.ts";
import { codeOfAsync } from "../support/reject.ts";

const pair = (): { privateKey: KeyObject; publicKey: KeyObject } =>
  generateKeyPairSync("ec", { namedCurve: "P-256" });
const own = pair();
const issuer = "https://attester.example";
const startMs = Date.UTC(2026, 10, 23);
const jwkOf = (key: KeyObject): Es256PublicJwk => {
  const { x = "", y = "" } = key.export({ format: "jwk" });
  return { kty: "EC", crv: "P-256", x, y };
};
const deviceKey = jwkOf(pair().publicKey);

const affirming: TrustworthinessVector = {
  instanceIdentity: 2,
  configuration: 0,
  executables: 0,
  fileSystem: 0,
  hardware: 2,
  runtimeOpaque: 0,
  storageOpaque: 0,
  sourcedData: 0,
};
const claims: AttestationResultClaims = {
  subject: "pseudonym",
  deviceKey,
  trustworthiness: affirming,
  channelBinding: "tls-exporter",
  appraisalPolicyId: "urn:stile:policy:test",
};

const signer = createAttestationResultSigner({
  ...own,
  keyId: "key-1",
  issuer,
  audience: issuer,
  lifetimeSeconds: 300,
  clock: () => startMs,
  verifierId: { developer: "stile", build: "test" },
});

function verify(jwt: string, at = startMs, publicKey = own.publicKey): Promise<string> {
  const verifier = createAttestationResultVerifier({
    crypto: createNodeAttestCrypto(),
    publicKey,
    issuer,
    audience: issuer,
    clock: () => at,
  });
  return codeOfAsync(() => verifier.verify(jwt));
}

/** A result that differs from a good one in what is given. */
async function forged(change: {
  header?: Record<string, unknown>;
  payload?: Record<string, unknown>;
  key?: KeyObject;
}): Promise<string> {
  const { jwt } = await signer.sign(claims);
  return new SignJWT({ ...decodeJwt(jwt), ...change.payload })
    .setProtectedHeader({ alg: "ES256", typ: "eat-ear+jwt", ...change.header })
    .sign(change.key ?? own.privateKey);
}

describe("an attestation result", () => {
  it("is an EAR that another JOSE implementation reads, for as long as it says", async () => {
    const { jwt, expiresAtMs } = await signer.sign(claims);
    expect(expiresAtMs).toBe(startMs + 300_000);
    const { payload } = await jwtVerify(jwt, own.publicKey, { currentDate: new Date(startMs) });
    expect(decodeProtectedHeader(jwt)).toStrictEqual({
      alg: "ES256",
      typ: "eat-ear+jwt",
      kid: "key-1",
    });
    expect(payload).toMatchObject({
      eat_profile: "tag:github.com,2023:veraison/ear",
      iss: issuer,
      aud: issuer,
      sub: "pseudonym",
      cnf: { jwk: deviceKey },
      submods: {
        tpm: {
          "ear.status": "affirming",
          "ear.trustworthiness-vector": { "instance-identity": 2, hardware: 2, "file-system": 0 },
        },
      },
    });
    const verifier = createAttestationResultVerifier({
      crypto: createNodeAttestCrypto(),
      publicKey: own.publicKey,
      issuer,
      audience: issuer,
      clock: () => startMs + 299_000,
    });
    expect(await verifier.verify(jwt)).toStrictEqual({
      kind: "verified-attestation-result",
      attestedBy: "tpm",
      subject: "pseudonym",
      deviceKey,
      channelBinding: "tls-exporter",
      trustworthiness: affirming,
    });
  });

  it("rejects one that has ended, and one of another key", async () => {
    const { jwt } = await signer.sign(claims);
    expect(await verify(jwt)).toBe("nothing was thrown");
    expect(await verify(jwt, startMs + 300_000)).toBe("ATTEST_RESULT_INVALID");
    expect(await verify(jwt, startMs, pair().publicKey)).toBe("ATTEST_RESULT_INVALID");
    expect(await verify(await forged({ key: pair().privateKey }))).toBe("ATTEST_RESULT_INVALID");
  });

  it("G5: rejects every other spelling of one that is good", async () => {
    const { jwt } = await signer.sign(claims);
    // ES256 leaves four bits of the last letter unused.
    const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const last = alphabet.indexOf(jwt.at(-1) ?? "");
    const sibling = jwt.slice(0, -1) + (alphabet[last ^ 1] ?? "");
    const cut = `${jwt.slice(0, -9)} ${jwt.slice(-9)}`;
    for (const other of [`${jwt} `, ` ${jwt}`, `${jwt}\n`, `${jwt}==`, cut, sibling]) {
      expect(await verify(other)).toBe("ATTEST_RESULT_INVALID");
    }
    expect(await verify(jwt)).toBe("nothing was thrown");
  });

  it("rejects alg none, an HMAC with the public key, another typ and another algorithm", async () => {
    const { jwt } = await signer.sign(claims);
    const [, payload = ""] = jwt.split(".");
    const none = new UnsecuredJWT(decodeJwt(jwt)).encode();
    const header = Buffer.from('{"alg":"HS256","typ":"eat-ear+jwt"}').toString("base64url");
    const pem = own.publicKey.export({ type: "spki", format: "pem" });
    const mac = createHmac("sha256", pem).update(`${header}.${payload}`).digest("base64url");
    const p384 = generateKeyPairSync("ec", { namedCurve: "P-384" }).privateKey;
    for (const bad of [
      none,
      `${header}.${payload}.${mac}`,
      await forged({ header: { typ: "JWT" } }),
      await forged({ header: { alg: "ES384" }, key: p384 }),
    ]) {
      expect(await verify(bad)).toBe("ATTEST_RESULT_INVALID");
    }
  });

  it.each([
    ["another issuer", { iss: "https://other.example" }],
    ["another audience", { aud: "https://other.example" }],
    ["no subject", { sub: undefined }],
    ["no end", { exp: undefined }],
    ["no confirmation key", { cnf: undefined }],
    ["a private confirmation key", { cnf: { jwk: { ...deviceKey, d: "AA" } } }],
    ["a key of another curve", { cnf: { jwk: { ...deviceKey, crv: "P-384" } } }],
    ["another profile", { eat_profile: "tag:other" }],
    ["an unknown channel binding", { "urn:stile:channel-binding": "tls-unique" }],
    ["no appraisal", { submods: {} }],
  ])("rejects one with %s", async (_name, payload) => {
    expect(await verify(await forged({ payload }))).toBe("ATTEST_RESULT_INVALID");
  });

  it("is remembered no longer than it lasts, and for its own text alone", async () => {
    const at = { nowMs: startMs };
    const verifier = createAttestationResultVerifier({
      crypto: createNodeAttestCrypto(),
      publicKey: own.publicKey,
      issuer,
      audience: issuer,
      clock: () => at.nowMs,
    });
    const { jwt } = await signer.sign(claims);
    const code = (text: string): Promise<string> => codeOfAsync(() => verifier.verify(text));
    expect(await verifier.verify(jwt)).toBe(await verifier.verify(jwt));
    const [header = "", payload = ""] = jwt.split(".");
    const theirs = (await forged({ key: pair().privateKey })).split(".")[2] ?? "";
    expect(await code(`${header}.${payload}.${theirs}`)).toBe("ATTEST_RESULT_INVALID");
    at.nowMs = startMs + 299_999;
    expect(await code(jwt)).toBe("nothing was thrown");
    at.nowMs = startMs + 300_000;
    expect(await code(jwt)).toBe("ATTEST_RESULT_INVALID");
  });

  it("rejects a critical extension, another end than a number, and one that has not begun", async () => {
    const seconds = startMs / 1_000;
    const critical = { header: { crit: ["urn:x"], "urn:x": true } };
    const { jwt } = await signer.sign(claims);
    const [, payload = ""] = jwt.split(".");
    const header = { alg: "ES256", typ: "eat-ear+jwt", ...critical.header };
    const input = `${Buffer.from(JSON.stringify(header)).toString("base64url")}.${payload}`;
    const key = { key: own.privateKey, dsaEncoding: "ieee-p1363" } as const;
    const signature = sign("sha256", Buffer.from(input), key).toString("base64url");
    expect(await verify(`${input}.${signature}`)).toBe("ATTEST_RESULT_INVALID");
    for (const payloadChange of [{ exp: "never" }, { nbf: seconds + 1 }, { iat: "now" }]) {
      expect(await verify(await forged({ payload: payloadChange }))).toBe("ATTEST_RESULT_INVALID");
    }
    expect(await verify(await forged({ payload: { nbf: seconds } }))).toBe("nothing was thrown");
  });

  it("rejects one that is too long before anything else", async () => {
    const { jwt } = await signer.sign({ ...claims, subject: "s".repeat(4_096) });
    expect(await verify(jwt)).toBe("ATTEST_RESULT_INVALID");
  });
});

describe("the status of an appraisal (AR4SI §2.2)", () => {
  const statusFor = async (hardware: number): Promise<unknown> => {
    const { jwt } = await signer.sign({ ...claims, trustworthiness: { ...affirming, hardware } });
    const { submods } = decodeJwt(jwt) as { submods: { tpm: Record<string, unknown> } };
    return submods.tpm["ear.status"];
  };

  it.each([
    ["affirming", [-1, 0, 1, 2, 31, -2, -32]],
    ["warning", [32, 95, -33, -96]],
    ["contraindicated", [96, 127, -97, -128]],
  ])("is %s by the worst claim", async (status, values) => {
    for (const value of values) expect(await statusFor(value), String(value)).toBe(status);
  });

  it("is none where nothing is claimed, and then nobody believes it", async () => {
    const trustworthiness = { ...affirming, hardware: 0, instanceIdentity: 1 };
    const { jwt } = await signer.sign({ ...claims, trustworthiness });
    expect(JSON.stringify(decodeJwt(jwt))).toContain('"ear.status":"none"');
    expect(await verify(jwt)).toBe("ATTEST_RESULT_INVALID");
  });

  it("rejects a claim outside its range, and a status that its vector does not bear out", async () => {
    await expect(statusFor(128)).rejects.toThrow(RangeError);
    await expect(statusFor(2.5)).rejects.toThrow(RangeError);
    const vector = (change: Record<string, unknown>): Record<string, unknown> => ({
      "instance-identity": 2,
      configuration: 0,
      executables: 0,
      "file-system": 0,
      hardware: 2,
      "runtime-opaque": 0,
      "storage-opaque": 0,
      "sourced-data": 0,
      ...change,
    });
    const result = (status: string, values: unknown): Promise<string> =>
      forged({
        payload: {
          submods: { tpm: { "ear.status": status, "ear.trustworthiness-vector": values } },
        },
      });
    expect(await verify(await result("affirming", vector({})))).toBe("nothing was thrown");
    const appraisal = { "ear.status": "affirming", "ear.trustworthiness-vector": vector({}) };
    expect(await verify(await forged({ payload: { submods: { webauthn: appraisal } } }))).toBe(
      "nothing was thrown",
    );
    for (const bad of [
      await result("affirming", vector({ hardware: 96 })),
      await result("warning", vector({})),
      await result("affirming", vector({ hardware: "2" })),
      await result("affirming", vector({ hardware: 200 })),
      await result("affirming", vector({ extra: 2 })),
      await result("affirming", undefined),
      await forged({ payload: { submods: { tpm: appraisal, webauthn: appraisal } } }),
      await forged({ payload: { submods: { phone: appraisal } } }),
      await forged({ payload: { submods: "tpm" } }),
    ]) {
      expect(await verify(bad)).toBe("ATTEST_RESULT_INVALID");
    }
  });
});
