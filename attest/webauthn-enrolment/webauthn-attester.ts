/**
 * The attester's side of WebAuthn attestation, in two steps (docs/architecture.md, "Attestation, on the
 * wire"). `options` opens a session whose challenge is bound to a device key of the page; `evidence` verifies
 * what the authenticator signed over it, and names the credential. It knows no HTTP and signs nothing.
 *
 * What a result then says: a genuine authenticator, with a person at it, answered for this device key.
 * What it does not: which device that is, nor that the page's key lives in hardware.
 */
import { StileError } from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";
import type { Es256PublicJwk, TrustworthinessVector } from "../result/index.ts";
import {
  type AttestationTrust,
  parseAssertionResponse,
  parseRegistrationResponse,
  verifyAssertion,
  verifyRegistration,
  type WebAuthnPolicy,
  type WebAuthnTrust,
} from "../webauthn/index.ts";
import { webauthnBinding } from "./binding.ts";
import type { CredentialStore, StoredCredential } from "./credential-store.ts";
import {
  type CeremonyEvidence,
  type CeremonyOptions,
  type CeremonyRequest,
  type CeremonySettings,
  creationOptions,
  requestOptions,
} from "./messages.ts";
import { checkModel } from "./model.ts";
import { credentialHandle, credentialPseudonym } from "./names.ts";
import { type CeremonySession, createCeremonySessions } from "./sessions.ts";

export interface WebAuthnAttesterOptions {
  readonly crypto: AttestCrypto;
  /** CSPRNG. */
  readonly random: (length: number) => Uint8Array;
  /** Unix milliseconds. */
  readonly clock: () => number;
  /** A domain: the host of every origin is it or ends with it. */
  readonly rpId: string;
  /** Serialised origins of the pages that may attest. */
  readonly origins: readonly string[];
  readonly policy: WebAuthnPolicy;
  /** Asked at each ceremony, so that renewed metadata counts from then on. */
  readonly trust: () => WebAuthnTrust;
  readonly credentials: CredentialStore;
  /**
   * Counts an attestation against its network. Called for what has verified, before it is stored.
   * @throws `ATTEST_WEBAUTHN_NETWORK_LIMIT` where there is none left
   */
  readonly chargeNetwork: (network: string) => Promise<void>;
  /** @throws `ATTEST_DEVICE_REVOKED` */
  readonly checkAdmissible: (pseudonym: string) => Promise<unknown>;
  /** 32 bytes; whoever has it can tell which pseudonym is which credential's. */
  readonly pseudonymSecret: Uint8Array;
  readonly sessionMs: number;
  readonly maxSessions: number;
}

/** A credential whose ceremony was verified, and whose model the policy admits. */
export interface AttestedCredential {
  readonly kind: "attested-credential";
  /** The same for every ceremony of this credential at this attester, and nowhere else. */
  readonly pseudonym: string;
  readonly deviceKey: Es256PublicJwk;
  readonly trustworthiness: TrustworthinessVector;
  readonly policyId: string;
}

export interface WebAuthnAttester {
  /**
   * @param network of the client; coarse, and only to bound what one network may keep open
   * @throws `ATTEST_SESSION_LIMIT`, `ATTEST_WEBAUTHN_CREDENTIAL_UNKNOWN`, `ATTEST_WEBAUTHN_STORE_UNAVAILABLE`
   */
  readonly options: (request: CeremonyRequest, network: string) => Promise<CeremonyOptions>;
  /**
   * @throws `ATTEST_SESSION_UNKNOWN`, `ATTEST_MESSAGE_INVALID`, what `verifyRegistration` and `verifyAssertion`
   * throw, `ATTEST_DEVICE_REVOKED`, `ATTEST_WEBAUTHN_NETWORK_LIMIT`, and what `CredentialStore` throws
   */
  readonly evidence: (evidence: CeremonyEvidence, network: string) => Promise<AttestedCredential>;
}

const NONCE_BYTES = 32;
const USER_ID_BYTES = 16;
const SECRET_BYTES = 32;
/** ES256, EdDSA, RS256: what browsers' platform and roaming authenticators make. */
const ALGORITHMS = [-7, -8, -257] as const;

/** @throws RangeError for settings that could not protect anything */
export function createWebAuthnAttester(options: WebAuthnAttesterOptions): WebAuthnAttester {
  checkOptions(options);
  const sessions = createCeremonySessions(options);
  const settings: CeremonySettings = {
    rpId: options.rpId,
    timeoutMs: options.sessionMs,
    userVerification: options.policy.userVerification,
    formats: options.policy.formats,
    algorithms: ALGORITHMS,
  };
  return {
    options: async (request, network) => {
      const { deviceKey, purpose } = request;
      // Early, so that a page learns that it has to register before a person touches anything.
      if (request.purpose === "assertion") {
        await options.credentials.lookUp(credentialHandle(options, request.credentialId));
      }
      const nonce = options.random(NONCE_BYTES);
      const challenge = webauthnBinding(options.crypto, { nonce, deviceKey });
      const expiresAtMs = options.clock() + options.sessionMs;
      const session = sessions.open({ purpose, deviceKey, challenge, network, expiresAtMs });
      const publicKey =
        request.purpose === "registration"
          ? creationOptions(settings, challenge, options.random(USER_ID_BYTES))
          : requestOptions(settings, challenge, request.credentialId);
      return { session, expiresIn: Math.floor(options.sessionMs / 1_000), publicKey };
    },
    evidence: async ({ session: id, credential }, network) => {
      // Taken out before anything is checked: a wrong answer ends the session.
      const session = sessions.take(id);
      const verify = session.purpose === "registration" ? register : authenticate;
      const { pseudonym, trust } = await verify(options, session, credential, network);
      const { deviceKey } = session;
      return { kind: "attested-credential", pseudonym, deviceKey, ...appraisalOf(trust) };
    },
  };
}

