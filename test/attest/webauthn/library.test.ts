/** Authenticators of our own against @simplewebauthn/server: where it agrees, and where it is laxer. */
import {
  SettingsService,
  type VerifiedRegistrationResponse,
  verifyRegistrationResponse,
} from "@simplewebauthn/server";
import { describe, expect, it } from "vitest";
import { type RegistrationCheck, verifyRegistration } from "../../../attest/webauthn/index.ts";
import { encodeBase64Url, Writer } from "../../../wire/index.ts";
import { codeOfAsync } from "../../support/reject.ts";

import { pemOf } from "./support/registration.ts";
import {
  CHALLENGE,
  ORIGIN,
  type Plan,
  registrationOf,
  RP_ID,
  signDer,
} from "./support/authenticator.ts";
import {
  androidPlan,
  applePlan,
  AUTHORIZATION,
  createMakers,
  CREDENTIAL_ATTRIBUTES,
  packedPlan,
  selfPlan,
  tpmPlan,
  u2fPlan,
} from "./support/statements.ts";
import { basicConstraints, createSigner, integer } from "./support/x509.ts";

const makers = createMakers();
const rsaKey = createSigner("rsa");
const p384 = createSigner("P-384");
const ed25519 = createSigner("ed25519");
const other = createSigner();

const codeFor = (plan: Plan, more: Partial<Plan> = {}): Promise<string> =>
  codeOfAsync(() => verifyRegistration(registrationOf({ ...plan, ...more })));

const BAD_SIGNATURE = "ATTEST_SIGNATURE_INVALID";

const setMember =
  (key: string, value: unknown) =>
  (statement: Map<string, unknown>): void => {
    if (value === undefined) statement.delete(key);
    else statement.set(key, value);
  };

/** The library must agree on a good statement; its roots are module state. */
async function verifyWithLibrary(
  plan: Plan,
  check: RegistrationCheck,
): Promise<VerifiedRegistrationResponse> {
  SettingsService.setRootCertificates({
    identifier: plan.format as "packed",
    certificates: (plan.anchors ?? []).map(pemOf),
  });
  const id = encodeBase64Url(check.response.rawId);
  return verifyRegistrationResponse({
    response: {
      id,
      rawId: id,
      type: "public-key",
      clientExtensionResults: {},
      response: {
        clientDataJSON: encodeBase64Url(check.response.clientDataJSON),
        attestationObject: encodeBase64Url(check.response.attestationObject),
      },
    },
    expectedChallenge: encodeBase64Url(CHALLENGE),
    expectedOrigin: ORIGIN,
    expectedRPID: RP_ID,
    requireUserVerification: false,
    supportedAlgorithmIDs: [-7, -8, -35, -257],
  });
}

describe("what the library accepts and this verifier does not", () => {
  const lax: Readonly<Record<string, Plan>> = {
    "F3 safe that is neither yes nor no": tpmPlan(makers, { certInfo: { safe: 2 } }),
    "F3 bytes after certInfo": tpmPlan(makers, { certInfo: { tail: Uint8Array.of(0) } }),
    "F3 a key that can leave its TPM": tpmPlan(makers, {
      pubArea: { attributes: CREDENTIAL_ATTRIBUTES & ~0x2 },
    }),
    "F3 a key that was imported": tpmPlan(makers, {
      pubArea: { attributes: CREDENTIAL_ATTRIBUTES & ~0x20 },
    }),
    "A4 an unknown critical extension": packedPlan(makers, {
      leaf: {
        extensions: [
          basicConstraints(false),
          { oid: "1.2.3.4", critical: true, value: integer(1) },
        ],
      },
    }),
    "F5 a key in software": androidPlan(makers, { levels: [0, 0] }),
  };

  it.each(Object.entries(lax))("%s", async (_, plan) => {
    const check = registrationOf(plan);
    expect((await verifyWithLibrary(plan, check)).verified).toBe(true);
    expect(await codeOfAsync(() => verifyRegistration(check))).toMatch(/^(ATTEST|WIRE)_/);
  });
});

