/**
 * What the AK signs over, so that evidence is good for one session, one TLS connection and one device
 * key (checklist D3, D11). Both sides of the protocol compute it; `docs/architecture.md` specifies it.
 */
import { encodeUtf8, Writer } from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";

/** Which of the two structures the value goes into: one is never accepted for the other. */
export type BindingPurpose = "quote" | "certify";

export interface BindingInput {
  /** The attester's, of this session. */
  readonly nonce: Uint8Array;
  /** 32 bytes (RFC 9266) of the connection that carries the evidence; undefined where binding is off. */
  readonly tlsExporter: Uint8Array | undefined;
  readonly deviceKeyName: Uint8Array;
}

const LABELS: Readonly<Record<BindingPurpose, Uint8Array>> = {
  quote: encodeUtf8("stile/1 quote"),
  certify: encodeUtf8("stile/1 certify"),
};

/** 32 bytes for extraData. Every part has a length in front, so that no two inputs collide. */
export function evidenceBinding(
  crypto: AttestCrypto,
  purpose: BindingPurpose,
  input: BindingInput,
): Uint8Array {
  const bytes = new Writer()
    .vec16(LABELS[purpose])
    .vec16(input.nonce)
    .vec16(input.tlsExporter ?? new Uint8Array())
    .vec16(input.deviceKeyName)
    .finish();
  return crypto.hash("sha256", bytes);
}
