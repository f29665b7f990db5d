/** A batch of blind tokens, from the worker over the issuer and back, into the store. */
import { type Attested, dpopProof } from "./attest.ts";
import { Failure, failureOf } from "./failure.ts";
import { ask, endpoint } from "./server.ts";
import type { ExpirationGrid } from "../../tokens/client/browser.ts";
import type { PageStore } from "./store.ts";
import type { WorkerAnswer, WorkerRequest } from "./worker.ts";

export interface PageChallenge {
  readonly challenge: Uint8Array<ArrayBuffer>;
  readonly tokenKey: Uint8Array<ArrayBuffer>;
  readonly maxAgeSeconds: number;
  /** Of a type whose tokens carry an expiration. */
  readonly expirationGrid?: ExpirationGrid | undefined;
}

const PATH = "/token-request";

/** @param workerUrl of this origin. @throws Failure */
export async function obtainTokens(
  store: PageStore,
  attested: Attested,
  asked: PageChallenge,
  count: number,
  workerUrl: string,
): Promise<void> {
  const worker = startWorker(workerUrl);
  // No batch holds requests for tokens with an expiration.
  const isSingle = asked.expirationGrid !== undefined;
  try {
    if (!isSingle) return await obtain(store, attested, asked, count, worker);
    for (let i = 0; i < count; i += 1) {
      try {
        await obtain(store, attested, asked, 1, worker);
      } catch (error) {
        // Fewer than asked for do: an allowance that ends on the way.
        if (i === 0 || !(error instanceof Failure)) throw error;
        return;
      }
    }
  } finally {
    worker.terminate();
  }
}

/** One request and what it gives. @throws Failure */
async function obtain(
  store: PageStore,
  attested: Attested,
  asked: PageChallenge,
  count: number,
  worker: Worker,
): Promise<void> {
  const { challenge, expirationGrid, tokenKey } = asked;
  const blinded = await work(worker, {
    step: "blind",
    challenge,
    tokenKey,
    count,
    expirationGrid,
  });
  if (blinded.step !== "blinded") throw new Failure("busy");
  const request = async (nonce?: string): Promise<Response> =>
    ask(PATH, {
      method: "POST",
      headers: {
        authorization: `DPoP ${attested.jwt}`,
        dpop: await dpopProof(attested, PATH, nonce),
        "content-type": blinded.mediaType,
        accept: blinded.accept,
      },
      body: Uint8Array.from(blinded.body),
    });
  const first = await request();
  const nonce = first.status === 401 ? first.headers.get("dpop-nonce") : null;
  const answer = nonce === null ? first : await request(nonce);
  if (!answer.ok) throw await failureOf(answer);
  const finished = await work(worker, {
    step: "finalize",
    status: answer.status,
    mediaType: (answer.headers.get("content-type") ?? "").split(";")[0]?.trim() ?? "",
    body: new Uint8Array(await answer.arrayBuffer()),
  });
  if (finished.step !== "tokens") throw new Failure("busy");
  const challengeDigest = await digestOf(challenge);
  const { metadata, tokens } = finished;
  const maxAgeMs = Date.now() + asked.maxAgeSeconds * 1_000;
  const expiresAtMs = Math.min(maxAgeMs, metadata?.endsAtMs ?? maxAgeMs);
  const extensions = metadata?.extensions;
  await store.putTokens(
    tokens.map((token) => ({ challengeDigest, token, extensions, expiresAtMs })),
  );
}

/** A browser runs workers of the page's own origin only; one that imports is of it. */
function startWorker(path: string): Worker {
  const url = policy.createScriptURL(path);
  if (endpoint.origin === location.origin) return new Worker(url, { type: "module" });
  const text = `import ${JSON.stringify(endpoint.origin + url)};`;
  const blob = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  try {
    return new Worker(blob, { type: "module" });
  } finally {
    URL.revokeObjectURL(blob);
  }
}

/** SHA-256, hexadecimal. */
export async function digestOf(challenge: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", challenge));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function work(worker: Worker, request: WorkerRequest): Promise<WorkerAnswer> {
  return new Promise((resolve, reject) => {
    worker.onmessage = (event: MessageEvent<WorkerAnswer>) => resolve(event.data);
    worker.onerror = () => reject(new Failure("busy"));
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a worker has no target origin
    worker.postMessage(request);
  });
}

/** The part of the Trusted Types API that is used; not in TypeScript's DOM library. */
interface ScriptPolicy {
  readonly createScriptURL: (text: string) => string;
}
interface TrustedTypesFactory {
  readonly createPolicy: (name: string, rules: ScriptPolicy) => ScriptPolicy;
}

const rules: ScriptPolicy = {
  createScriptURL: (text) => {
    if (!/^\/\.stile\/web\/[a-z]+-[A-Z0-9]+\.js$/.test(text)) throw new TypeError("not ours");
    return text;
  },
};
/** The one URL that a page may run, of our folder. A policy can be made only once, and where a page allows it. */
const policy: ScriptPolicy = createPolicy();

function createPolicy(): ScriptPolicy {
  const { trustedTypes } = globalThis as { trustedTypes?: TrustedTypesFactory };
  try {
    return trustedTypes?.createPolicy("stile", rules) ?? rules;
  } catch {
    return rules;
  }
}
