/**
 * Registrations of real authenticators and of FIDO's conformance tools, as SimpleWebAuthn collected them:
 * what each needs beyond the default policy. Shared by the tests and by the page that lists the verdicts.
 */
import { createNodeAttestCrypto } from "../../../../attest/node/index.ts";
import {
  DEFAULT_WEBAUTHN_POLICY,
  parseTrustAnchors,
  type RegistrationCheck,
  type WebAuthnPolicy,
} from "../../../../attest/webauthn/index.ts";
import { decodeBase64Url } from "../../../../wire/index.ts";
import { readSharedJson } from "../../../support/shared.ts";
import { attestationObjectOf, pemOf, x5cOf } from "../../webauthn/support/registration.ts";

export interface WebAuthnSample {
  readonly title: string;
  readonly id: string;
  readonly attestationObject: string;
  readonly clientDataJSON: string;
  readonly expectedChallenge: string;
  readonly expectedOrigin: string;
  readonly expectedRPID: string;
  readonly at: string | null;
  readonly expectByOrigin: string;
}

const crypto = createNodeAttestCrypto();

export function webAuthnSamples(name: string): readonly WebAuthnSample[] {
  return readSharedJson(`corpora/webauthn/${name}.json`) as WebAuthnSample[];
}

/** What each sample needs beyond the default policy, and why. */
export interface WebAuthnRow {
  readonly file: string;
  readonly index: number;
  readonly policy: Partial<WebAuthnPolicy>;
  /** Certificate of x5c that serves as the anchor; "root" is the root that the maker publishes. */
  readonly anchor: number | undefined;
  readonly at?: string;
  /** The code by the default policy and the same anchor, or "nothing was thrown". */
  readonly strict: string;
}

const noUv = { userVerification: "optional" } as const;
/** FIDO's conformance tools use this number, which is not in the registry. */
const fakeVendor = { unregisteredTpmVendors: ["id:FFFFF1D0"] };

export const WEBAUTHN_ROWS: readonly WebAuthnRow[] = [
  {
    file: "tpm",
    index: 0,
    policy: { ...noUv, ...fakeVendor },
    anchor: 1,
    strict: "ATTEST_WEBAUTHN_USER_ABSENT",
  },
  {
    // The intermediate has a negative serial number: our reader does not take it as an anchor.
    file: "tpm",
    index: 1,
    policy: {
      ...noUv,
      ...fakeVendor,
      acceptSha1: ["tpm-attestation", "credential-key"],
      acceptUnanchored: ["tpm"],
    },
    anchor: undefined,
    strict: "ATTEST_ALGORITHM_NOT_ALLOWED",
  },
  {
    file: "tpm",
    index: 2,
    policy: { ...noUv, ...fakeVendor, acceptUnanchored: ["tpm"] },
    anchor: undefined,
    strict: "ATTEST_WEBAUTHN_USER_ABSENT",
  },
  {
    // Windows Hello on ST's TPM: RS1 over SHA-1.
    file: "tpm",
    index: 3,
    policy: { acceptSha1: ["tpm-attestation"] },
    anchor: 1,
    strict: "ATTEST_ALGORITHM_NOT_ALLOWED",
  },
  {
    // Chromium's virtual authenticator: the leaf is its own anchor.
    file: "packed",
    index: 0,
    policy: {},
    anchor: 0,
    at: "2026-11-23T00:00:00.000Z",
    strict: "nothing was thrown",
  },
  {
    file: "android-key",
    index: 0,
    policy: {
      ...noUv,
      androidSecurityLevels: ["software"],
      androidRevocation: "if-given",
    },
    anchor: 1,
    strict: "ATTEST_WEBAUTHN_USER_ABSENT",
  },
  {
    // Pixel 8a: the anchor is Google's own root, the last of x5c.
    file: "android-key",
    index: 1,
    policy: { androidRevocation: "if-given" },
    anchor: 4,
    strict: "ATTEST_REVOCATION_UNKNOWN",
  },
  {
    // Apple's certificates live three days.
    file: "apple",
    index: 0,
    policy: {},
    anchor: 1,
    at: "2020-09-13T12:00:00.000Z",
    strict: "nothing was thrown",
  },
];

export function registrationCheckOf(
  row: WebAuthnRow,
  policy: Partial<WebAuthnPolicy>,
): RegistrationCheck {
  const entry = webAuthnSamples(row.file)[row.index]!;
  const attestationObject = decodeBase64Url(entry.attestationObject);
  const clientDataJSON = decodeBase64Url(entry.clientDataJSON);
  const { challenge } = JSON.parse(new TextDecoder().decode(clientDataJSON)) as {
    challenge: string;
  };
  // The origin's test had the challenge as raw text or as base64url.
  const { expectedChallenge } = entry;
  const encoded = Buffer.from(expectedChallenge).toString("base64url");
  if (challenge !== expectedChallenge && challenge !== encoded) {
    throw new Error(`${row.file}[${row.index}] has another challenge than its origin's test`);
  }
  const { format } = attestationObjectOf(attestationObject);
  const anchor = row.anchor === undefined ? undefined : x5cOf(attestationObject)[row.anchor]!;
  return {
    response: { rawId: decodeBase64Url(entry.id), clientDataJSON, attestationObject },
    expected: {
      challenge: decodeBase64Url(challenge),
      origins: [entry.expectedOrigin],
      rpId: entry.expectedRPID,
    },
    policy: { ...DEFAULT_WEBAUTHN_POLICY, ...policy },
    trust: { anchors: anchor === undefined ? {} : { [format]: parseTrustAnchors(pemOf(anchor)) } },
    crypto,
    clock: () => Date.parse(row.at ?? entry.at ?? ""),
  };
}
