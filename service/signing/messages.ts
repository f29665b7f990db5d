/** What crosses the border between the signing pool and its worker threads. */
import type { KeyObject } from "node:crypto";
import type { ErrorCode } from "../../wire/index.ts";

/** To a worker. Messages are handled in the order in which they were posted. */
export type WorkerRequest =
  | { readonly kind: "add-key"; readonly keyName: string; readonly privateKey: KeyObject }
  | { readonly kind: "remove-key"; readonly keyName: string }
  | { readonly kind: "sign"; readonly jobs: readonly SignJob[] };

export interface SignJob {
  /** The token key id in hexadecimal. */
  readonly keyName: string;
  /** Hostile. In memory of its own: cloning a view would clone all of the buffer behind it. */
  readonly blindedMessage: Uint8Array;
}

/** From a worker: one message when it can take work, then one per "sign", its results in order. */
export type WorkerReply =
  | { readonly kind: "ready" }
  | { readonly kind: "signed"; readonly results: readonly SignResult[] };

export type SignResult =
  | { readonly signature: Uint8Array }
  /** `code` is absent where the error was none of ours. */
  | { readonly code?: ErrorCode; readonly message: string };
