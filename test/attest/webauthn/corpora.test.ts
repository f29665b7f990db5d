/** Registrations of real authenticators and of FIDO's conformance tools, as SimpleWebAuthn collected them. */
import { afterEach, describe, expect, it, vi } from "vitest";
import { SettingsService, verifyRegistrationResponse } from "@simplewebauthn/server";
import { codeOfAsync } from "../../support/reject.ts";
import { readSharedJson, sharedMissing } from "../../support/shared.ts";
import {
  DEFAULT_WEBAUTHN_POLICY,
  parseTrustAnchors,
  type RegistrationCheck,
  type WebAuthnPolicy,
  verifyRegistration,
} from "../../../attest/webauthn/index.ts";
import { createNodeAttestCrypto } from "../../../attest/node/index.ts";
import { decodeBase64Url } from "../../../wire/index.ts";
import { attestationObjectOf, pemOf, x5cOf } from "./support/registration.ts";

interface Entry {
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

/** Apple's and Google's roots as the library brings them, read before a test changes them. */
const PUBLISHED_ROOTS = {
  apple: SettingsService.getRootCertificates({ identifier: "apple" }),
  "android-key": SettingsService.getRootCertificates({ identifier: "android-key" }),
};

afterEach(() => vi.useRealTimers());

function load(name: string): readonly Entry[] {
  return readSharedJson(`corpora/webauthn/${name}.json`) as Entry[];
}

/** What each sample needs beyond the default policy, and why. */
interface Row {
  readonly file: string;
  readonly index: number;
  readonly policy: Partial<WebAuthnPolicy>;
  /** Certificate of x5c that serves as the anchor; "root" is the root that the maker publishes. */
  readonly anchor: number | undefined;
  readonly at?: string;
  /** By the default policy and the same anchor. */
  readonly strict: string;
}

const noUv = { userVerification: "optional" } as const;
/** FIDO's conformance tools use this number, which is not in the registry. */
const fakeVendor = { unregisteredTpmVendors: ["id:FFFFF1D0"] };

const ROWS: readonly Row[] = [
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

function checkOf(row: Row, policy: Partial<WebAuthnPolicy>): RegistrationCheck {
  const entry = load(row.file)[row.index]!;
  const attestationObject = decodeBase64Url(entry.attestationObject);
  const clientDataJSON = decodeBase64Url(entry.clientDataJSON);
  const { challenge } = JSON.parse(new TextDecoder().decode(clientDataJSON)) as {
    challenge: string;
  };
  // The origin's test had the challenge as raw text or as base64url.
  expect([
    entry.expectedChallenge,
    Buffer.from(entry.expectedChallenge).toString("base64url"),
  ]).toContain(challenge);
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

describe.skipIf(sharedMissing)("registrations of others", () => {
  it("has a row for every sample, and all are accepted by their origin", () => {
    for (const file of ["tpm", "packed", "android-key", "apple"]) {
      const entries = load(file);
      expect(ROWS.filter((row) => row.file === file)).toHaveLength(entries.length);
      expect(entries.map(({ expectByOrigin }) => expectByOrigin)).toStrictEqual(
        entries.map(() => "accept"),
      );
    }
  });

  it.each(ROWS)("accepts $file[$index] with the settings that it needs", async (row) => {
    const verified = await verifyRegistration(checkOf(row, row.policy));
    const format = row.file;
    const trust = row.anchor === undefined ? "unanchored" : "anchored";
    expect(verified.attestation).toMatchObject({ format, trust });
  });

  it.each([
    ["apple", 0],
    ["android-key", 1],
  ] as const)("%s[%i] leads to the root that its maker publishes", async (file, index) => {
    const row = ROWS.find((it_) => it_.file === file && it_.index === index)!;
    const check = checkOf(row, row.policy);
    const anchors = parseTrustAnchors(PUBLISHED_ROOTS[file].join("\n"));
    const { attestation } = await verifyRegistration({
      ...check,
      trust: { anchors: { [file]: anchors } },
    });
    expect(attestation.trust).toBe("anchored");
    const other = file === "apple" ? "android-key" : "apple";
    const others = parseTrustAnchors(PUBLISHED_ROOTS[other].join("\n"));
    const code = await codeOfAsync(() =>
      verifyRegistration({ ...check, trust: { anchors: { [file]: others } } }),
    );
    expect(code).toBe("ATTEST_WEBAUTHN_CHAIN_UNTRUSTED");
  });

  it.each(ROWS)("judges $file[$index] by the default policy: $strict", async (row) => {
    expect(await codeOfAsync(() => verifyRegistration(checkOf(row, {})))).toBe(row.strict);
  });

  it.each(ROWS)("needs each of the settings of $file[$index]", async (row) => {
    for (const name of Object.keys(row.policy)) {
      const { [name as keyof WebAuthnPolicy]: _, ...others } = row.policy;
      expect(await codeOfAsync(() => verifyRegistration(checkOf(row, others))), name).toMatch(
        /^ATTEST_/,
      );
    }
  });

  it.each(ROWS)("reads $file[$index] as @simplewebauthn/server does", async (row) => {
    const entry = load(row.file)[row.index]!;
    const check = checkOf(row, row.policy);
    const { credential, attestation } = await verifyRegistration(check);
    SettingsService.setRootCertificates({
      identifier: attestation.format,
      // It refuses an anchor that x5c repeats; without any it skips the path.
      certificates: [],
    });
    // The library takes the machine's clock.
    vi.useFakeTimers({ toFake: ["Date"], now: check.clock() });
    const { verified, registrationInfo } = await verifyRegistrationResponse({
      response: {
        id: entry.id,
        rawId: entry.id,
        type: "public-key",
        clientExtensionResults: {},
        response: {
          clientDataJSON: entry.clientDataJSON,
          attestationObject: entry.attestationObject,
        },
      },
      expectedChallenge: () => true,
      expectedOrigin: entry.expectedOrigin,
      expectedRPID: entry.expectedRPID,
      requireUserVerification: false,
      supportedAlgorithmIDs: [-7, -8, -257, -65535],
    });
    expect(verified).toBe(true);
    expect(registrationInfo?.aaguid).toBe(credential.aaguid);
    expect(registrationInfo?.fmt).toBe(attestation.format);
    expect(registrationInfo?.credential.publicKey).toStrictEqual(credential.publicKey);
    expect(registrationInfo?.credential.counter).toBe(credential.signCount);
    expect(registrationInfo?.userVerified).toBe(credential.userVerified);
  });
});
