/**
 * The attester's side of TPM enrolment, in two steps (docs/architecture.md, "Attestation, on the wire").
 * `challenge` answers whoever shows a genuine EK certificate; only a TPM that holds that EK together with
 * the AK can use the answer (checklist C). `evidence` then ties a fresh quote and a device key to it.
 * It knows no HTTP and signs nothing: what it returns goes into an attestation result.
 */
import { constantTimeEqual, encodeBase64Url, StileError } from "../../wire/index.ts";
import { makeCredential } from "../credential/make-credential.ts";
import type { AttestCrypto } from "../crypto.ts";
import { type TrustedRoots, verifyEkCertificate } from "../ek/index.ts";
import { checkEkPublic } from "../keys/ek-templates.ts";
import { checkAkPublic } from "../keys/roles.ts";
import type { AppraisalPolicy } from "../policy/index.ts";
import type { VerifiedQuote } from "../quote/verify-quote.ts";
import { TPM_ALG_ECC, TPM_ALG_RSA } from "../structures/constants.ts";
import { computeName } from "../structures/name.ts";
import { encodeTpmlPcrSelection } from "../structures/pcr-selection.ts";
import { parseTpm2bPublic, type TpmtPublic } from "../structures/public.ts";
import { encodeSpki, paddedPoint } from "../structures/spki.ts";
import { checkTpmAttesterOptions } from "./attester-options.ts";
import type { DeviceRegistry } from "./device-registry.ts";
import type { ChallengeRequest, ChallengeResponse, EvidenceRequest } from "./messages.ts";
import { devicePseudonym } from "./pseudonym.ts";
import { createSessions } from "./sessions.ts";
import { type AffirmedAppraisal, verifyEvidence } from "./verify-evidence.ts";

export interface TpmAttesterOptions {
  readonly crypto: AttestCrypto;
  /** CSPRNG. */
  readonly random: (length: number) => Uint8Array;
  /** Unix milliseconds. */
  readonly clock: () => number;
  readonly roots: TrustedRoots;
  readonly policy: AppraisalPolicy;
  readonly registry: DeviceRegistry;
  /** 32 bytes; whoever has it can tell which pseudonym is which EK's. */
  readonly pseudonymSecret: Uint8Array;
  readonly sessionMs: number;
  readonly maxSessions: number;
}

/** A device whose evidence was verified and appraised. */
export interface AppraisedDevice {
  readonly kind: "appraised-device";
  /** The same for every enrolment of this EK at this attester, and nowhere else. */
  readonly pseudonym: string;
  /** TCG vendor identifier, `id:XXXXXXXX`. */
  readonly manufacturer: string;
  readonly deviceKey: {
    readonly kty: "EC";
    readonly crv: "P-256";
    readonly x: string;
    readonly y: string;
  };
  readonly channelBinding: "tls-exporter" | "none";
  readonly quote: VerifiedQuote;
  readonly appraisal: AffirmedAppraisal;
}

export interface TpmAttester {
  /**
   * @throws `ATTEST_EK_*`, `ATTEST_KEY_*`, `ATTEST_ALGORITHM_NOT_ALLOWED`, `ATTEST_REVOCATION_UNKNOWN`,
   * `ATTEST_DEVICE_REVOKED`, `ATTEST_REGISTRY_UNAVAILABLE`, `ATTEST_SESSION_LIMIT`, `WIRE_*`
   */
  readonly challenge: (request: ChallengeRequest) => Promise<ChallengeResponse>;
  /**
   * @param tlsExporter 32 bytes of the connection that carries the request
   * @throws `ATTEST_SESSION_UNKNOWN`, `ATTEST_CREDENTIAL_MISMATCH`, what `verifyQuote` and
   * `verifyCertify` throw, `ATTEST_EVENT_LOG_*`, `ATTEST_POLICY_REFUSED`, `ATTEST_FIRMWARE_REFUSED`,
   * `ATTEST_CLOCK_WENT_BACK`, `ATTEST_DEVICE_REVOKED`, `ATTEST_REGISTRY_UNAVAILABLE`
   */
  readonly evidence: (
    request: EvidenceRequest,
    tlsExporter: Uint8Array | undefined,
  ) => Promise<AppraisedDevice>;
}

