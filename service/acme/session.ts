/**
 * Requests to an ACME server (RFC 8555 §6): JWS in flattened JSON, signed by the account's key, each with a nonce of
 * the server's. Only the origin of the configured directory is asked, over verified TLS; redirects are not
 * followed. Whatever comes back is hostile.
 */
import { Agent } from "node:https";
import { FlattenedSign, type JWK } from "jose";
import { encodeUtf8 } from "../../wire/index.ts";
import { exchange, type ExchangeAnswer } from "../agent/exchange.ts";
import type { Es256Key } from "../secrets.ts";
import { jsonOf, memberOf, problemWord, refusalOf, unavailable } from "./problem.ts";

export interface AcmeSessionOptions {
  readonly directoryUrl: string;
  /** PEM; without it, the system's. */
  readonly ca?: string | undefined;
  readonly accountKey: Es256Key;
  /** Unix milliseconds, for Retry-After. */
  readonly clock: () => number;
  /** Ends what is under way. */
  readonly signal: AbortSignal;
}

export interface AcmeSession {
  /** A URL of the directory (§7.1.1), such as `newOrder`. @throws `SERVICE_ACME_UNAVAILABLE` */
  readonly resource: (name: string) => Promise<string>;
  /** The same of what a server need not have: undefined where it has it not. */
  readonly find: (name: string) => Promise<string | undefined>;
  /** What is public. @throws `SERVICE_ACME_UNAVAILABLE`, `SERVICE_ACME_REFUSED` */
  readonly get: (url: string) => Promise<ExchangeAnswer>;
  /**
   * A signed POST; without a payload POST-as-GET (§6.3). An answer of success, hostile in every part.
   * @param as of the account's URL, or of its bare key where there is no account yet (§6.2)
   * @throws `SERVICE_ACME_UNAVAILABLE`, `SERVICE_ACME_REFUSED`
   */
  readonly post: (url: string, as: Signer, payload?: object) => Promise<ExchangeAnswer>;
  /** A URL that an answer names, if it is of the same server. @throws `SERVICE_ACME_UNAVAILABLE` */
  readonly urlIn: (value: unknown) => string;
  readonly close: () => void;
}

export type Signer = { readonly kid: string } | { readonly jwk: JWK };

/** A server may refuse good nonces (§6.5); each refusal brings a new one. */
const MAX_NONCE_TRIES = 10;
const NONCE = /^[A-Za-z0-9_-]{1,512}$/;
const TIMEOUT_MS = 30_000;
/** Servers of others may not speak TLS 1.3 yet. */
const MIN_VERSION = "TLSv1.2";

type Ask = (method: "GET" | "HEAD" | "POST", url: string, body?: object) => Promise<ExchangeAnswer>;

export function createAcmeSession(options: AcmeSessionOptions): AcmeSession {
  const { accountKey, clock, directoryUrl } = options;
  const { origin } = new URL(directoryUrl);
  const agent = new Agent({
    keepAlive: true,
    maxSockets: 2,
    minVersion: MIN_VERSION,
    ...(options.ca === undefined ? {} : { ca: options.ca }),
  });
  const nonces: string[] = [];
  const ask = asker(agent, options.signal, (nonce) => nonces.push(nonce));
  let directory: unknown;

  function urlIn(value: unknown): string {
    const url = typeof value === "string" ? URL.parse(value) : null;
    if (url?.origin !== origin) throw unavailable("it names a URL that is not its own");
    return url.href;
  }

  async function get(url: string): Promise<ExchangeAnswer> {
    const answer = await ask("GET", url);
    if (answer.status !== 200) throw refusalOf(answer, clock());
    return answer;
  }

  async function find(name: string): Promise<string | undefined> {
    directory ??= jsonOf((await get(directoryUrl)).body);
    const url = memberOf(directory, name);
    return url === undefined ? undefined : urlIn(url);
  }

  async function resource(name: string): Promise<string> {
    return (await find(name)) ?? urlIn(undefined);
  }

  async function takeNonce(): Promise<string> {
    if (nonces.length === 0) await ask("HEAD", await resource("newNonce"));
    const nonce = nonces.pop();
    if (nonce === undefined) throw unavailable("it gives no nonce");
    return nonce;
  }

  async function post(url: string, as: Signer, payload?: object): Promise<ExchangeAnswer> {
    const content = encodeUtf8(payload === undefined ? "" : JSON.stringify(payload));
    for (let tries = 1; ; tries += 1) {
      const jws = await new FlattenedSign(content)
        .setProtectedHeader({ alg: "ES256", nonce: await takeNonce(), url, ...as })
        .sign(accountKey.privateKey);
      const answer = await ask("POST", url, jws);
      if (answer.status >= 200 && answer.status < 300) return answer;
      const isBadNonce = problemWord(jsonOf(answer.body)) === "badNonce";
      if (!isBadNonce || tries === MAX_NONCE_TRIES) throw refusalOf(answer, clock());
    }
  }

  return { resource, find, get, post, urlIn, close: () => agent.destroy() };
}

/** One request; any answer that comes may bring a nonce for the next one (§6.5.1). */
function asker(agent: Agent, signal: AbortSignal, onNonce: (nonce: string) => void): Ask {
  return async (method, url, body) => {
    const headers: Record<string, string> = { "user-agent": "stile" };
    const bytes = body && encodeUtf8(JSON.stringify(body));
    if (bytes !== undefined) {
      headers["content-type"] = "application/jose+json";
      headers["content-length"] = String(bytes.length);
    }
    const answer = await exchange({
      url,
      method,
      headers,
      agent,
      signal,
      timeoutMs: TIMEOUT_MS,
      minVersion: MIN_VERSION,
      ...(bytes === undefined ? {} : { body: bytes }),
    }).catch((cause: unknown) => {
      throw unavailable("it cannot be reached", { cause });
    });
    const nonce = answer.headers["replay-nonce"];
    if (typeof nonce === "string" && NONCE.test(nonce)) onNonce(nonce);
    return answer;
  };
}
