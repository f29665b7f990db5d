/**
 * Verification of a registration (WebAuthn Level 3 §7.1): a browser's new credential, and what its
 * attestation says of the hardware that holds it.
 *
 * A registration is verified when all of this holds, checked in this order:
 *  1. clientDataJSON is of a creation, for the challenge and an expected origin (F1);
 *  2. the attestation object is one canonical CBOR map with authenticatorData for the RP id, the
 *     credential that was sent, and an algorithm that was asked for (F2);
 *  3. the user was present and verified as the policy asks (F2);
 *  4. the policy accepts the format, and the statement verifies by its rules (F3 to F6);
 *  5. the attestation certificate leads to an anchor of the format or of the model's metadata, and the
 *     metadata holds nothing against the model (F7);
 *  6. the policy admits the model.
 */
import { constantTimeEqual, encodeUtf8, StileError } from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";
import {
  parseRegistrationAuthenticatorData,
  type RegistrationAuthenticatorData,
} from "./authenticator-data.ts";
import { bytesMember, type CborMap, cborInvalid, parseCborMap } from "./cbor.ts";
import { type ClientData, verifyClientData } from "./client-data.ts";
import { algorithmNotAllowed, statementInvalid } from "./errors.ts";
import { verifyAndroidKeyStatement } from "./formats/android-key.ts";
import { verifyAppleStatement } from "./formats/apple.ts";
import { verifyFidoU2fStatement } from "./formats/fido-u2f.ts";
import { verifyPackedStatement } from "./formats/packed.ts";
import { verifyTpmStatement } from "./formats/tpm.ts";
import {
  ATTESTATION_FORMATS,
  type AttestationFormat,
  checkAaguid,
  checkUser,
  formatRefused,
  type WebAuthnPolicy,
} from "./policy.ts";
import type { AttestationDetail, Statement, StatementInput } from "./statement.ts";
import { type AttestationTrust, verifyTrust } from "./verify-trust.ts";
import type { WebAuthnTrust } from "./trust.ts";

/** What the browser sent. Hostile. */
export interface RegistrationResponse {
  readonly rawId: Uint8Array;
  readonly clientDataJSON: Uint8Array;
  readonly attestationObject: Uint8Array;
}

export interface ExpectedCeremony {
  /** The bytes that were sent; the caller sees to it that they are fresh and used once. */
  readonly challenge: Uint8Array;
  readonly origins: readonly string[];
  /** Origins that may embed the relying party. Default: none. */
  readonly topOrigins?: readonly string[];
  /** A domain: the effective domain of the origins or a suffix of it. */
  readonly rpId: string;
}

export interface ExpectedRegistration extends ExpectedCeremony {
  /** COSE algorithms that were asked for in pubKeyCredParams. Default: all that are known. */
  readonly algorithms?: readonly number[];
}

export interface RegistrationCheck {
  readonly response: RegistrationResponse;
  readonly expected: ExpectedRegistration;
  readonly policy: WebAuthnPolicy;
  readonly trust: WebAuthnTrust;
  readonly crypto: AttestCrypto;
  readonly clock: () => number;
}

/** What is to be stored, for `verifyAssertion` to judge later ceremonies by. */
export interface RegisteredCredential {
  readonly id: Uint8Array;
  /** COSE_Key as received. */
  readonly publicKey: Uint8Array;
  /** DER SubjectPublicKeyInfo of the same key. */
  readonly spki: Uint8Array;
  /** COSEAlgorithmIdentifier. */
  readonly alg: number;
  readonly signCount: number;
  readonly backupEligible: boolean;
}

export interface VerifiedRegistration {
  readonly kind: "verified-registration";
  readonly credential: RegisteredCredential & {
    /** Lower-case UUID; only as good as {@link attestation} is. */
    readonly aaguid: string;
    readonly backedUp: boolean;
    readonly userVerified: boolean;
  };
  readonly attestation: AttestationDetail & {
    readonly format: AttestationFormat;
    readonly trust: AttestationTrust;
  };
  readonly clientData: ClientData;
}

/**
 * @throws `ATTEST_WEBAUTHN_*` by what is wrong, `ATTEST_SIGNATURE_INVALID`, `ATTEST_ALGORITHM_NOT_ALLOWED`,
 * `ATTEST_NONCE_MISMATCH`, `ATTEST_NAME_MISMATCH`, `ATTEST_KEY_ATTRIBUTES_INVALID`, `ATTEST_MAGIC_MISMATCH`,
 * `ATTEST_TYPE_MISMATCH`, `ATTEST_POLICY_REFUSED`, `ATTEST_REVOCATION_UNKNOWN`, `WIRE_*`
 */
