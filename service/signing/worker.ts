/**
 * A worker thread of the signing pool: blind RSA signatures (RFC 9474 §4.3) off the event loop.
 * A class does not survive structured cloning, so errors cross as code and message.
 */
import type { KeyObject } from "node:crypto";
import { parentPort } from "node:worker_threads";
import { rawRsaSign } from "../../tokens/node/index.ts";
import { isStileError, StileError } from "../../wire/index.ts";
import type { SignJob, SignResult, WorkerReply, WorkerRequest } from "./messages.ts";

const port = parentPort;
if (port === null) throw new TypeError("this module is a worker thread of the signing pool");
const keys = new Map<string, KeyObject>();

port.on("message", (request: WorkerRequest) => {
  switch (request.kind) {
    case "add-key":
      keys.set(request.keyName, request.privateKey);
      break;
    case "remove-key":
      keys.delete(request.keyName);
      break;
    case "sign":
      reply({ kind: "signed", results: request.jobs.map(sign) });
      break;
  }
});
reply({ kind: "ready" });

function sign({ keyName, blindedMessage }: SignJob): SignResult {
  try {
    const privateKey = keys.get(keyName);
    if (privateKey === undefined) {
      throw new StileError("TOKEN_KEY_UNKNOWN", "the key has been removed");
    }
    return { signature: rawRsaSign(privateKey, blindedMessage) };
  } catch (error) {
    if (isStileError(error)) return { code: error.code, message: error.message };
    return { message: error instanceof Error ? error.message : "unknown failure" };
  }
}

function reply(message: WorkerReply): void {
  port?.postMessage(message);
}