const SECRET_BYTES = 32;
const NONCE_BYTES = 32;

/** @throws RangeError for a policy or secret that could not protect anything */
export function createTpmAttester(options: TpmAttesterOptions): TpmAttester {
  checkTpmAttesterOptions(options);
  const sessions = createSessions(options);
  const pcrSelection = encodeTpmlPcrSelection(options.policy.pcrBanks);
  return {
    challenge: async (request) => {
      const admitted = await verifyKeys(options, request);
      const secret = options.random(SECRET_BYTES);
      const nonce = options.random(NONCE_BYTES);
      const { ak, ek } = admitted;
      const name = computeName(ak, options.crypto);
      const credential = await makeCredential({ ...options, ek, name, secret });
      const session = sessions.open({
        ak,
        ek,
        secret,
        nonce,
        pseudonym: admitted.pseudonym,
        manufacturer: admitted.manufacturer,
        expiresAtMs: options.clock() + options.sessionMs,
      });
      return {
        session,
        ...credential,
        nonce,
        pcrSelection,
        channelBinding: options.policy.channelBinding === "required" ? "tls-exporter" : "none",
        eventLog: options.policy.eventLog.mode,
        expiresIn: Math.floor(options.sessionMs / 1_000),
      };
    },
    evidence: async (request, tlsExporter) => {
      // Taken out before anything is checked: a wrong answer ends the session (C2).
      const session = sessions.take(request.session);
      if (!constantTimeEqual(request.activatedSecret, session.secret)) {
        const message = "the activated secret is not the wrapped one";
        throw new StileError("ATTEST_CREDENTIAL_MISMATCH", message);
      }
      const verifier = { ...options, pcrSelection };
      const accepted = await verifyEvidence(verifier, session, request, tlsExporter);
      const { pseudonym, manufacturer } = session;
      const deviceKey = es256JwkOf(accepted.deviceKey);
      return { ...accepted, kind: "appraised-device", pseudonym, manufacturer, deviceKey };
    },
  };
}

interface AdmittedKeys {
  readonly ek: TpmtPublic;
  readonly ak: TpmtPublic;
  readonly pseudonym: string;
  readonly manufacturer: string;
}

/** The cheap checks of the public areas come before the certificates. */
async function verifyKeys(
  options: TpmAttesterOptions,
  request: ChallengeRequest,
): Promise<AdmittedKeys> {
  const ek = parseTpm2bPublic(request.ekPublic);
  checkEkPublic(ek);
  const ak = parseTpm2bPublic(request.akPublic);
  checkAkPublic(ak, options.policy);
  const ekPublicKeySpki = encodeSpki(ek);
  const { manufacturer } = await verifyEkCertificate({
    certificates: request.ekCertificates,
    ekPublicKeySpki,
    ekKeyType: ek.type === TPM_ALG_RSA ? "rsa" : "ecc",
    roots: options.roots,
    atMs: options.clock(),
    acceptOddities: options.policy.acceptOddities,
    revocation: options.policy.revocation,
  });
  const pseudonym = devicePseudonym(options.crypto, options.pseudonymSecret, ekPublicKeySpki);
  // Early, so that a revoked device costs no session; the evidence is judged by it again.
  await options.registry.lookUp({ pseudonym, manufacturer });
  return { ek, ak, pseudonym, manufacturer };
}

function es256JwkOf(area: TpmtPublic): AppraisedDevice["deviceKey"] {
  if (area.type !== TPM_ALG_ECC) throw new TypeError("the device key was not checked");
  const { x, y } = paddedPoint(area);
  return { kty: "EC", crv: "P-256", x: encodeBase64Url(x), y: encodeBase64Url(y) };
}
