/** WebAuthn registrations of every format, assertions, metadata blobs, and the JSON that a page sends. */
import {
  type AttestationFormat,
  DEFAULT_WEBAUTHN_POLICY,
  parseAndroidRevocationList,
  parseAssertionResponse,
  parseMetadataBlob,
  parseRegistrationResponse,
  type RegistrationCheck,
  type VerifiedRegistration,
  verifyAssertion,
  verifyRegistration,
} from "../../../../attest/webauthn/index.ts";
import { concatBytes, encodeBase64Url } from "../../../../wire/index.ts";
import { mutateBytes, pick } from "../../../support/fuzz.ts";
import { sharedMissing } from "../../../support/shared.ts";
import {
  authDataOf,
  CHALLENGE,
  clientDataOf,
  coseKeyOf,
  CREDENTIAL_ID,
  crypto,
  NOW,
  ORIGIN,
  type Plan,
  registrationOf,
  RP_ID,
  sha256,
  signDer,
} from "../../webauthn/support/authenticator.ts";
import { anchors, blobOf, makers } from "../../webauthn/support/metadata.ts";
import { encodeCbor } from "../../webauthn/support/registration.ts";
import {
  androidPlan,
  applePlan,
  packedPlan,
  selfPlan,
  tpmPlan,
  u2fPlan,
} from "../../webauthn/support/statements.ts";
import { createSigner } from "../../webauthn/support/x509.ts";
import { registrationCheckOf, WEBAUTHN_ROWS } from "../corpora/webauthn.ts";
import { type FuzzTarget, jsonTarget, textTarget } from "./target.ts";

const PLANS: readonly (readonly [name: string, plan: () => Plan])[] = [
  ["tpm", () => tpmPlan(makers)],
  ["packed", () => packedPlan(makers)],
  ["packed, self", () => selfPlan(createSigner())],
  ["android-key", () => androidPlan(makers)],
  ["apple", () => applePlan(makers)],
  ["fido-u2f", () => u2fPlan(makers)],
];

export async function webAuthnTargets(): Promise<FuzzTarget[]> {
  const checks = PLANS.map(([name, plan]) => [name, registrationOf(plan())] as const);
  const objects = checks.map(([, { response }]) => response.attestationObject);
  const captured = sharedMissing
    ? []
    : WEBAUTHN_ROWS.map((row) => registrationCheckOf(row, row.policy));
  const own = checks.map(([name, check]) =>
    registrationTarget(`WebAuthn ${name}`, [check], objects),
  );
  const others =
    captured.length === 0 ? [] : [registrationTarget("WebAuthn captured", captured, objects)];
  return [
    ...(await Promise.all([...own, ...others])),
    assertionTarget(),
    textTarget({
      name: "metadata blob",
      share: 40,
      seeds: [blobOf()],
      parse: (jwt) => parseMetadataBlob({ jwt, anchors, crypto, clock: () => NOW }),
      fault: (_blob, text, seed) =>
        text.trim() === seed ? undefined : "accepted in another spelling, or with another payload",
    }),
    textTarget({
      name: "Android's revocation list",
      share: 10,
      seeds: [JSON.stringify({ entries: { c35747a084470c31: { status: "REVOKED" } } })],
      parse: parseAndroidRevocationList,
    }),
    ...jsonTargets(checks.map(([, { response }]) => response)),
  ];
}

/** U2F signs neither flags nor counter, and `x5c` may repeat the root, of which name and key count. */
function claimsOf(registration: VerifiedRegistration, format: AttestationFormat): unknown {
  const { credential, attestation, clientData } = registration;
  const { id, publicKey, spki, alg, aaguid } = credential;
  const key = { id, publicKey, spki, alg, aaguid };
  const { trust } = attestation;
  return format === "fido-u2f" ? { key, trust, clientData } : { credential, trust, clientData };
}

