/**
 * Verification of an assertion (WebAuthn Level 3 §7.2; checklist F8): the holder of a registered
 * credential answers a challenge. In the order of the specification, but the signature comes before
 * the counter and backup flags are believed.
 */
import { concatBytes, constantTimeEqual, StileError } from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";
import { type AuthenticatorData, parseAssertionAuthenticatorData } from "./authenticator-data.ts";
import { parseCborMap } from "./cbor.ts";
import { type ClientData, verifyClientData } from "./client-data.ts";
import { readCoseKey } from "./cose-key.ts";
import { signatureInvalid } from "./errors.ts";
import { checkUser, type WebAuthnPolicy } from "./policy.ts";
import { isSignedByCredential } from "./signature.ts";
import {
  checkRpIdHash,
  type ExpectedCeremony,
  type RegisteredCredential,
} from "./verify-registration.ts";

/** What the browser sent. Hostile. */
export interface AssertionResponse {
  readonly rawId: Uint8Array;
  readonly clientDataJSON: Uint8Array;
  readonly authenticatorData: Uint8Array;
  readonly signature: Uint8Array;
}

export interface AssertionCheck {
  readonly response: AssertionResponse;
  readonly expected: ExpectedCeremony;
  /** As stored after the last ceremony of this credential. */
  readonly credential: Pick<
    RegisteredCredential,
    "id" | "publicKey" | "signCount" | "backupEligible"
  >;
  readonly policy: WebAuthnPolicy;
  readonly crypto: AttestCrypto;
}

export interface VerifiedAssertion {
  readonly kind: "verified-assertion";
  /** To be stored in place of the old one. */
  readonly signCount: number;
  /** The counter did not go up: a sign of a copied key. Only where the policy reports it. */
  readonly counterRegressed: boolean;
  readonly backedUp: boolean;
  readonly userVerified: boolean;
  readonly clientData: ClientData;
}

/**
 * @throws `ATTEST_WEBAUTHN_CLIENT_DATA_INVALID`, `ATTEST_WEBAUTHN_CHALLENGE_MISMATCH`,
 * `ATTEST_WEBAUTHN_ORIGIN_REFUSED`, `ATTEST_WEBAUTHN_AUTHENTICATOR_DATA_INVALID`, `ATTEST_WEBAUTHN_USER_ABSENT`,
 * `ATTEST_SIGNATURE_INVALID`, `ATTEST_WEBAUTHN_COUNTER_INVALID`, `ATTEST_WEBAUTHN_CBOR_INVALID`,
 * `ATTEST_ALGORITHM_NOT_ALLOWED`, `WIRE_*`
 */
export async function verifyAssertion(check: AssertionCheck): Promise<VerifiedAssertion> {
  const { response, expected, credential, policy, crypto } = check;
  if (!constantTimeEqual(response.rawId, credential.id)) {
    throw dataInvalid("rawId: is not that of the credential");
  }
  const clientData = verifyClientData(response.clientDataJSON, {
    ...expected,
    type: "webauthn.get",
  });
  const data = parseAssertionAuthenticatorData(response.authenticatorData);
  checkRpIdHash(data.rpIdHash, expected.rpId, crypto);
  await checkSignature(check);
  checkUser(data.flags, policy);
  // §7.2: whether a credential can leave its authenticator is fixed when it is made.
  if (data.flags.backupEligible !== credential.backupEligible) {
    throw dataInvalid("flags: BE is not that of the registration");
  }
  return {
    kind: "verified-assertion",
    signCount: data.signCount,
    counterRegressed: checkCounter(data, check),
    backedUp: data.flags.backedUp,
    userVerified: data.flags.userVerified,
    clientData,
  };
}

async function checkSignature({
  response,
  credential,
  policy,
  crypto,
}: AssertionCheck): Promise<void> {
  const allowSha1 = policy.acceptSha1.includes("credential-key");
  const key = readCoseKey(parseCborMap(credential.publicKey, "publicKey"), allowSha1);
  const clientDataHash = crypto.hash("sha256", response.clientDataJSON);
  const message = concatBytes([response.authenticatorData, clientDataHash]);
  if (!(await isSignedByCredential(key, message, response.signature, crypto))) {
    throw signatureInvalid("assertion");
  }
}

/** §6.1.1: authenticators without a counter always say 0. @returns whether it did not go up */
function checkCounter({ signCount }: AuthenticatorData, check: AssertionCheck): boolean {
  const stored = check.credential.signCount;
  if ((signCount === 0 && stored === 0) || signCount > stored) return false;
  if (check.policy.counterRegression === "report") return true;
  const message = "authenticatorData.signCount: expected it to go up";
  throw new StileError("ATTEST_WEBAUTHN_COUNTER_INVALID", message);
}

function dataInvalid(what: string): StileError {
  return new StileError("ATTEST_WEBAUTHN_AUTHENTICATOR_DATA_INVALID", what);
}
