/**
 * Which known agent signed a request (RFC 9421 §3.2; Web Bot Auth, draft-meunier-web-bot-auth-architecture).
 * In this order: both headers are well-formed; one signature names a known key, and the tag that its agent signs
 * with; it is by the key's algorithm; it covers what the agent's rule asks, the authority always; it is of now; it
 * verifies over what this request is. Whether it was used before is its caller's to find out.
 */
import { createHash } from "node:crypto";
import { StileError } from "../../../wire/index.ts";
import type { AgentKey } from "./keys.ts";
import { incomplete, signatureBase, type SignedRequest } from "./signature-base.ts";
import {
  type BareItem,
  type Dictionary,
  type InnerList,
  malformed,
  parseDictionary,
  parseItem,
  writeMember,
} from "./structured-fields.ts";

/** Who signs, and what a signature of theirs must be. */
export interface Agent {
  readonly name: string;
  /** Component names, besides `@authority`. */
  readonly components: readonly string[];
  readonly tag?: string | undefined;
  /** What its Signature-Agent must say, and cover. */
  readonly signatureAgent?: string | undefined;
  readonly requiresNonce: boolean;
  readonly maxAgeSeconds: number;
}

/** Good for one use, which is not checked here. */
export interface VerifiedSignature {
  readonly agent: Agent;
  /** SHA-256 of what no other signature of its has, so that it can be told again. */
  readonly key: Uint8Array;
}

export interface KnownKey {
  readonly agent: Agent;
  readonly key: AgentKey;
}

/** By each id of a key. */
export type KnownKeys = ReadonlyMap<string, KnownKey>;

/** Clocks differ by seconds. */
export const MAX_SKEW_SECONDS = 10;
const MAX_NONCE_CHARS = 256;
const WEB_BOT_AUTH = "web-bot-auth";

interface Candidate extends KnownKey {
  readonly label: string;
  readonly covered: InnerList;
}

/**
 * @param nowMs Unix milliseconds
 * @throws `SERVICE_SIGNATURE_MALFORMED`, `SERVICE_SIGNATURE_KEY_UNKNOWN`, `SERVICE_SIGNATURE_INCOMPLETE`,
 * `SERVICE_SIGNATURE_NOT_FRESH`, `SERVICE_SIGNATURE_INVALID`
 */
export function verifyAgent(
  request: SignedRequest,
  known: KnownKeys,
  nowMs: number,
): VerifiedSignature {
  const inputs = parseDictionary(request.lines("signature-input").join(", "));
  const signatures = parseDictionary(request.lines("signature").join(", "));
  const candidate = candidateOf(inputs, known);
  const { agent, covered, key, label } = candidate;
  const signature = bytesOf(signatures, label);
  const algorithm = text(covered, "alg");
  if (algorithm !== undefined && algorithm !== key.algorithm) {
    throw new StileError("SERVICE_SIGNATURE_INVALID", "message signature: by another algorithm");
  }
  checkCoverage(request, candidate);
  checkTime(candidate, nowMs / 1_000);
  const base = signatureBase(request, covered);
  if (!key.verify(Buffer.from(base, "latin1"), signature)) {
    throw new StileError("SERVICE_SIGNATURE_INVALID", "message signature: it does not verify");
  }
  return { agent, key: replayKey(candidate, base) };
}

/** One only, so that a request costs one verification at most. */
function candidateOf(inputs: Dictionary, known: KnownKeys): Candidate {
  for (const [label, covered] of inputs) {
    if (covered.kind !== "list") throw malformed("a Signature-Input that is no list");
    const found = known.get(text(covered, "keyid") ?? "");
    if (found === undefined) continue;
    const { tag } = found.agent;
    if (tag === undefined || tag === text(covered, "tag")) return { ...found, label, covered };
  }
  throw new StileError("SERVICE_SIGNATURE_KEY_UNKNOWN", "message signature: by no known key");
}

function bytesOf(signatures: Dictionary, label: string): Uint8Array {
  const signature = signatures.get(label);
  if (signature?.kind !== "item" || signature.bare.type !== "bytes") {
    throw malformed("a Signature that is missing or not bytes");
  }
  return signature.bare.value;
}

function checkCoverage(request: SignedRequest, { agent, covered }: Candidate): void {
  const identifiers = covered.items.map((item) => writeMember(item));
  for (const name of ["@authority", ...agent.components]) {
    if (!identifiers.includes(`"${name}"`)) throw incomplete("a required component is not covered");
  }
  const { signatureAgent } = agent;
  if (signatureAgent === undefined) return;
  const said = covered.items
    .filter(({ bare }) => bare.value === "signature-agent")
    .map(({ parameters }) => signatureAgentOf(request, parameters.get("key")));
  if (said.length === 0 || said.some((one) => one !== signatureAgent)) {
    throw incomplete("it does not cover the agent's Signature-Agent");
  }
}

/** A string, or as newer drafts have it a dictionary of them. */
function signatureAgentOf(request: SignedRequest, key: BareItem | undefined): string | undefined {
  const value = request.lines("signature-agent").join(", ");
  const member =
    key === undefined ? parseItem(value) : parseDictionary(value).get(String(key.value));
  return member?.kind === "item" && member.bare.type === "string" ? member.bare.value : undefined;
}

function checkTime({ agent, covered }: Candidate, now: number): void {
  const created = covered.parameters.get("created");
  const expires = covered.parameters.get("expires");
  const needsEnd = agent.tag === WEB_BOT_AUTH;
  if (created?.type !== "integer" || (needsEnd && expires === undefined)) {
    throw notFresh("it does not say its time");
  }
  if (created.value > now + MAX_SKEW_SECONDS) throw notFresh("it is of the future");
  if (created.value + agent.maxAgeSeconds < now) throw notFresh("it is too old");
  if (expires === undefined) return;
  // Without an allowance for skew: its signer has said how long it is good, and could say more.
  if (expires.type !== "integer" || expires.value <= created.value || expires.value <= now) {
    throw notFresh("it has expired");
  }
}

/**
 * The nonce where there is one; else what was signed, not the signature: of an ECDSA signature anybody can make
 * a second one.
 */
function replayKey({ agent, covered }: Candidate, base: string): Uint8Array {
  const nonce = text(covered, "nonce");
  if (nonce === undefined && agent.requiresNonce) throw incomplete("it has no nonce");
  if (nonce !== undefined && nonce.length > MAX_NONCE_CHARS)
    throw incomplete("its nonce is too long");
  const used = nonce === undefined ? `base\n${base}` : `nonce\n${text(covered, "keyid")}\n${nonce}`;
  return Uint8Array.from(createHash("sha256").update(used).digest());
}

/** A parameter that is a string. @throws `SERVICE_SIGNATURE_MALFORMED` where it is something else */
function text({ parameters }: InnerList, name: string): string | undefined {
  const found = parameters.get(name);
  if (found !== undefined && found.type !== "string")
    throw malformed(`a ${name} that is no string`);
  return found?.value;
}

function notFresh(what: string): StileError {
  return new StileError("SERVICE_SIGNATURE_NOT_FRESH", `message signature: ${what}`);
}