export async function verifyRegistration(check: RegistrationCheck): Promise<VerifiedRegistration> {
  const { response, expected, policy, trust, crypto } = check;
  const atMs = check.clock();
  const clientData = verifyClientData(response.clientDataJSON, {
    ...expected,
    type: "webauthn.create",
  });
  const object = parseAttestationObject(response.attestationObject);
  const authenticatorData = readAuthenticatorData(object.authData, check);
  const input: StatementInput = {
    statement: object.statement,
    authenticatorData,
    clientDataHash: crypto.hash("sha256", response.clientDataJSON),
    policy,
    crypto,
  };
  // U2F signs no flags: there the browser claims them.
  const { flags } = authenticatorData;
  const userVerified = flags.userVerified && object.format !== "fido-u2f";
  checkUser({ ...flags, userVerified }, policy);
  if (!policy.formats.includes(object.format)) throw formatRefused("a format of no accepted kind");
  const statement = await VERIFIERS[object.format](input);
  const { aaguid } = authenticatorData.attested;
  const { format } = object;
  const verdict = await verifyTrust({ statement, format, aaguid, policy, trust, crypto, atMs });
  checkAaguid(aaguid, verdict === "anchored", policy);
  return {
    kind: "verified-registration",
    credential: { ...describeCredential(authenticatorData), userVerified },
    attestation: { format, trust: verdict, ...detailOf(statement) },
    clientData,
  };
}

interface AttestationObject {
  readonly format: AttestationFormat;
  readonly statement: CborMap;
  readonly authData: Uint8Array;
}

/** WebAuthn §6.5.4: `fmt`, `attStmt` and `authData`, in any order, since browsers write it anew. */
function parseAttestationObject(bytes: Uint8Array): AttestationObject {
  const structure = "attestationObject";
  const map = parseCborMap(bytes, structure);
  const statement: unknown = map.get("attStmt");
  if (map.size !== 3 || !(statement instanceof Map)) {
    throw cborInvalid(structure, "expected fmt, attStmt and authData");
  }
  const format = ATTESTATION_FORMATS.find((name) => name === map.get("fmt"));
  if (format === undefined) throw formatRefused("a format that is not verified here");
  return { format, statement, authData: bytesMember(map, "authData", structure) };
}

function readAuthenticatorData(
  bytes: Uint8Array,
  { response, expected, policy, crypto }: RegistrationCheck,
): RegistrationAuthenticatorData {
  const data = parseRegistrationAuthenticatorData(
    bytes,
    policy.acceptSha1.includes("credential-key"),
  );
  checkRpIdHash(data.rpIdHash, expected.rpId, crypto);
  const { credentialId, publicKey } = data.attested;
  if (!constantTimeEqual(credentialId, response.rawId)) {
    throw dataInvalid("credentialId: is not the id of the response");
  }
  if (expected.algorithms?.includes(publicKey.algorithm.alg) === false) {
    throw algorithmNotAllowed("an algorithm that was not asked for");
  }
  return data;
}

/** @throws `ATTEST_WEBAUTHN_AUTHENTICATOR_DATA_INVALID` */
export function checkRpIdHash(rpIdHash: Uint8Array, rpId: string, crypto: AttestCrypto): void {
  if (!constantTimeEqual(rpIdHash, crypto.hash("sha256", encodeUtf8(rpId)))) {
    throw dataInvalid("rpIdHash: is of another relying party");
  }
}

const VERIFIERS: Readonly<
  Record<AttestationFormat, (input: StatementInput) => Statement | Promise<Statement>>
> = {
  tpm: verifyTpmStatement,
  packed: verifyPackedStatement,
  "android-key": verifyAndroidKeyStatement,
  apple: verifyAppleStatement,
  "fido-u2f": verifyFidoU2fStatement,
  none: ({ statement }) => {
    if (statement.size > 0) throw statementInvalid("expected that of none to be empty");
    return { kind: "none" };
  },
};

function describeCredential({
  attested,
  signCount,
  flags,
}: RegistrationAuthenticatorData): Omit<VerifiedRegistration["credential"], "userVerified"> {
  return {
    id: attested.credentialId,
    publicKey: attested.publicKeyBytes,
    spki: attested.publicKey.spki,
    alg: attested.publicKey.algorithm.alg,
    signCount,
    backupEligible: flags.backupEligible,
    aaguid: attested.aaguid,
    backedUp: flags.backedUp,
  };
}

function detailOf(statement: Statement): AttestationDetail {
  if (statement.kind !== "certified") return {};
  const { tpm, android } = statement;
  return { ...(tpm === undefined ? {} : { tpm }), ...(android === undefined ? {} : { android }) };
}

function dataInvalid(what: string): StileError {
  const message = `authenticatorData.${what}`;
  return new StileError("ATTEST_WEBAUTHN_AUTHENTICATOR_DATA_INVALID", message);
}
