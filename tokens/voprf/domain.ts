/** The hashes of a VOPRF ciphersuite in mode 0x01 with their domain separation, RFC 9497 §3.1, §4. */
import { createHash } from "node:crypto";
import { encodeUtf8 } from "../../wire/index.ts";
import { expandMessageXmd } from "./expand-message.ts";
import type { VoprfCiphersuite, VoprfGroup } from "./group.ts";

/** modeVOPRF */
const MODE = 0x01;

export interface VoprfDomain {
  hash(input: Uint8Array): Uint8Array<ArrayBuffer>;
  hashToScalar(input: Uint8Array): Uint8Array<ArrayBuffer>;
  /** As `hashToScalar` in the domain of DeriveKeyPair; `input` is secret. */
  deriveScalar(input: Uint8Array): Uint8Array<ArrayBuffer>;
  /** @throws RangeError for an input that maps to the identity: nobody knows one */
  hashToGroup(input: Uint8Array): Uint8Array<ArrayBuffer>;
  /** Seed- and the context string, for the weights of a proof. */
  readonly seedDst: Uint8Array;
}

export function createVoprfDomain(suite: VoprfCiphersuite, group: VoprfGroup): VoprfDomain {
  // contextString = "OPRFV1-" || I2OSP(mode, 1) || "-" || identifier
  const context = `OPRFV1-${String.fromCharCode(MODE)}-${suite.identifier}`;
  const dst = (label: string): Uint8Array => encodeUtf8(`${label}${context}`);
  const scalarIn =
    (domain: Uint8Array) =>
    (input: Uint8Array): Uint8Array<ArrayBuffer> => {
      const uniform = expandMessageXmd(suite, input, domain, suite.uniformLength);
      const scalar = group.reduce(uniform);
      uniform.fill(0);
      return scalar;
    };
  const groupDst = dst("HashToGroup-");
  return {
    hash: (input) => Uint8Array.from(createHash(suite.hash).update(input).digest()),
    hashToScalar: scalarIn(dst("HashToScalar-")),
    deriveScalar: scalarIn(dst("DeriveKeyPair")),
    hashToGroup(input) {
      const element = group.hashToGroup(input, groupDst);
      if (!group.isElement(element)) throw new RangeError("the input maps to the identity");
      return element;
    },
    seedDst: dst("Seed-"),
  };
}
