import { verify } from "node:crypto";
import { jwtVerify, importJWK, decodeProtectedHeader, calculateJwkThumbprint } from "jose";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  createDpopProof,
  type Device,
  EK_NV_INDICES,
  ekTemplate,
  es256JwkOf,
  isDefaultEk,
  openDevice,
  publicKeyOf,
  readEkCertificates,
  splitCertificates,
} from "../../attest/agent/index.ts";
import {
  computeName,
  createDpopVerifier,
  makeCredential,
  parseTpm2bPublic,
} from "../../attest/index.ts";
import { createNodeAttestCrypto } from "../../attest/node/index.ts";
import { openTpm, TPMA_NV } from "../../attest/tss2/index.ts";
import { codeOf, codeOfAsync } from "../support/reject.ts";
import { seededRandom } from "../support/attester.ts";
import { startSwtpm } from "../../swtpm/index.ts";
import { tool } from "../support/tpm2-tools.ts";
import { testNow, useSwtpm } from "../support/swtpm.ts";

const NV_ATTRIBUTES = TPMA_NV.PPWRITE | TPMA_NV.PLATFORMCREATE | TPMA_NV.OWNERREAD | TPMA_NV.NO_DA;
const crypto = createNodeAttestCrypto();
const running = useSwtpm();
let device: Device;
beforeAll(async () => {
  device = await openDevice({ tcti: running.swtpm.tcti, ekAlgorithm: "ecc" });
});
afterAll(() => device.close());

async function credentialFor(target: Device, akPublic: Uint8Array, secret: Uint8Array) {
  const random = seededRandom("credential");
  const name = computeName(parseTpm2bPublic(akPublic), crypto);
  return makeCredential({ crypto, random, ek: parseTpm2bPublic(target.ekPublic), name, secret });
}

