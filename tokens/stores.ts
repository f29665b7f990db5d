/**
 * The seams between the token layer and the machine it runs on: where spent tokens are remembered and
 * where private keys are used, to make blind signatures and to verify what only they can verify. Implementations live in `service/`.
 *
 * RFC 9577 §2.2 and §2.1.1.2 (redemption state), RFC 9578 §6.2 (issuance). Nothing here checks a
 * token: a redeemer calls `spend` only after the authenticator has verified.
 */

/** One verified token, to be spent. Byte strings are not kept by reference after the call. */
export interface SpendRequest {
  /** 32 bytes: the key that signed the token, and so the epoch the entry belongs to. */
  readonly tokenKeyId: Uint8Array;
  /** 32 bytes, chosen by the client: uniform only if the client is honest. */
  readonly nonce: Uint8Array;
  /**
   * 32 bytes that name the caller's own retry: already hashed together with the key id and the nonce,
   * so that what is stored links no two tokens. Absent: a second spend is never a repeat.
   */
  readonly binding?: Uint8Array;
  /** Instant of this redemption, Unix milliseconds; stored by the spend that is fresh. */
  readonly atMs: number;
}

export type SpendOutcome =
  | { readonly outcome: "fresh" }
  /** Spent before with the same binding; `firstAtMs` is the `atMs` of the fresh spend. */
  | { readonly outcome: "repeat"; readonly firstAtMs: number }
  /** Spent before with another binding or with none. */
  | { readonly outcome: "spent" };

/**
 * Remembers which tokens were redeemed. The key of an entry is (`tokenKeyId`, `nonce`): never the raw
 * token bytes, which have more than one spelling.
 *
 * Contract:
 * - **Atomic**: `spend` is one insert-if-absent. Of any number of calls for one (key id, nonce),
 *   concurrent or not, in one process or in several, at most one is answered "fresh".
 * - **Durable**: "fresh" is answered only after the entry is on stable storage (or acknowledged by a
 *   quorum that survives the loss of a member). Two "fresh" answers for one (key id, nonce) are
 *   impossible across crashes, restarts and processes, for as long as the epoch has not been dropped.
 * - **Crash before the answer**: the entry may exist or not. The token may then be lost to its owner,
 *   never doubled; a retry with the same binding heals it as a "repeat".
 * - **Repeat**: answered only where the stored entry holds a binding and it equals the given one, by a
 *   constant-time comparison. The first entry is never changed: neither its binding nor its `atMs`.
 * - **Epochs**: the entries of a key go together, with its epoch, and in no other way. It ends for one of two reasons:
 *   - *past*: all redeemers that share the store say again and again for how long they go on accepting tokens of the
 *     key (`keepEpoch`). The store keeps the latest instant, by its own clock: raised, never lowered. `dropPastEpochs`,
 *     whoever calls it, drops what is past. So a redeemer that was cut off from the issuer, or whose clock is wrong,
 *     ends nothing that another one needs: all it can do is keep entries for longer.
 *   - *revoked*: `dropEpoch`, at once and for all of them. Only for a key that nobody may accept any more.
 * - **The end is for ever**: an epoch that was dropped is never made again, by nobody, whatever their keys and clocks
 *   say: `TOKEN_KEY_UNKNOWN`. An empty one in its place would answer "fresh" for what was spent.
 * - **A store that forgot**: one that is shared may come back empty, as another one, or set back to a backup. An
 *   implementation that can tell refuses it, by every caller that knew better, until the operator has decided: the spends
 *   that it forgot would be "fresh" once more.
 * - **Failure**: rejects with `TOKEN_STORE_UNAVAILABLE`. Nothing may then be assumed about the entry,
 *   and the token is refused.
 */
export interface SpentStore {
  /** @throws `TOKEN_STORE_UNAVAILABLE`; `TOKEN_KEY_UNKNOWN` where the epoch was dropped */
  spend(request: SpendRequest): Promise<SpendOutcome>;
  /**
   * This redeemer accepts tokens of the key for `forMs` more milliseconds from now, 0 or more: a span, since its clock
   * may be wrong. Beyond a cap of the store it counts as the cap, so it is said again before that.
   * @returns false where the epoch was dropped: the key can be forgotten
   * @throws `TOKEN_STORE_UNAVAILABLE`, `TOKEN_STORE_REFUSED` where the operator has to decide
   */
  keepEpoch(tokenKeyId: Uint8Array, forMs: number): Promise<boolean>;
  /**
   * Drops every epoch that no redeemer needs any more, with some grace. An epoch of which only spends are known counts
   * as needed for the cap from its first spend on. @returns how many
   * @throws as `keepEpoch`
   */
  dropPastEpochs(): Promise<number>;
  /**
   * Forgets every entry of a key, at once and whoever needs it. Idempotent; an unknown key id is no error. A crash
   * half way leaves the epoch partly there, and the next call finishes it.
   * @throws as `keepEpoch`
   */
  dropEpoch(tokenKeyId: Uint8Array): Promise<void>;
  /** Waits for running calls, then lets go of files and connections. Later calls reject. */
  close(): Promise<void>;
}

/**
 * Makes blind signatures: the only thing that touches a private key. Implemented by a worker pool in
 * `service/`, so that the event loop never runs the RSA operation.
 *
 * Contract: checks the result against the public key before it leaves (RFC 9474 §4.3, step "m ==
 * RSAVP1"), since a faulty CRT signature gives the key away; of the private types the client checks the
 * proof. Knows nothing of who asks.
 */
export interface BlindSigner {
  /**
   * The blind signatures (types 0x0002 and 0xDA7A: 256 bytes each) over `blindedMessage`, which is hostile: one message
   * or several end to end, and the answer likewise; all or nothing. For types 0x0001 and 0x0005 they are
   * blinded elements, and the answer is the evaluated elements end to end, then one proof for all of them.
   * @param metadata encoded Extensions, of type 0xDA7A and of no other; the issuer's policy has let them pass
   * @throws `TOKEN_ISSUER_BUSY` when the queue is full, `TOKEN_KEY_UNKNOWN` when this signer does not
   * hold the key, `TOKEN_REQUEST_INVALID` when the message is no valid input of the operation, or has no
   * metadata where its type has some
   */
  blindSign(
    tokenKeyId: Uint8Array,
    blindedMessage: Uint8Array,
    metadata?: Uint8Array,
  ): Promise<Uint8Array>;
}

/**
 * Verifies tokens of the private types with the private key (RFC 9578 §5.4): one more operation that a
 * worker pool does off the event loop. Knows nothing of challenges and of what was spent.
 */
export interface PrivateTokenVerifier {
  /**
   * True when `authenticator` is that of `authenticatorInput` under the key; both are hostile, and are
   * compared in constant time.
   * @throws `TOKEN_ISSUER_BUSY` when the queue is full, `TOKEN_KEY_UNKNOWN` when this verifier does not
   * hold the key
   */
  verifyPrivate(
    tokenKeyId: Uint8Array,
    authenticatorInput: Uint8Array,
    authenticator: Uint8Array,
  ): Promise<boolean>;
}
