/** Blinds and unblinds tokens off the page's thread: half a second of big numbers for a batch. */
import {
  createClientMetadata,
  createTokenClient,
  type ExpirationGrid,
  expirationMsOf,
  type PendingIssuance,
} from "../../tokens/client/browser.ts";

export type WorkerRequest =
  | {
      readonly step: "blind";
      readonly challenge: Uint8Array;
      readonly tokenKey: Uint8Array;
      /** With a grid, 1. */
      readonly count: number;
      /** Of a type whose tokens carry an expiration. */
      readonly expirationGrid?: ExpirationGrid | undefined;
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
  | {
      readonly step: "tokens";
      readonly tokens: readonly Uint8Array[];
      /** What goes with each of them when it is redeemed, and when it expires by that: Unix milliseconds. */
      readonly metadata?:
        | { readonly extensions: Uint8Array; readonly endsAtMs: number }
        | undefined;
    }
  | { readonly step: "failed" };

let pending: PendingIssuance | undefined;
let extensions: Uint8Array | undefined;

addEventListener("message", (event: MessageEvent<WorkerRequest>) => {
  answer(event.data).then(
    (given) => postMessage(given),
    () => postMessage({ step: "failed" } satisfies WorkerAnswer),
  );
});

async function answer(request: WorkerRequest): Promise<WorkerAnswer> {
  if (request.step === "blind") {
    const { challenge, count, expirationGrid, tokenKey } = request;
    extensions =
      expirationGrid === undefined
        ? undefined
        : createClientMetadata({ ...expirationGrid, clock: Date.now }).extensionsFor({});
    const metadata = extensions === undefined ? {} : { extensions };
    pending = await createTokenClient().request({ challenge, count, tokenKey, ...metadata });
    const { accept, body, mediaType } = pending;
    return { step: "blinded", mediaType, accept, body };
  }
  if (pending === undefined) return { step: "failed" };
  const tokens = await pending.finalize(request);
  const metadata = extensions && { extensions, endsAtMs: expirationMsOf(extensions) };
  return { step: "tokens", tokens, metadata };
}
