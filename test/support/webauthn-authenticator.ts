/**
 * A browser with a software authenticator that attests as a security key does (`packed`, with a batch
 * certificate of its own maker). Every part of a ceremony can be told to be wrong. The statements are those
 * of test/attest/webauthn/support, which other software verifies; real ones come from tpm-authenticator.ts.
 */
import { createHash, randomBytes } from "node:crypto";
import { concatBytes, decodeBase64Url, encodeBase64Url } from "../../wire/index.ts";
import {
  AAGUID,
  authDataOf,
  clientDataOf,
  type Plan,
  registrationOf,
  signDer,
} from "../attest/webauthn/support/authenticator.ts";
import { pemOf } from "../attest/webauthn/support/registration.ts";
import { createMakers, packedPlan } from "../attest/webauthn/support/statements.ts";
import { createSigner } from "../attest/webauthn/support/x509.ts";

/** What `publicKey` of the options says, as far as a browser needs it. */
export interface CeremonyInput {
  readonly challenge: string;
  readonly rpId: string;
  readonly origin: string;
}

export interface Deviation {
  readonly flags?: number;
  readonly signCount?: number;
  /** In place of the packed statement. */
  readonly plan?: Plan;
  readonly clientData?: Readonly<Record<string, unknown>>;
}

export interface CredentialJson {
  readonly id: string;
  readonly rawId: string;
  readonly type: string;
  readonly response: Readonly<Record<string, string>>;
}

export interface SoftAuthenticator {
  readonly rootPem: string;
  readonly aaguid: string;
  /** A new credential, which later assertions are by. */
  readonly register: (input: CeremonyInput, deviation?: Deviation) => CredentialJson;
  readonly authenticate: (input: CeremonyInput, deviation?: Deviation) => CredentialJson;
  readonly credentialId: () => string;
}

export function createSoftAuthenticator(): SoftAuthenticator {
  const makers = createMakers();
  let credential = createSigner();
  let credentialId = new Uint8Array(32);
  let signCount = 0;
  return {
    rootPem: pemOf(makers.ca.root),
    aaguid: AAGUID,
    credentialId: () => encodeBase64Url(credentialId),
    register: (input, deviation = {}) => {
      credential = deviation.plan?.credential ?? createSigner();
      credentialId = Uint8Array.from(randomBytes(32));
      signCount += 1;
      const { response } = registrationOf({
        ...(deviation.plan ?? packedPlan(makers)),
        credential,
        clientData: clientDataFor("webauthn.create", input, deviation),
        authData: {
          rpId: input.rpId,
          credentialId,
          signCount: deviation.signCount ?? signCount,
          ...(deviation.flags === undefined ? {} : { flags: deviation.flags }),
          ...deviation.plan?.authData,
        },
      });
      const { clientDataJSON, attestationObject } = response;
      return jsonOf(credentialId, { clientDataJSON, attestationObject });
    },
    authenticate: (input, deviation = {}) => {
      signCount += 1;
      const clientDataJSON = clientDataFor("webauthn.get", input, deviation);
      const authenticatorData = authDataOf({
        rpId: input.rpId,
        flags: deviation.flags ?? 0x05,
        signCount: deviation.signCount ?? signCount,
      });
      const hash = Uint8Array.from(createHash("sha256").update(clientDataJSON).digest());
      const signature = signDer(credential.key, concatBytes([authenticatorData, hash]));
      return jsonOf(credentialId, { clientDataJSON, authenticatorData, signature });
    },
  };
}

/** The same credential with one bit of a member of its response turned. */
export function withFlippedBit(
  credential: CredentialJson,
  member: string,
  bit: number,
): CredentialJson {
  const bytes = decodeBase64Url(credential.response[member] ?? "");
  const at = (bit >> 3) % bytes.length;
  bytes[at] = (bytes[at] ?? 0) ^ (1 << (bit & 7));
  return { ...credential, response: { ...credential.response, [member]: encodeBase64Url(bytes) } };
}

function clientDataFor(type: string, input: CeremonyInput, { clientData }: Deviation): Uint8Array {
  return clientDataOf({ type, challenge: input.challenge, origin: input.origin, ...clientData });
}

function jsonOf(id: Uint8Array, members: Readonly<Record<string, Uint8Array>>): CredentialJson {
  const response = Object.fromEntries(
    Object.entries(members).map(([name, bytes]) => [name, encodeBase64Url(bytes)]),
  );
  return { id: encodeBase64Url(id), rawId: encodeBase64Url(id), type: "public-key", response };
}
