/**
 * A worker thread of the signing pool: all that private keys do, off the event loop. Blind RSA signatures
 * (RFC 9474 §4.3), VOPRF evaluations with their proofs, and the tokens that only they verify (RFC 9497).
 * A class does not survive structured cloning, so errors cross as code and message.
 */
import { randomBytes } from "node:crypto";
import { parentPort, workerData } from "node:worker_threads";
import { hasPublicMetadata, isPrivateTokenType } from "../../tokens/index.ts";
import { rawRsaSignAll } from "../../tokens/node/index.ts";
import {
  createPartiallyBlindSigner,
  type PartiallyBlindSigner,
} from "../../tokens/partially-blind-rsa/index.ts";
import {
  createVoprfEngine,
  createVoprfEvaluator,
  type Voprf,
  type VoprfEvaluator,
  type VoprfTokenType,
} from "../../tokens/voprf/index.ts";
import { isStileError, StileError } from "../../wire/index.ts";
import type {
  SigningJob,
  SigningKey,
  SigningResult,
  WorkerReply,
  WorkerRequest,
  WorkerSettings,
} from "./messages.ts";

const port = parentPort;
if (port === null) throw new TypeError("this module is a worker thread of the signing pool");
const settings = workerData as WorkerSettings;
const keys = new Map<string, SigningKey>();
/** Of the private types; made at the first use of a key, since some keys only wait for their time. */
const evaluators = new Map<string, VoprfEvaluator>();
const engines = new Map<number, Voprf>();
/** Of type 0xDA7A; each remembers the keys that it derived. */
const partiallyBlind = new Map<string, PartiallyBlindSigner>();

port.on("message", (request: WorkerRequest) => {
  switch (request.kind) {
    case "add-key":
      keys.set(request.keyName, request);
      break;
    case "remove-key":
      keys.delete(request.keyName);
      evaluators.delete(request.keyName);
      partiallyBlind.delete(request.keyName);
      break;
    case "work":
      reply({ kind: "done", results: request.jobs.map(work) });
      break;
    case "end":
      port.close();
      break;
  }
});
reply({ kind: "ready" });

function work(job: SigningJob): SigningResult {
  try {
    const key = keys.get(job.keyName);
    if (key === undefined) {
      throw new StileError("TOKEN_KEY_UNKNOWN", "the key has been removed");
    }
    if (job.op === "sign") return { signature: sign(key, job) };
    const evaluator = evaluatorOf(key, job.keyName);
    return { isAuthentic: evaluator.verify(job.authenticatorInput, job.authenticator) };
  } catch (error) {
    if (isStileError(error)) return { code: error.code, message: error.message };
    return { message: error instanceof Error ? error.message : "unknown failure" };
  }
}

function sign(
  key: SigningKey,
  { blindedMessage, keyName, metadata }: Extract<SigningJob, { op: "sign" }>,
): Uint8Array {
  // Without metadata it would be a signature under another exponent of the same modulus: not an issuer's to give.
  if (hasPublicMetadata(key.tokenType) !== (metadata !== undefined)) {
    throw new StileError("TOKEN_REQUEST_INVALID", "metadata: expected as the token type has it");
  }
  if (metadata !== undefined) {
    return partiallyBlindSignerOf(key, keyName).sign(blindedMessage, metadata);
  }
  if (isPrivateTokenType(key.tokenType)) return evaluatorOf(key, keyName).issue(blindedMessage);
  return rawRsaSignAll(key.privateKey, blindedMessage);
}

function partiallyBlindSignerOf({ privateKey }: SigningKey, keyName: string): PartiallyBlindSigner {
  const signer = partiallyBlind.get(keyName) ?? createPartiallyBlindSigner(privateKey);
  partiallyBlind.set(keyName, signer);
  return signer;
}

function evaluatorOf({ tokenType, privateKey }: SigningKey, keyName: string): VoprfEvaluator {
  const known = evaluators.get(keyName);
  if (known !== undefined) return known;
  // the pool has let no other type in
  const type = tokenType as VoprfTokenType;
  const engine = engines.get(type) ?? createVoprfEngine(type, settings.voprfEngine);
  engines.set(type, engine);
  const evaluator = createVoprfEvaluator(engine, privateKey, randomBytes);
  evaluators.set(keyName, evaluator);
  return evaluator;
}

function reply(message: WorkerReply): void {
  port?.postMessage(message);
}
