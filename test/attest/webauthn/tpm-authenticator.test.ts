/** Real `tpm` statements: keys, TPM2_Certify and signatures by a software TPM. */
import { beforeAll, describe, expect, it } from "vitest";
import {
  DEFAULT_WEBAUTHN_POLICY,
  parseAssertionResponse,
  parseRegistrationResponse,
  parseTrustAnchors,
  type RegistrationCheck,
  verifyAssertion,
  verifyRegistration,
} from "../../../attest/webauthn/index.ts";
import { codeOfAsync } from "../../support/reject.ts";
import { useSwtpm } from "../../support/swtpm.ts";
import { openTpmAuthenticator, type TpmAuthenticator } from "../../support/tpm-authenticator.ts";
import { crypto, NOW, ORIGIN, RP_ID } from "./support/authenticator.ts";

const running = useSwtpm([]);
const ceremony = { challenge: new Uint8Array(32).fill(9), origin: ORIGIN, rpId: RP_ID };
const expected = { challenge: ceremony.challenge, origins: [ORIGIN], rpId: RP_ID };

function checkOf(authenticator: TpmAuthenticator, json: unknown): RegistrationCheck {
  return {
    // As it comes over HTTP.
    response: parseRegistrationResponse(JSON.parse(JSON.stringify(json))),
    expected,
    policy: DEFAULT_WEBAUTHN_POLICY,
    trust: { anchors: { tpm: parseTrustAnchors(authenticator.rootPem) } },
    crypto,
    clock: () => NOW,
  };
}

describe.each(["ecc", "rsa"] as const)("a TPM with an AIK on %s", (aik) => {
  let authenticator: TpmAuthenticator;
  beforeAll(async () => {
    authenticator = await openTpmAuthenticator({ tcti: running.swtpm.tcti, aik });
    return () => authenticator.close();
  });

  it("F3 accepts its registration by the default policy, and F8 its assertions", async () => {
    const registration = await verifyRegistration(
      checkOf(authenticator, await authenticator.register(ceremony)),
    );
    expect(registration.attestation).toMatchObject({
      format: "tpm",
      trust: "anchored",
      tpm: { manufacturer: "id:53544D20" },
    });
    expect(registration.credential).toMatchObject({
      aaguid: authenticator.aaguid,
      userVerified: true,
      alg: -7,
    });
    let { signCount } = registration.credential;
    for (let i = 0; i < 2; i += 1) {
      const response = parseAssertionResponse(await authenticator.authenticate(ceremony));
      const assertion = await verifyAssertion({
        response,
        expected,
        credential: { ...registration.credential, signCount },
        policy: DEFAULT_WEBAUTHN_POLICY,
        crypto,
      });
      expect(assertion.signCount).toBe(signCount + 1);
      signCount = assertion.signCount;
    }
  });

  it("F8 rejects an assertion by another credential of the same TPM", async () => {
    const first = await verifyRegistration(
      checkOf(authenticator, await authenticator.register(ceremony)),
    );
    await authenticator.register(ceremony);
    const response = parseAssertionResponse(await authenticator.authenticate(ceremony));
    const check = {
      response: { ...response, rawId: first.credential.id },
      expected,
      credential: first.credential,
      policy: DEFAULT_WEBAUTHN_POLICY,
      crypto,
    };
    expect(await codeOfAsync(() => verifyAssertion(check))).toBe("ATTEST_SIGNATURE_INVALID");
  });

  it("F3 rejects its registration at another relying party, for another challenge and by another CA", async () => {
    const check = checkOf(authenticator, await authenticator.register(ceremony));
    const codeWith = (more: Partial<RegistrationCheck>): Promise<string> =>
      codeOfAsync(() => verifyRegistration({ ...check, ...more }));
    expect(await codeWith({})).toBe("nothing was thrown");
    expect(await codeWith({ expected: { ...expected, rpId: "example.com" } })).toBe(
      "ATTEST_WEBAUTHN_AUTHENTICATOR_DATA_INVALID",
    );
    expect(await codeWith({ expected: { ...expected, challenge: new Uint8Array(32) } })).toBe(
      "ATTEST_WEBAUTHN_CHALLENGE_MISMATCH",
    );
    expect(await codeWith({ trust: { anchors: {} } })).toBe("ATTEST_WEBAUTHN_CHAIN_UNTRUSTED");
  });
});