type Named = Pick<StoredCredential, "pseudonym" | "trust">;

async function register(
  options: WebAuthnAttesterOptions,
  session: CeremonySession,
  json: unknown,
  network: string,
): Promise<Named> {
  const expected = { ...expectedOf(options, session), algorithms: ALGORITHMS };
  const response = parseRegistrationResponse(json);
  const trusted = options.trust();
  const verified = await verifyRegistration({ ...options, trust: trusted, response, expected });
  const { credential, attestation } = verified;
  if (credential.backupEligible) {
    // §6.1.3: its key may be copied off the authenticator that was attested, so a later assertion by it
    // would say nothing of hardware.
    const message = "flags: BE, the credential may leave its authenticator";
    throw new StileError("ATTEST_POLICY_REFUSED", message);
  }
  const pseudonym = credentialPseudonym(options, credential.spki);
  await options.checkAdmissible(pseudonym);
  await options.chargeNetwork(network);
  const { aaguid, backupEligible, publicKey, signCount } = credential;
  const { format, trust } = attestation;
  const stored = { publicKey, signCount, backupEligible, pseudonym, aaguid, format, trust };
  await options.credentials.add(credentialHandle(options, credential.id), stored);
  return stored;
}

async function authenticate(
  options: WebAuthnAttesterOptions,
  session: CeremonySession,
  json: unknown,
  network: string,
): Promise<Named> {
  const { credentials, policy, crypto } = options;
  const response = parseAssertionResponse(json);
  const handle = credentialHandle(options, response.rawId);
  const stored = await credentials.lookUp(handle);
  const credential = { ...stored, id: response.rawId };
  const expected = expectedOf(options, session);
  const { signCount } = await verifyAssertion({ response, expected, credential, policy, crypto });
  checkModel(stored, { policy, trust: options.trust(), clock: options.clock });
  await options.checkAdmissible(stored.pseudonym);
  await options.chargeNetwork(network);
  await credentials.recordUse(handle, signCount);
  return stored;
}

function expectedOf(
  { origins, rpId }: WebAuthnAttesterOptions,
  { challenge }: CeremonySession,
): { readonly challenge: Uint8Array; readonly origins: readonly string[]; readonly rpId: string } {
  return { challenge, origins, rpId };
}

/** AR4SI §2.3.1: 2 is the lowest affirming value, 0 says nothing. */
const [AFFIRMING, NONE] = [2, 0];

/**
 * The credential is recognised in each case. That hardware holds it is said only where a maker vouches:
 * whoever reads a result of an unanchored attestation can see that none does.
 */
function appraisalOf(
  trust: AttestationTrust,
): Pick<AttestedCredential, "trustworthiness" | "policyId"> {
  const isAnchored = trust === "anchored";
  return {
    policyId: `urn:stile:policy:webauthn-${trust}`,
    trustworthiness: {
      instanceIdentity: AFFIRMING,
      hardware: isAnchored ? AFFIRMING : NONE,
      configuration: NONE,
      executables: NONE,
      fileSystem: NONE,
      runtimeOpaque: NONE,
      storageOpaque: NONE,
      sourcedData: NONE,
    },
  };
}

/** A mistake here stops the start. @throws RangeError */
function checkOptions(options: WebAuthnAttesterOptions): void {
  const { origins, rpId, pseudonymSecret } = options;
  check(pseudonymSecret.length === SECRET_BYTES, "pseudonymSecret: 32 bytes");
  check(isPositive(options.sessionMs), "sessionMs: a positive number of milliseconds");
  check(isPositive(options.maxSessions), "maxSessions: 1 or more");
  check(origins.length > 0, "origins: one or more");
  for (const origin of origins)
    check(isOriginUnder(origin, rpId), "origins: https, under the rpId");
}

/** WebAuthn Level 3 §5.1.3: a browser refuses every other one, so it is a mistake that would look like a fault. */
function isOriginUnder(origin: string, rpId: string): boolean {
  if (!URL.canParse(origin)) return false;
  const url = new URL(origin);
  const isUnder = url.hostname === rpId || url.hostname.endsWith(`.${rpId}`);
  return url.origin === origin && url.protocol === "https:" && isUnder;
}

function isPositive(value: number): boolean {
  return Number.isSafeInteger(value) && value > 0;
}

function check(holds: boolean, expected: string): void {
  if (!holds) throw new RangeError(`${expected} expected`);
}
