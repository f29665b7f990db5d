/** Blinds and unblinds tokens off the page's thread: half a second of big numbers for a batch. */
import { createTokenClient, type PendingIssuance } from "../../tokens/client/browser.ts";

export type WorkerRequest =
  | {
      readonly step: "blind";
      readonly challenge: Uint8Array;
      readonly tokenKey: Uint8Array;
      readonly count: number;
    }
  | {
      readonly step: "finalize";
      readonly status: number;
      readonly mediaType: string;
      readonly body: Uint8Array;
    };

export type WorkerAnswer =
  | {
      readonly step: "blinded";
      readonly mediaType: string;
      readonly accept: string;
      readonly body: Uint8Array;
    }
  | { readonly step: "tokens"; readonly tokens: readonly Uint8Array[] }
  | { readonly step: "failed" };

let pending: PendingIssuance | undefined;

addEventListener("message", (event: MessageEvent<WorkerRequest>) => {
  answer(event.data).then(
    (given) => postMessage(given),
    () => postMessage({ step: "failed" } satisfies WorkerAnswer),
  );
});

async function answer(request: WorkerRequest): Promise<WorkerAnswer> {
  if (request.step === "blind") {
    pending = await createTokenClient().request(request);
    const { accept, body, mediaType } = pending;
    return { step: "blinded", mediaType, accept, body };
  }
  if (pending === undefined) return { step: "failed" };
  return { step: "tokens", tokens: await pending.finalize(request) };
}