describe("a device", () => {
  it.each(["rsa", "ecc"] as const)(
    "activates the attester's credential with its %s EK",
    async (ekAlgorithm) => {
      const own = await openDevice({ tcti: running.swtpm.tcti, ekAlgorithm });
      try {
        for (const length of [16, 17, 31, 32]) {
          const secret = seededRandom("secret")(length);
          const { credentialBlob, encryptedSecret } = await credentialFor(
            own,
            own.akPublic,
            secret,
          );
          expect(await own.activateCredential(credentialBlob, encryptedSecret)).toStrictEqual(
            secret,
          );
        }
      } finally {
        await own.close();
      }
    },
  );

  it("C1, C3: rejects a credential for another AK, and one with any byte changed", async () => {
    const secret = new Uint8Array(32).fill(3);
    const other = await credentialFor(device, device.deviceKeyPublic, secret);
    expect(
      await codeOfAsync(() =>
        device.activateCredential(other.credentialBlob, other.encryptedSecret),
      ),
    ).toBe("ATTEST_TSS_FAILED");
    const { credentialBlob, encryptedSecret } = await credentialFor(
      device,
      device.akPublic,
      secret,
    );
    const codes = new Set<string>();
    for (let i = 0; i < credentialBlob.length; i += 1) {
      const changed = credentialBlob.with(i, (credentialBlob[i] ?? 0) ^ 1);
      codes.add(await codeOfAsync(() => device.activateCredential(changed, encryptedSecret)));
    }
    expect([...codes]).toStrictEqual(["ATTEST_TSS_FAILED"]);
  });

  it("has the same keys after it is opened again, and others than another TPM's", async () => {
    const again = await openDevice({ tcti: running.swtpm.tcti, ekAlgorithm: "rsa" });
    expect(again.akPublic).toStrictEqual(device.akPublic);
    expect(again.deviceKeyJwk).toStrictEqual(device.deviceKeyJwk);
    expect(again.deviceKeyName).toStrictEqual(
      computeName(parseTpm2bPublic(device.deviceKeyPublic), crypto),
    );
    expect(again.ekPublic).not.toStrictEqual(device.ekPublic);
    await again.close();
    expect(device.akPublic).not.toStrictEqual(device.deviceKeyPublic);
  });

  it("leaves nothing loaded in the TPM", async () => {
    const tpm = await openTpm({ tcti: running.swtpm.tcti, maxPendingCalls: 4 });
    const secret = new Uint8Array(32).fill(3);
    const { credentialBlob, encryptedSecret } = await credentialFor(
      device,
      device.akPublic,
      secret,
    );
    await device.activateCredential(credentialBlob, encryptedSecret);
    await device.certifyDeviceKey(new Uint8Array(32));
    await codeOfAsync(() => device.activateCredential(encryptedSecret, encryptedSecret));
    expect(await tpm.handles(0x8000_0000)).toStrictEqual([]);
    await tpm.close();
  });

  it("signs ES256 that node:crypto verifies, for 40 callers at once", async () => {
    const key = publicKeyOf(device.deviceKeyPublic);
    const messages = Array.from({ length: 40 }, (_, i) => Buffer.from(`message ${i}`));
    const signatures = await Promise.all(messages.map((message) => device.signEs256(message)));
    signatures.forEach((signature, i) => {
      expect(signature.length).toBe(64);
      const by = { key, dsaEncoding: "ieee-p1363" } as const;
      expect(verify("sha256", messages[i] ?? Buffer.alloc(0), by, signature)).toBe(true);
    });
  });

  it("comes back after the TPM was reset, for all who call at once", async () => {
    await running.swtpm.reset();
    const signatures = await Promise.all(
      Array.from({ length: 8 }, (_, i) => device.signEs256(Uint8Array.of(i))),
    );
    const by = { key: publicKeyOf(device.deviceKeyPublic), dsaEncoding: "ieee-p1363" } as const;
    signatures.forEach((signature, i) =>
      expect(verify("sha256", Uint8Array.of(i), by, signature)).toBe(true),
    );
  });

  it("rejects a TPM that was cleared meanwhile, instead of using other keys", async () => {
    const own = await startSwtpm({ ca: running.ca, ekAlgorithms: ["ecc"] });
    const cleared = await openDevice({ tcti: own.tcti, ekAlgorithm: "ecc" });
    await tool(own.tcti, "tpm2_clear", "-c", "p");
    expect(await codeOfAsync(() => cleared.signEs256(new Uint8Array(1)))).toBe(
      "ATTEST_NAME_MISMATCH",
    );
    const after = await openDevice({ tcti: own.tcti, ekAlgorithm: "ecc" });
    expect((await after.signEs256(new Uint8Array(1))).length).toBe(64);
    await after.close();
    await cleared.close();
    await own.stop();
  });

  it("shares a TPM of three slots with four other devices", async () => {
    const others: Device[] = [];
    for (let i = 0; i < 4; i += 1) {
      others.push(await openDevice({ tcti: running.swtpm.tcti, ekAlgorithm: "ecc" }));
    }
    for (const other of others) await other.certifyDeviceKey(new Uint8Array(32));
    for (const other of others) await other.close();
    expect(others).toHaveLength(4);
  });

  it("rejects calls while the TPM is dead and comes back after its restart", async () => {
    await running.swtpm.kill();
    expect(await codeOfAsync(() => device.signEs256(new Uint8Array(1)))).toBe("ATTEST_TSS_FAILED");
    expect(await codeOfAsync(() => device.signEs256(new Uint8Array(1)))).toBe("ATTEST_TSS_FAILED");
    await running.swtpm.restart();
    expect((await device.signEs256(new Uint8Array(1))).length).toBe(64);
  });
});

describe("a DPoP proof by the TPM", () => {
  const accessToken = "header.payload.signature";
  const proofFor = (uri: string): Promise<string> =>
    createDpopProof({
      device,
      method: "POST",
      uri,
      accessToken,
      clock: () => testNow,
      random: seededRandom(uri),
    });

  it("verifies with jose and with the attester's verifier", async () => {
    const proof = await proofFor("https://issuer.example/token-request?a=1#b");
    const header = decodeProtectedHeader(proof);
    expect(header).toMatchObject({ typ: "dpop+jwt", alg: "ES256" });
    expect(await calculateJwkThumbprint(header.jwk ?? {})).toBe(
      await calculateJwkThumbprint(device.deviceKeyJwk),
    );
    const key = await importJWK({ ...device.deviceKeyJwk }, "ES256");
    const { payload } = await jwtVerify(proof, key, { currentDate: new Date(testNow) });
    expect(payload).toMatchObject({ htm: "POST", htu: "https://issuer.example/token-request" });
    const verifier = createDpopVerifier({
      crypto,
      clock: () => testNow,
      monotonicMs: () => 0,
      random: seededRandom("nonce"),
      run: "run",
    });
    const check = {
      run: "run",
      proof,
      method: "POST",
      uri: "https://issuer.example/token-request",
      accessToken,
      jwk: device.deviceKeyJwk,
    };
    await expect(verifier.verify(check)).resolves.toBeUndefined();
    expect(await codeOfAsync(() => verifier.verify(check))).toBe("ATTEST_PROOF_INVALID");
  });

  it("leaves ath out where there is no token", async () => {
    const proof = await createDpopProof({
      device,
      method: "GET",
      uri: "https://a.example/",
      clock: () => testNow,
      random: seededRandom("no token"),
    });
    const key = await importJWK({ ...device.deviceKeyJwk }, "ES256");
    const { payload } = await jwtVerify(proof, key, { currentDate: new Date(testNow) });
    expect(Object.keys(payload).sort()).toStrictEqual(["htm", "htu", "iat", "jti"]);
  });
});

