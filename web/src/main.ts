/**
 * The interstitial: from a 401 to the page that a person asked for. Without the person where a token, or an
 * attestation that still holds, is at hand; else with one touch. One tab at a time does the work, and the
 * others find its tokens.
 */
import { attestByTouch, type Attested, isSupported, knownAttestation } from "./attest.ts";
import { Failure } from "./failure.ts";
import { fromBase64Url, redeem } from "./server.ts";
import { openPageStore, type PageStore } from "./store.ts";
import { digestOf, obtainTokens, type PageChallenge } from "./tokens.ts";
import { createView, type Texts, type View } from "./view.ts";

/** What the server puts into the page. */
interface PageData {
  readonly challenge: string;
  readonly tokenKey: string;
  readonly maxAgeSeconds: number;
  readonly expirationGrid?: PageChallenge["expirationGrid"];
  readonly batch: number;
  /** Of the request that was refused. */
  readonly method: string;
  readonly workerUrl: string;
  readonly texts: Texts;
}

const LOCK = "stile";
/** Tokens that may turn out spent or outdated before a new batch is asked for. */
const MAX_TRIES = 5;
/** Who is back here so soon after being let in does not keep the cookie. */
const RETURN_MS = 10_000;
const ENTERED = "stile-entered";

const data = JSON.parse(document.getElementById("stile")?.textContent ?? "{}") as PageData;
const asked: PageChallenge = {
  challenge: fromBase64Url(data.challenge),
  tokenKey: fromBase64Url(data.tokenKey),
  maxAgeSeconds: data.maxAgeSeconds,
  expirationGrid: data.expirationGrid,
};
const view: View = createView(data.texts, {
  onContinue: () => void run(onContinue),
  onForget: () => void run(forget),
});
let store: PageStore | undefined;
let next: "touch" | "start" | "back" = "start";

async function onContinue(): Promise<void> {
  if (next === "back") return history.back();
  return next === "touch" ? enterByTouch() : enterQuietly();
}

/** Tokens and device key; the next visit begins as the first did. */
async function forget(): Promise<void> {
  store ??= await openPageStore();
  const here = store;
  await exclusive(() => here.clear());
  sessionStorage.removeItem(ENTERED);
  return enterQuietly();
}

/** With what is at hand; where that does not do, the person is asked. */
async function enterQuietly(): Promise<void> {
  view.show({ kind: "working", step: "starting" });
  if (!isSupported()) throw new Failure("unsupported");
  store ??= await openPageStore();
  if (await redeemStored(store)) return entered();
  const attested = await knownAttestation(store);
  const isIn = attested !== undefined && (await exclusive(() => enterWith(attested)));
  if (isIn) return entered();
  next = "touch";
  view.show({ kind: "ready" });
}

async function enterByTouch(): Promise<void> {
  store ??= await openPageStore();
  const here = store;
  const isIn = await exclusive(async () => {
    // Another tab may have done it while this one waited.
    if (await redeemStored(here)) return true;
    view.show({ kind: "working", step: "touching" });
    return enterWith(await attestByTouch(here));
  });
  if (isIn) return entered();
  throw new Failure("busy");
}

async function enterWith(attested: Attested): Promise<boolean> {
  const here = store ?? (await openPageStore());
  view.show({ kind: "working", step: "making" });
  try {
    await obtainTokens(here, attested, asked, data.batch, data.workerUrl);
  } catch (error) {
    if (!(error instanceof Failure) || error.kind !== "refused") throw error;
    // The result is of no use any more: the next try begins with a touch.
    await here.putDevice({ ...attested.device, result: undefined });
    return false;
  }
  return redeemStored(here);
}

async function redeemStored(here: PageStore): Promise<boolean> {
  const digest = await digestOf(asked.challenge);
  for (let i = 0; i < MAX_TRIES; i += 1) {
    const token = await here.takeToken(digest, Date.now());
    if (token === undefined) return false;
    view.show({ kind: "working", step: "entering" });
    if (await redeem(token)) return true;
  }
  return false;
}

function entered(): void {
  const before = Number(sessionStorage.getItem(ENTERED) ?? "0");
  if (Date.now() - before < RETURN_MS) throw new Failure("cookies");
  sessionStorage.setItem(ENTERED, String(Date.now()));
  if (data.method === "GET" || data.method === "HEAD") {
    // Not by its address: one with a fragment would only scroll.
    location.reload();
    return;
  }
  // Behind this page is the form, with what was typed.
  next = "back";
  view.show({ kind: "resend" });
}

/** One tab at a time. */
function exclusive<T>(work: () => Promise<T>): Promise<T> {
  return navigator.locks.request(LOCK, work);
}

async function run(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    const failure = error instanceof Failure ? error : new Failure("busy");
    const { kind, retryAfterSeconds } = failure;
    next = kind === "cancelled" ? "touch" : "start";
    const retryAt =
      retryAfterSeconds === undefined
        ? undefined
        : new Date(Date.now() + retryAfterSeconds * 1_000);
    view.show({ kind: "failed", why: kind, retryAt });
  }
}

void run(enterQuietly);
