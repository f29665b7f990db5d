/**
 * For single-page applications and their APIs: `/.stile/client.js`, also `stile/client`. A fetch that gets a 401
 * with a PrivateToken challenge is answered with a token and sent again. Without the person where a token, or an
 * attestation that holds, is at hand; else the 401 is handed on, and `enter`, called in a click, asks for a touch.
 */
import {
  createClientMetadata,
  DEFAULT_EXPIRATION_GRID,
  type ExpirationGrid,
  parseWwwAuthenticate,
} from "../../tokens/client/browser.ts";
import { attestByTouch, isSupported, knownAttestation } from "./attest.ts";
import { Failure, type FailureKind } from "./failure.ts";
import { endpoint, tokenAuthorization } from "./server.ts";
import { openPageStore, type PageStore, type StoredToken } from "./store.ts";
import { digestOf, obtainTokens, type PageChallenge } from "./tokens.ts";

export { Failure, type FailureKind };

export interface StileClientOptions {
  /** Origin of the API, where it is not the page's own. It has to list the page in `edge.cors.origins`. */
  readonly origin?: string;
  /** Tokens that are asked for at a time, 1 to 100. Default 10. */
  readonly batch?: number;
  /**
   * Of tokens with an expiration: `issuer.publicMetadata` of the API's operator, the same in every page. Default a
   * day and two.
   */
  readonly expirationGrid?: ExpirationGrid;
  /** Path of the worker's script, `/.stile/web/worker-….js`. Known to `/.stile/client.js` by itself. */
  readonly workerUrl?: string;
}

export interface StileClient {
  /** As `fetch`; a request whose body is a stream is not sent again. */
  readonly fetch: typeof fetch;
  /**
   * Asks the person for a touch, for what the last 401 asked. To be called in the handler of a click.
   * @throws Failure
   */
  readonly enter: () => Promise<void>;
  /** Tokens of the last challenge that are left. */
  readonly count: () => Promise<number>;
  /** Forgets all tokens and the device key of this site. */
  readonly clear: () => Promise<void>;
}

/** Set where this is built for `/.stile/client.js`: the worker has a digest in its name. */
declare const STILE_WORKER_URL: string | undefined;

const TYPE_BLIND_RSA = 0x0002;
const TYPE_PARTIALLY_BLIND_RSA = 0xda7a;
const DEFAULT_BATCH = 10;
/** Below so many, a new batch is fetched while the application goes on. */
const RENEW_BELOW = 3;
const LOCK = "stile";

export function createStileClient(options: StileClientOptions = {}): StileClient {
  const { batch = DEFAULT_BATCH, origin = location.origin } = options;
  const built = typeof STILE_WORKER_URL === "string" ? STILE_WORKER_URL : undefined;
  endpoint.origin = origin;
  const source = createTokenSource(batch, options.workerUrl ?? built ?? missing("workerUrl"));
  const grid = options.expirationGrid ?? DEFAULT_EXPIRATION_GRID;
  const metadata = createClientMetadata({ ...grid, clock: Date.now });
  let asked: PageChallenge | undefined;
  return {
    fetch: async (input, init) => {
      const request = new Request(input, init);
      const again = init?.body instanceof ReadableStream ? undefined : request.clone();
      const answer = await fetch(request);
      const challenge = challengeIn(answer, grid, metadata);
      if (challenge === undefined) return answer;
      asked = challenge;
      const token = again === undefined ? undefined : await source.take(challenge);
      if (token === undefined || again === undefined) return answer;
      again.headers.set("authorization", tokenAuthorization(token));
      return fetch(again);
    },
    enter: async () => {
      if (asked === undefined) throw new Failure("refused");
      await source.enter(asked);
    },
    count: async () => (asked === undefined ? 0 : source.count(asked)),
    clear: () => source.clear(),
  };
}