describe("what is accepted", () => {
  const plans: Readonly<Record<string, { plan: Plan; trust: string }>> = {
    "packed with a certificate": { plan: packedPlan(makers), trust: "anchored" },
    "packed without an aaguid extension": {
      plan: packedPlan(makers, { leaf: { extensions: [basicConstraints(false)] } }),
      trust: "anchored",
    },
    "packed, a credential on P-384": {
      plan: { ...packedPlan(makers), credential: p384 },
      trust: "anchored",
    },
    "packed, self attestation by Ed25519": { plan: selfPlan(ed25519), trust: "self" },
    "packed, self attestation by RSA": { plan: selfPlan(rsaKey), trust: "self" },
    "packed, self attestation by P-256": { plan: selfPlan(other), trust: "self" },
    "fido-u2f": { plan: u2fPlan(makers), trust: "anchored" },
    apple: { plan: applePlan(makers), trust: "anchored" },
    "apple with the alg of its first devices": {
      plan: applePlan(makers, { statement: setMember("alg", -7) }),
      trust: "anchored",
    },
    "android-key": { plan: androidPlan(makers), trust: "anchored" },
    "android-key that may sign only": {
      plan: androidPlan(makers, { tee: [AUTHORIZATION.purpose(2), AUTHORIZATION.origin(0)] }),
      trust: "anchored",
    },
    tpm: { plan: tpmPlan(makers), trust: "anchored" },
    "tpm with a key that may decrypt too": {
      plan: tpmPlan(makers, { pubArea: { attributes: CREDENTIAL_ATTRIBUTES | 0x20000 } }),
      trust: "anchored",
    },
    none: {
      plan: { format: "none", statement: () => new Map(), policy: { formats: ["none"] } },
      trust: "none",
    },
  };

  it.each(Object.entries(plans))("%s", async (_, { plan, trust }) => {
    const check = registrationOf(plan);
    const { attestation, credential } = await verifyRegistration(check);
    expect(attestation).toMatchObject({ format: plan.format, trust });
    const theirs = await verifyWithLibrary(plan, check);
    expect(theirs.verified).toBe(true);
    expect(theirs.registrationInfo?.aaguid).toBe(credential.aaguid);
    expect(theirs.registrationInfo?.credential.publicKey).toStrictEqual(credential.publicKey);
  });

  it("tpm with a scheme in its public area, which the library cannot read", async () => {
    const plan = tpmPlan(makers, { pubArea: { scheme: Uint8Array.of(0, 0x18, 0, 0x0b) } });
    const check = registrationOf(plan);
    await expect(verifyWithLibrary(plan, check)).rejects.toThrow("PubArea unique");
    expect((await verifyRegistration(check)).attestation.trust).toBe("anchored");
  });

  it("tpm with sig as a TPMT_SIGNATURE, as §8.3 says", async () => {
    for (const aik of [makers.aik, makers.attestationKey]) {
      const isRsa = aik === makers.aik;
      const signature = (message: Uint8Array): Uint8Array => {
        const raw = Uint8Array.from(signDer(aik.key, message));
        if (isRsa) return new Writer().u16(0x14).u16(0x0b).vec16(raw).finish();
        // SEQUENCE { INTEGER r, INTEGER s }
        const r = raw.subarray(4, 4 + raw[3]!);
        const s = raw.subarray(6 + raw[3]!);
        const trim = (part: Uint8Array): Uint8Array => part.subarray(part[0] === 0 ? 1 : 0);
        return new Writer().u16(0x18).u16(0x0b).vec16(trim(r)).vec16(trim(s)).finish();
      };
      const plan = tpmPlan(makers, { aik, alg: isRsa ? -257 : -7, signature });
      const { attestation } = await verifyRegistration(registrationOf(plan));
      expect(attestation).toMatchObject({
        trust: "anchored",
        tpm: { manufacturer: "id:53544D20", model: "ST33", version: "id:00490004" },
      });
      // Its header is hostile: another hash than alg's verifies nothing.
      const lying = (message: Uint8Array): Uint8Array => {
        const bytes = signature(message);
        bytes[3] = 0x0c;
        return bytes;
      };
      expect(
        await codeFor(tpmPlan(makers, { aik, alg: isRsa ? -257 : -7, signature: lying })),
      ).toBe(BAD_SIGNATURE);
    }
  });
});