describe("EK certificates in NV", () => {
  it("splits a chain and drops padding", () => {
    const a = running.ca.root;
    const b = running.ca.intermediate;
    for (const pad of [0x00, 0xff]) {
      const padded = Buffer.concat([a, b, Buffer.alloc(100, pad)]);
      expect(splitCertificates(padded)).toStrictEqual([a, b]);
    }
    expect(splitCertificates(new Uint8Array())).toStrictEqual([]);
    expect(splitCertificates(a.subarray(0, a.length - 1))).toStrictEqual([]);
    expect(splitCertificates(Uint8Array.of(0x30, 0x84, 0, 0, 0, 1, 0))).toStrictEqual([]);
    expect(splitCertificates(Uint8Array.of(0x30, 0x02, 5, 0, 0x30, 0x81, 1, 9, 0))).toStrictEqual([
      Uint8Array.of(0x30, 0x02, 5, 0),
      Uint8Array.of(0x30, 0x81, 1, 9),
    ]);
  });

  it("reads a padded certificate, and uses the template and the nonce of the manufacturer", async () => {
    const tpm = await openTpm({ tcti: running.swtpm.tcti, maxPendingCalls: 4 });
    const { certificate, nonce, template } = EK_NV_INDICES.ecc;
    const [genuine] = await readEkCertificates(tpm, "ecc");
    const ekNonce = new Uint8Array(20).fill(9);
    const reference = await tpm.createPrimary("endorsement", ekTemplate("ecc", ekNonce));
    await tpm.flush(reference);
    const spki = publicKeyOf(reference.publicArea).export({ type: "spki", format: "der" });
    const issued = await running.ca.issueEkCertificate(new Uint8Array(spki), "ecc");
    await tpm.nvStore(certificate, Buffer.concat([issued, Buffer.alloc(50, 0xff)]), NV_ATTRIBUTES);
    const open = (): Promise<Device> =>
      openDevice({ tcti: running.swtpm.tcti, ekAlgorithm: "ecc" });

    expect(await codeOfAsync(open)).toBe("ATTEST_EK_KEY_MISMATCH");
    await tpm.nvStore(nonce, ekNonce, NV_ATTRIBUTES);
    const withNonce = await open();
    expect(withNonce.ekCertificates[0]).toStrictEqual(issued);
    expect(withNonce.ekPublic).toStrictEqual(reference.publicArea);
    await withNonce.close();
    await tpm.nvUndefine(nonce);
    await tpm.nvStore(template, ekTemplate("ecc", ekNonce).subarray(2), NV_ATTRIBUTES);
    const withTemplate = await open();
    expect(withTemplate.ekPublic).toStrictEqual(reference.publicArea);
    await withTemplate.close();

    await tpm.nvUndefine(template);
    await tpm.nvUndefine(certificate);
    expect(await codeOfAsync(open)).toBe("ATTEST_EK_CERTIFICATE_INVALID");
    await tpm.nvStore(certificate, genuine, NV_ATTRIBUTES);
    expect(await tpm.handles(0x8000_0000)).toStrictEqual([]);
    await tpm.close();
  });

  it("knows an EK of the default template from other keys", () => {
    expect(isDefaultEk(device.ekPublic, "ecc")).toBe(true);
    expect(isDefaultEk(device.ekPublic, "rsa")).toBe(false);
    expect(isDefaultEk(device.akPublic, "ecc")).toBe(false);
    expect(isDefaultEk(Uint8Array.of(0, 1, 2), "ecc")).toBe(false);
    expect(codeOf(() => es256JwkOf(ekTemplate("rsa")))).toBe("ATTEST_ALGORITHM_NOT_ALLOWED");
  });
});
