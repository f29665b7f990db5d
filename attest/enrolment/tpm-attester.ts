/**
 * The attester's side of TPM enrolment, in two steps (docs/architecture.md, "Attestation, on the wire").
 * `challenge` answers whoever shows a genuine EK certificate; only a TPM that holds that EK together with
 * the AK can use the answer (checklist C). `evidence` then ties a fresh quote and a device key to it.
 * It knows no HTTP and signs nothing: what it returns goes into an attestation result.
 */
import {
  concatBytes,
  constantTimeEqual,
  encodeBase64Url,
  encodeUtf8,
  StileError,
} from "../../wire/index.ts";
import { makeCredential } from "../credential/make-credential.ts";
import type { AttestCrypto } from "../crypto.ts";
import { type TrustedRoots, verifyEkCertificate } from "../ek/index.ts";
import { checkEkPublic } from "../keys/ek-templates.ts";
import { type AlgorithmPolicy, checkAkPublic, checkDeviceKeyPublic } from "../keys/roles.ts";
import { verifyCertify } from "../quote/verify-certify.ts";
import { type PcrValue, verifyQuote, type VerifiedQuote } from "../quote/verify-quote.ts";
import { type HashName, TPM_ALG_ECC, TPM_ALG_RSA } from "../structures/constants.ts";
import { computeName } from "../structures/name.ts";
import { encodeTpmlPcrSelection } from "../structures/pcr-selection.ts";
import { parseTpm2bPublic, type TpmtPublic } from "../structures/public.ts";
import { encodeSpki, paddedPoint } from "../structures/spki.ts";
import { checkTpmAttesterOptions } from "./attester-options.ts";
import { evidenceBinding } from "./binding.ts";
import type { ChallengeRequest, ChallengeResponse, EvidenceRequest } from "./messages.ts";
import { type AttestationSession, createSessions } from "./sessions.ts";

export interface TpmAppraisalPolicy extends AlgorithmPolicy {
  /** What a quote must cover. */
  readonly pcrBanks: readonly { readonly hash: HashName; readonly pcrs: readonly number[] }[];
  /** `unsafeOff` accepts evidence over any connection, and the result says so. */
  readonly channelBinding: "required" | "unsafeOff";
  /** Values that quoted PCRs must have; a quoted PCR that is not listed may have any. */
  readonly referenceValues: readonly PcrValue[];
}

export interface TpmAttesterOptions {
  readonly crypto: AttestCrypto;
  /** CSPRNG. */
  readonly random: (length: number) => Uint8Array;
  /** Unix milliseconds. */
  readonly clock: () => number;
  readonly roots: TrustedRoots;
  readonly policy: TpmAppraisalPolicy;
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
  /** True where reference values were configured, and so matched. */
  readonly configurationMatched: boolean;
}

export interface TpmAttester {
  /** @throws `ATTEST_EK_*`, `ATTEST_KEY_ATTRIBUTES_INVALID`, `ATTEST_ALGORITHM_NOT_ALLOWED`, `ATTEST_SESSION_LIMIT`, `WIRE_*` */
  readonly challenge: (request: ChallengeRequest) => Promise<ChallengeResponse>;
  /**
   * @param tlsExporter 32 bytes of the connection that carries the request
   * @throws `ATTEST_SESSION_UNKNOWN`, `ATTEST_CREDENTIAL_MISMATCH`, what `verifyQuote` and
   * `verifyCertify` throw, `ATTEST_POLICY_REFUSED`
   */
  readonly evidence: (
    request: EvidenceRequest,
    tlsExporter: Uint8Array | undefined,
  ) => Promise<AppraisedDevice>;
}

const SECRET_BYTES = 32;
const NONCE_BYTES = 32;
const PSEUDONYM_LABEL = encodeUtf8("stile/1 device pseudonym");

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
      return verifyEvidence(options, pcrSelection, session, request, tlsExporter);
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
  });
  return { ek, ak, pseudonym: pseudonymOf(options, ekPublicKeySpki), manufacturer };
}

async function verifyEvidence(
  options: TpmAttesterOptions,
  pcrSelection: Uint8Array,
  session: AttestationSession,
  request: EvidenceRequest,
  tlsExporter: Uint8Array | undefined,
): Promise<AppraisedDevice> {
  const { crypto, policy } = options;
  const deviceKey = parseTpm2bPublic(request.deviceKey.public);
  checkDeviceKeyPublic(deviceKey);
  const bindTo = {
    nonce: session.nonce,
    tlsExporter: exporterFor(policy, tlsExporter),
    deviceKeyName: computeName(deviceKey, crypto),
  };
  const { ak } = session;
  const quote = await verifyQuote({
    ak,
    quote: request.quote,
    extraData: evidenceBinding(crypto, "quote", bindTo),
    pcrSelection,
    pcrValues: request.pcrValues,
    crypto,
  });
  await verifyCertify({
    ak,
    certify: request.deviceKey,
    extraData: evidenceBinding(crypto, "certify", bindTo),
    certified: deviceKey,
    crypto,
  });
  appraise(policy, quote);
  return {
    kind: "appraised-device",
    pseudonym: session.pseudonym,
    manufacturer: session.manufacturer,
    deviceKey: es256JwkOf(deviceKey),
    channelBinding: bindTo.tlsExporter === undefined ? "none" : "tls-exporter",
    quote,
    configurationMatched: policy.referenceValues.length > 0,
  };
}

/** Required and absent is a refusal; switched off means that it is not looked at even where it is there. */
function exporterFor(
  policy: TpmAppraisalPolicy,
  tlsExporter: Uint8Array | undefined,
): Uint8Array | undefined {
  if (policy.channelBinding === "unsafeOff") return undefined;
  if (tlsExporter === undefined) {
    throw new StileError(
      "ATTEST_NONCE_MISMATCH",
      "the evidence came over no TLS connection of ours",
    );
  }
  return tlsExporter;
}

function appraise(policy: TpmAppraisalPolicy, quote: VerifiedQuote): void {
  for (const reference of policy.referenceValues) {
    const quoted = quote.pcrValues.find(
      ({ hash, pcr }) => hash === reference.hash && pcr === reference.pcr,
    );
    if (quoted === undefined || !constantTimeEqual(quoted.value, reference.value)) {
      throw new StileError("ATTEST_POLICY_REFUSED", "a PCR does not have its reference value");
    }
  }
}

function pseudonymOf(options: TpmAttesterOptions, ekSpki: Uint8Array): string {
  const message = concatBytes([PSEUDONYM_LABEL, ekSpki]);
  return encodeBase64Url(options.crypto.hmac("sha256", options.pseudonymSecret, message));
}

function es256JwkOf(area: TpmtPublic): AppraisedDevice["deviceKey"] {
  if (area.type !== TPM_ALG_ECC) throw new TypeError("the device key was not checked");
  const { x, y } = paddedPoint(area);
  return { kty: "EC", crv: "P-256", x: encodeBase64Url(x), y: encodeBase64Url(y) };
}
