/**
 * Mutated registrations and assertions: whatever the bytes, the answer is a StileError or the registration
 * that the authenticator signed (checklist G3, G5). Seeded, so that a failure comes back.
 */
import { decode } from "cborg";
import { describe, expect, it } from "vitest";
import {
  DEFAULT_WEBAUTHN_POLICY,
  type RegistrationCheck,
  verifyAssertion,
  verifyRegistration,
} from "../../../attest/webauthn/index.ts";
import { concatBytes, isStileError } from "../../../wire/index.ts";
import { createRandom } from "../../support/fuzz.ts";
import {
  authDataOf,
  CHALLENGE,
  clientDataOf,
  coseKeyOf,
  CREDENTIAL_ID,
  crypto,
  ORIGIN,
  type Plan,
  registrationOf,
  RP_ID,
  sha256,
  signDer,
} from "./support/authenticator.ts";
import { encodeCbor } from "./support/registration.ts";
import {
  androidPlan,
  applePlan,
  createMakers,
  packedPlan,
  selfPlan,
  tpmPlan,
  u2fPlan,
} from "./support/statements.ts";
import { createSigner } from "./support/x509.ts";

const CASES_PER_FORMAT = 550;

type Mutation = (bytes: Uint8Array, at: number, random: (below: number) => number) => Uint8Array;
const MUTATIONS: readonly Mutation[] = [
  (bytes, at, random) => {
    const out = Uint8Array.from(bytes);
    out[at]! ^= 1 << random(8);
    return out;
  },
  (bytes, at, random) => {
    const out = Uint8Array.from(bytes);
    out[at] = [0x00, 0xff, 0x80, 0x7f, 0x9f, 0xbf][random(6)]!;
    return out;
  },
  (bytes, at) => bytes.slice(0, at),
  (bytes, at, random) =>
    concatBytes([bytes.subarray(0, at), Uint8Array.of(random(256)), bytes.subarray(at)]),
  (bytes, at, random) => concatBytes([bytes.subarray(0, at), bytes.subarray(at + 1 + random(4))]),
  (bytes, at, random) => {
    const from = random(bytes.length);
    const part = bytes.subarray(from, from + 1 + random(16));
    return concatBytes([bytes.subarray(0, at), part, bytes.subarray(at)]).subarray(0, bytes.length);
  },
];

const makers = createMakers();
const plans: Readonly<Record<string, Plan>> = {
  tpm: tpmPlan(makers),
  packed: packedPlan(makers),
  self: selfPlan(createSigner()),
  "android-key": androidPlan(makers),
  apple: applePlan(makers),
  "fido-u2f": u2fPlan(makers),
};

/** Where in the attestation object nothing is signed: a range of offsets. */
function uncovered(format: string, bytes: Uint8Array): readonly [number, number] {
  const find = (part: Uint8Array): number => Buffer.from(bytes).indexOf(part);
  if (format === "android-key") {
    // x5c repeats the root, of which the name and key count.
    const start = find(makers.ca.root);
    return [start, start + makers.ca.root.length];
  }
  if (format === "fido-u2f") {
    // U2F signs neither flags nor counter.
    const start = find(sha256(new TextEncoder().encode(RP_ID))) + 32;
    return [start, start + 5];
  }
  return [0, 0];
}

describe("mutated registrations", () => {
  it.each(Object.entries(plans))("G3 of %s are refused by name", async (format, plan) => {
    const check = registrationOf(plan);
    const random = createRandom(plan.format.length * 7919);
    const good = await verifyRegistration(check);
    const { attestationObject, clientDataJSON } = check.response;
    const [start, end] = uncovered(format, attestationObject);
    let accepted = 0;
    for (let i = 0; i < CASES_PER_FORMAT; i += 1) {
      const isObject = i % 8 !== 0;
      const bytes = isObject ? attestationObject : clientDataJSON;
      const at = random(bytes.length);
      const mutated = MUTATIONS[random(MUTATIONS.length)]!(bytes, at, random);
      if (Buffer.from(mutated).equals(bytes)) continue;
      const response = {
        ...check.response,
        [isObject ? "attestationObject" : "clientDataJSON"]: mutated,
      };
      const got = await verifyRegistration({ ...check, response }).catch((error: unknown) => error);
      if (isStileError(got)) continue;
      expect(got, `case ${i}`).not.toBeInstanceOf(Error);
      expect(isObject && at >= start && at < end, `case ${i}, offset ${at}`).toBe(true);
      expect(got).toMatchObject({
        credential: { id: good.credential.id, spki: good.credential.spki },
      });
      accepted += 1;
    }
    expect(accepted).toBeLessThan(CASES_PER_FORMAT / 4);
  });

  it("G5 what is accepted re-encodes to the same bytes", async () => {
    for (const plan of Object.values(plans)) {
      const { response } = registrationOf(plan);
      const object: unknown = decode(response.attestationObject, { useMaps: true });
      expect(encodeCbor(object)).toStrictEqual(response.attestationObject);
    }
  });

  it("a view at an offset answers the same, and the caller's bytes stay as they are", async () => {
    for (const plan of Object.values(plans)) {
      const check = registrationOf(plan);
      const shifted = (bytes: Uint8Array): Uint8Array =>
        concatBytes([new Uint8Array(7).fill(0xee), bytes, new Uint8Array(5)]).subarray(
          7,
          7 + bytes.length,
        );
      const response: RegistrationCheck["response"] = {
        rawId: shifted(check.response.rawId),
        clientDataJSON: shifted(check.response.clientDataJSON),
        attestationObject: shifted(check.response.attestationObject),
      };
      const [a, b] = [
        await verifyRegistration(check),
        await verifyRegistration({ ...check, response }),
      ];
      expect(b.credential.spki).toStrictEqual(a.credential.spki);
      expect(response.attestationObject).toStrictEqual(check.response.attestationObject);
    }
  });
});

describe("mutated assertions", () => {
  it("G3 are refused by name", async () => {
    const key = createSigner();
    const clientDataJSON = clientDataOf({ type: "webauthn.get" });
    const authenticatorData = authDataOf({ flags: 0x05, signCount: 9 });
    const message = concatBytes([authenticatorData, sha256(clientDataJSON)]);
    const parts = { clientDataJSON, authenticatorData, signature: signDer(key.key, message) };
    const credential = {
      id: CREDENTIAL_ID,
      publicKey: encodeCbor(coseKeyOf(key)),
      signCount: 1,
      backupEligible: false,
    };
    const random = createRandom(4711);
    const names = ["clientDataJSON", "authenticatorData", "signature"] as const;
    for (let i = 0; i < 600; i += 1) {
      const name = names[i % 3]!;
      const bytes = parts[name];
      const mutated = MUTATIONS[random(MUTATIONS.length)]!(bytes, random(bytes.length), random);
      if (Buffer.from(mutated).equals(bytes)) continue;
      const got = await verifyAssertion({
        response: { rawId: CREDENTIAL_ID, ...parts, [name]: mutated },
        expected: { challenge: CHALLENGE, origins: [ORIGIN], rpId: RP_ID },
        credential,
        policy: DEFAULT_WEBAUTHN_POLICY,
        crypto,
      }).catch((error: unknown) => error);
      expect(isStileError(got), `${name}, case ${i}: ${String(got)}`).toBe(true);
    }
  });
});