interface TokenSource {
  /** From the store, else with an attestation that holds; undefined where a touch is needed. */
  readonly take: (challenge: PageChallenge) => Promise<StoredToken | undefined>;
  /** By a touch. @throws Failure */
  readonly enter: (challenge: PageChallenge) => Promise<void>;
  readonly count: (challenge: PageChallenge) => Promise<number>;
  readonly clear: () => Promise<void>;
}

function createTokenSource(batch: number, workerUrl: string): TokenSource {
  let opened: Promise<PageStore> | undefined;
  const store = (): Promise<PageStore> => (opened ??= openPageStore());
  const exclusive = <T>(work: () => Promise<T>): Promise<T> => navigator.locks.request(LOCK, work);
  const count = async ({ challenge }: PageChallenge): Promise<number> =>
    (await store()).countTokens(await digestOf(challenge));
  const stored = async ({ challenge }: PageChallenge): Promise<StoredToken | undefined> =>
    (await store()).takeToken(await digestOf(challenge), Date.now());

  async function obtain(challenge: PageChallenge): Promise<boolean> {
    const here = await store();
    const attested = isSupported() ? await knownAttestation(here) : undefined;
    if (attested === undefined) return false;
    await obtainTokens(here, attested, challenge, batch, workerUrl);
    return true;
  }

  async function renew(challenge: PageChallenge): Promise<void> {
    const isLow = async (): Promise<boolean> => (await count(challenge)) < RENEW_BELOW;
    if (!(await isLow())) return;
    // Looked at again with the lock in hand: many requests at once renew once.
    await exclusive(async () => (await isLow()) && obtain(challenge));
  }

  return {
    take: async (challenge) => {
      const token =
        (await stored(challenge)) ??
        // Another tab may have fetched some while this one waited.
        (await exclusive(
          async () =>
            (await stored(challenge)) ??
            ((await obtain(challenge)) ? stored(challenge) : undefined),
        ));
      // Ahead of need, and of no concern to the request at hand.
      if (token !== undefined) void renew(challenge).catch(() => undefined);
      return token;
    },
    enter: async (challenge) => {
      const here = await store();
      await exclusive(async () =>
        obtainTokens(here, await attestByTouch(here), challenge, batch, workerUrl),
      );
    },
    count,
    // With the lock, so that no batch under way comes in afterwards.
    clear: () => exclusive(async () => (await store()).clear()),
  };
}

/** What a 401 asks for first, of what can be answered here. */
function challengeIn(
  answer: Response,
  grid: ExpirationGrid,
  metadata: ReturnType<typeof createClientMetadata>,
): PageChallenge | undefined {
  const header = answer.status === 401 ? answer.headers.get("www-authenticate") : null;
  if (header === null) return undefined;
  for (const received of challengesIn(header)) {
    const { challenge, maxAgeSeconds = 0, tokenChallenge, tokenKey } = received;
    const hasExpiration = tokenChallenge.tokenType === TYPE_PARTIALLY_BLIND_RSA;
    if (tokenKey === undefined) continue;
    if (!hasExpiration && tokenChallenge.tokenType !== TYPE_BLIND_RSA) continue;
    if (hasExpiration && !isShared(metadata, received)) continue;
    return {
      challenge: Uint8Array.from(challenge),
      tokenKey: Uint8Array.from(tokenKey),
      maxAgeSeconds,
      expirationGrid: hasExpiration ? grid : undefined,
    };
  }
  return undefined;
}

type Received = ReturnType<typeof parseWwwAuthenticate>[number];

function challengesIn(header: string): readonly Received[] {
  try {
    return parseWwwAuthenticate(header);
  } catch {
    return [];
  }
}

/** False where the challenge wants metadata that would tell this client from others. */
function isShared(metadata: ReturnType<typeof createClientMetadata>, received: Received): boolean {
  try {
    metadata.extensionsFor(received);
    return true;
  } catch {
    return false;
  }
}

function missing(option: string): never {
  throw new TypeError(`${option}: expected`);
}
