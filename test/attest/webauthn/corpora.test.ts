/** Registrations of real authenticators and of FIDO's conformance tools, as SimpleWebAuthn collected them. */
import { afterEach, describe, expect, it, vi } from "vitest";
import { SettingsService, verifyRegistrationResponse } from "@simplewebauthn/server";
import { codeOfAsync } from "../../support/reject.ts";
import { sharedMissing } from "../../support/shared.ts";
import {
  parseTrustAnchors,
  type WebAuthnPolicy,
  verifyRegistration,
} from "../../../attest/webauthn/index.ts";
import {
  registrationCheckOf,
  WEBAUTHN_ROWS,
  webAuthnSamples,
} from "../support/corpora/webauthn.ts";

/** Apple's and Google's roots as the library brings them, read before a test changes them. */
const PUBLISHED_ROOTS = {
  apple: SettingsService.getRootCertificates({ identifier: "apple" }),
  "android-key": SettingsService.getRootCertificates({ identifier: "android-key" }),
};

afterEach(() => vi.useRealTimers());

describe.skipIf(sharedMissing)("registrations of others", () => {
  it("has a row for every sample, and all are accepted by their origin", () => {
    for (const file of ["tpm", "packed", "android-key", "apple"]) {
      const entries = webAuthnSamples(file);
      expect(WEBAUTHN_ROWS.filter((row) => row.file === file)).toHaveLength(entries.length);
      expect(entries.map(({ expectByOrigin }) => expectByOrigin)).toStrictEqual(
        entries.map(() => "accept"),
      );
    }
  });

  it.each(WEBAUTHN_ROWS)("accepts $file[$index] with the settings that it needs", async (row) => {
    const verified = await verifyRegistration(registrationCheckOf(row, row.policy));
    const format = row.file;
    const trust = row.anchor === undefined ? "unanchored" : "anchored";
    expect(verified.attestation).toMatchObject({ format, trust });
  });

  it.each([
    ["apple", 0],
    ["android-key", 1],
  ] as const)("%s[%i] leads to the root that its maker publishes", async (file, index) => {
    const row = WEBAUTHN_ROWS.find((it_) => it_.file === file && it_.index === index)!;
    const check = registrationCheckOf(row, row.policy);
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

  it.each(WEBAUTHN_ROWS)("judges $file[$index] by the default policy: $strict", async (row) => {
    expect(await codeOfAsync(() => verifyRegistration(registrationCheckOf(row, {})))).toBe(
      row.strict,
    );
  });

  it.each(WEBAUTHN_ROWS)("needs each of the settings of $file[$index]", async (row) => {
    for (const name of Object.keys(row.policy)) {
      const { [name as keyof WebAuthnPolicy]: _, ...others } = row.policy;
      expect(
        await codeOfAsync(() => verifyRegistration(registrationCheckOf(row, others))),
        name,
      ).toMatch(/^ATTEST_/);
    }
  });

  it.each(WEBAUTHN_ROWS)("reads $file[$index] as @simplewebauthn/server does", async (row) => {
    const entry = webAuthnSamples(row.file)[row.index]!;
    const check = registrationCheckOf(row, row.policy);
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
