/**
 * What an attester remembers of WebAuthn credentials: an interface, implemented in `service/`. A credential
 * is known by a keyed hash of its id, and its owner by a keyed hash of its key; neither the id nor anything
 * of the person is kept, so that the file is of no use at another site.
 *
 * Contract: each write is durable when it returns, and a crash in between leaves the old state or the new.
 * `add` and `recordUse` decide and write as one step: of two concurrent calls the second sees the first.
 * Whatever a store cannot answer is a refusal, never an unknown credential.
 */
import type { AttestationFormat, AttestationTrust } from "../webauthn/index.ts";

export interface StoredCredential {
  /** COSE_Key as it was registered. */
  readonly publicKey: Uint8Array;
  readonly signCount: number;
  readonly backupEligible: boolean;
  /** The subject of this credential's results. */
  readonly pseudonym: string;
  /** Lower-case UUID: the model, which millions share. As good as {@link trust} is. */
  readonly aaguid: string;
  readonly format: AttestationFormat;
  readonly trust: AttestationTrust;
}

export interface CredentialStore {
  /**
   * @param handle keyed hash of the credential id
   * @throws `ATTEST_WEBAUTHN_CREDENTIAL_UNKNOWN` also where it was forgotten, `ATTEST_WEBAUTHN_STORE_UNAVAILABLE`
   */
  readonly lookUp: (handle: Uint8Array) => Promise<StoredCredential>;
  /** @throws `ATTEST_WEBAUTHN_CREDENTIAL_EXISTS`, `ATTEST_WEBAUTHN_STORE_UNAVAILABLE` */
  readonly add: (handle: Uint8Array, credential: StoredCredential) => Promise<void>;
  /**
   * Stores the counter of a verified assertion, and that the credential was used today. Judged against the
   * counter that is stored now: two assertions with one counter are not both accepted.
   * @throws `ATTEST_WEBAUTHN_COUNTER_INVALID`, `ATTEST_WEBAUTHN_CREDENTIAL_UNKNOWN`, `ATTEST_WEBAUTHN_STORE_UNAVAILABLE`
   */
  readonly recordUse: (handle: Uint8Array, signCount: number) => Promise<void>;
}

/** WebAuthn Level 3 §6.1.1: the counter goes up, or is always 0 where the authenticator has none. */
export function isCounterAccepted(stored: number, received: number): boolean {
  return received > stored || (received === 0 && stored === 0);
}