async function registrationTarget(
  name: string,
  checks: readonly RegistrationCheck[],
  objects: readonly Uint8Array[],
): Promise<FuzzTarget> {
  const seeds = await Promise.all(
    checks.map(async (check) => {
      const good = await verifyRegistration(check);
      const { format } = good.attestation;
      return { check, format, claims: JSON.stringify(claimsOf(good, format)) };
    }),
  );
  return {
    name,
    share: 25,
    sound: checks.map((check) => () => verifyRegistration(check)),
    next: (random) => {
      const { check, format, claims } = pick(random, seeds);
      const part = random(8) === 0 ? "clientDataJSON" : "attestationObject";
      const bytes = mutateBytes(check.response[part], random, objects);
      return {
        input: `${part} ${Buffer.from(bytes).toString("hex")}`,
        run: () => verifyRegistration({ ...check, response: { ...check.response, [part]: bytes } }),
        fault: (result) =>
          part === "attestationObject" &&
          JSON.stringify(claimsOf(result as VerifiedRegistration, format)) === claims
            ? undefined
            : "accepted with other claims than were attested",
      };
    },
  };
}

function assertionTarget(): FuzzTarget {
  const key = createSigner();
  const clientDataJSON = clientDataOf({ type: "webauthn.get" });
  const authenticatorData = authDataOf({ flags: 0x05, signCount: 9 });
  const message = concatBytes([authenticatorData, sha256(clientDataJSON)]);
  const parts = { clientDataJSON, authenticatorData, signature: signDer(key.key, message) };
  const verify = (changed: Partial<typeof parts>): Promise<unknown> =>
    verifyAssertion({
      response: { rawId: CREDENTIAL_ID, ...parts, ...changed },
      expected: { challenge: CHALLENGE, origins: [ORIGIN], rpId: RP_ID },
      credential: {
        id: CREDENTIAL_ID,
        publicKey: encodeCbor(coseKeyOf(key)),
        signCount: 1,
        backupEligible: false,
      },
      policy: DEFAULT_WEBAUTHN_POLICY,
      crypto,
    });
  return {
    name: "WebAuthn assertion",
    share: 40,
    sound: [() => verify({})],
    next: (random) => {
      const part = pick(random, ["clientDataJSON", "authenticatorData", "signature"] as const);
      const bytes = mutateBytes(parts[part], random, Object.values(parts));
      return {
        input: `${part} ${Buffer.from(bytes).toString("hex")}`,
        run: () => verify({ [part]: bytes }),
        fault: () => "accepted with other bytes than were signed",
      };
    },
  };
}

function jsonTargets(responses: readonly RegistrationCheck["response"][]): FuzzTarget[] {
  const credential = (response: Readonly<Record<string, Uint8Array>>): object => ({
    id: encodeBase64Url(CREDENTIAL_ID),
    rawId: encodeBase64Url(CREDENTIAL_ID),
    type: "public-key",
    clientExtensionResults: {},
    response: Object.fromEntries(
      Object.entries(response).map(([name, bytes]) => [name, encodeBase64Url(bytes)]),
    ),
  });
  const agrees = ({ rawId }: { readonly rawId: Uint8Array }, json: unknown): string | undefined => {
    const { id } = json as { readonly id: string };
    return encodeBase64Url(rawId) === id ? undefined : "accepted with two ids";
  };
  return [
    jsonTarget({
      name: "RegistrationResponseJSON",
      share: 15,
      seeds: responses.map(({ clientDataJSON, attestationObject }) =>
        credential({ clientDataJSON, attestationObject }),
      ),
      parse: parseRegistrationResponse,
      fault: agrees,
    }),
    jsonTarget({
      name: "AuthenticationResponseJSON",
      share: 15,
      seeds: [
        credential({
          clientDataJSON: clientDataOf({ type: "webauthn.get" }),
          authenticatorData: authDataOf({ flags: 0x05 }),
          signature: new Uint8Array(70).fill(1),
        }),
      ],
      parse: parseAssertionResponse,
      fault: agrees,
    }),
  ];
}
