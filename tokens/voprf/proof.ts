/**
 * The proof that one key evaluated all elements, RFC 9497 §2.2: a Chaum-Pedersen proof over one
 * combination of them, made non-interactive. Its size does not grow with the batch.
 */
import { concatBytes, constantTimeEqual, encodeUtf8, Writer } from "../../wire/index.ts";
import type { VoprfDomain } from "./domain.ts";
import type { VoprfCiphersuite, VoprfGroup } from "./group.ts";

/** What a proof is about; all of it is public, and every element has passed `isElement`. */
export interface ProofStatement {
  readonly publicKey: Uint8Array;
  readonly blinded: readonly Uint8Array[];
  /** As many as `blinded`. */
  readonly evaluated: readonly Uint8Array[];
}

/** GenerateProof with ComputeCompositesFast: c and s, Ns bytes each. */
export function generateProof(
  group: VoprfGroup,
  domain: VoprfDomain,
  statement: ProofStatement,
  secret: { readonly key: Uint8Array; readonly nonce: Uint8Array },
): Uint8Array<ArrayBuffer> {
  const { key, nonce } = secret;
  const { publicKey, blinded } = statement;
  // the weights are public, and so is their sum: the fast combination may be used
  const M = group.combine(weightsOf(domain, statement), blinded);
  const Z = group.multiply(key, M);
  // t2 = r * A, t3 = r * M
  const t2 = group.multiplyBase(nonce);
  const t3 = group.multiply(nonce, M);
  const c = challengeOf(domain, [publicKey, M, Z, t2, t3]);
  // s = r - c * k
  return concatBytes([c, group.respond(nonce, c, key)]);
}

/** VerifyProof. `proof` is hostile. */
export function verifyProof(
  suite: VoprfCiphersuite,
  group: VoprfGroup,
  domain: VoprfDomain,
  statement: ProofStatement,
  proof: Uint8Array,
): boolean {
  const c = proof.subarray(0, suite.Ns);
  const s = proof.subarray(suite.Ns);
  if (!group.isScalar(c) || !group.isScalar(s)) return false;
  const { publicKey, blinded, evaluated } = statement;
  const weights = weightsOf(domain, statement);
  const M = group.combine(weights, blinded);
  const Z = group.combine(weights, evaluated);
  // t2 = s * A + c * B, t3 = s * M + c * Z
  const t2 = group.combine([scalarOne(suite), c], [group.multiplyBase(s), publicKey]);
  const t3 = group.combine([s, c], [M, Z]);
  return constantTimeEqual(challengeOf(domain, [publicKey, M, Z, t2, t3]), c);
}

/** The d_i of ComputeComposites. */
function weightsOf(domain: VoprfDomain, statement: ProofStatement): readonly Uint8Array[] {
  const { publicKey, blinded, evaluated } = statement;
  const seed = domain.hash(new Writer().vec16(publicKey).vec16(domain.seedDst).finish());
  return blinded.map((element, i) => {
    const transcript = new Writer().vec16(seed).u16(i).vec16(element);
    transcript.vec16(evaluated[i] ?? new Uint8Array()).bytes(encodeUtf8("Composite"));
    return domain.hashToScalar(transcript.finish());
  });
}

function challengeOf(domain: VoprfDomain, elements: readonly Uint8Array[]): Uint8Array {
  const transcript = new Writer();
  elements.forEach((element) => transcript.vec16(element));
  return domain.hashToScalar(transcript.bytes(encodeUtf8("Challenge")).finish());
}

/** The scalar 1 in the byte order of the suite. */
function scalarOne(suite: VoprfCiphersuite): Uint8Array {
  const one = new Uint8Array(suite.Ns);
  one[suite.identifier === "P384-SHA384" ? suite.Ns - 1 : 0] = 1;
  return one;
}
