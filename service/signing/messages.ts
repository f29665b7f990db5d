/** What crosses the border between the signing pool and its worker threads. */
import type { KeyObject } from "node:crypto";
import type { VoprfEnginePreference } from "../../tokens/voprf/index.ts";
import type { ErrorCode } from "../../wire/index.ts";

/** How VOPRF keys are computed with: see `VoprfEnginePreference`. */
export interface WorkerSettings {
  readonly voprfEngine: VoprfEnginePreference;
}

/** To a worker. Messages are handled in the order in which they were posted. */
export type WorkerRequest =
  | ({ readonly kind: "add-key"; readonly keyName: string } & SigningKey)
  | { readonly kind: "remove-key"; readonly keyName: string }
  | { readonly kind: "work"; readonly jobs: readonly SigningJob[] }
  | { readonly kind: "end" };

/** A key and what it is for. A KeyObject is cloned as a handle: its bytes stay where they are. */
export interface SigningKey {
  readonly tokenType: number;
  /** RSA for types 0x0002 and 0xDA7A, else a secret key that holds a scalar. */
  readonly privateKey: KeyObject;
}

/**
 * Byte strings are hostile, and in memory of their own: cloning a view would clone all of the buffer
 * behind it. `keyName` is the token key id in hexadecimal.
 */
export type SigningJob =
  | {
      readonly op: "sign";
      readonly keyName: string;
      readonly blindedMessage: Uint8Array;
      /** Of type 0xDA7A alone. */
      readonly metadata?: Uint8Array;
    }
  | {
      readonly op: "verify";
      readonly keyName: string;
      readonly authenticatorInput: Uint8Array;
      readonly authenticator: Uint8Array;
    };

/** From a worker: one message when it can take work, then one per "work", its results in order. */
export type WorkerReply =
  | { readonly kind: "ready" }
  | { readonly kind: "done"; readonly results: readonly SigningResult[] };

export type SigningResult =
  | { readonly signature: Uint8Array }
  | { readonly isAuthentic: boolean }
  /** `code` is absent where the error was none of ours. */
  | { readonly code?: ErrorCode; readonly message: string };
