/**
 * One order (RFC 8555 §7.1.3, §7.4): names are proved one after the other, the request for the certificate is handed
 * in, and the chain is fetched. States are polled a bounded number of times.
 */
import type { ExchangeAnswer } from "../agent/exchange.ts";
import type { AcmeCertificateConfig, AcmeChallengeType } from "../config/index.ts";
import { StileError } from "../../wire/index.ts";
import type { AcmeAccount } from "./account.ts";
import type { PendingChallenges } from "./challenges.ts";
import { newCertificationRequest } from "./csr.ts";
import { type IssuedCertificate, verifyIssued } from "./issued.ts";
import { RENEWAL_INFO } from "./renewal-info.ts";
import { jsonOf, memberOf, problemWord, retryAfterSeconds, unavailable } from "./problem.ts";

export interface OrderOptions extends AcmeCertificateConfig {
  readonly account: AcmeAccount;
  readonly challengeType: AcmeChallengeType;
  readonly pending: PendingChallenges;
  /** {@link certificateId} of the one that this one is for, told to servers that ask for it (RFC 9773 §5). */
  readonly replaces?: string | undefined;
  /** Unix milliseconds. */
  readonly clock: () => number;
  /** Rejects where the service stops. */
  readonly wait: (ms: number) => Promise<void>;
}

/** base64url, and long enough not to be guessed (§8.3). */
const TOKEN = /^[A-Za-z0-9_-]{22,256}$/;
const MAX_POLLS = 30;
const FIRST_POLL_MS = 250;
const MAX_POLL_MS = 10_000;
const MAX_ASKED_POLL_MS = 60_000;

/**
 * @throws `SERVICE_ACME_UNAVAILABLE`, `SERVICE_ACME_REFUSED`, `SERVICE_ACME_CHALLENGE_FAILED`,
 * `SERVICE_ACME_CERTIFICATE_INVALID`
 */
export async function orderCertificate(options: OrderOptions): Promise<IssuedCertificate> {
  const { account, keyType, names } = options;
  const { kid, session } = account;
  const identifiers = names.map((value) => ({ type: "dns", value }));
  const made = await session.post(
    await session.resource("newOrder"),
    { kid },
    { identifiers, ...(await replacement(options)) },
  );
  const orderUrl = session.urlIn(made.headers.location);
  const order = jsonOf(made.body);
  for (const url of urlsIn(memberOf(order, "authorizations"), names.length)) {
    await authorize(options, session.urlIn(url));
  }
  const ready = await poll(options, orderUrl, ["pending"]);
  if (statusOf(ready) !== "ready") throw orderFailed(ready);
  const { csr, key } = await newCertificationRequest(names, keyType);
  await session.post(
    session.urlIn(memberOf(ready, "finalize")),
    { kid },
    { csr: Buffer.from(csr).toString("base64url") },
  );
  const issued = await poll(options, orderUrl, ["ready", "processing"]);
  if (statusOf(issued) !== "valid") throw orderFailed(issued);
  const { body } = await session.post(session.urlIn(memberOf(issued, "certificate")), { kid });
  return verifyIssued(body, key, names, options.clock());
}

async function replacement({
  account,
  replaces,
}: OrderOptions): Promise<{ readonly replaces?: string }> {
  if (replaces === undefined) return {};
  return (await account.session.find(RENEWAL_INFO)) === undefined ? {} : { replaces };
}

/** @returns one URL for each name at the most, for an order is about no more */
function urlsIn(value: unknown, max: number): readonly unknown[] {
  if (!Array.isArray(value) || value.length > max) throw unavailable("an order is malformed");
  return value;
}

/** Proves one name (§7.5.1), unless the server holds it for proved. */
async function authorize(options: OrderOptions, url: string): Promise<void> {
  const { account, challengeType, names, pending } = options;
  const { kid, session, thumbprint } = account;
  const authorization = jsonOf((await session.post(url, { kid })).body);
  if (statusOf(authorization) === "valid") return;
  const name = memberOf(memberOf(authorization, "identifier"), "value");
  if (typeof name !== "string" || !names.includes(name)) {
    throw unavailable("it asks about a name that was not ordered");
  }
  const challenge = challengeIn(authorization, challengeType, name);
  const token = memberOf(challenge, "token");
  if (typeof token !== "string" || !TOKEN.test(token)) throw unavailable("a token is malformed");
  const challengeUrl = session.urlIn(memberOf(challenge, "url"));
  const keyAuthorization = `${token}.${thumbprint}`;
  const stopAnswering = await pending.answer({
    type: challengeType,
    name,
    token,
    keyAuthorization,
  });
  try {
    await session.post(challengeUrl, { kid }, {});
    const judged = await poll(options, url, ["pending"]);
    if (statusOf(judged) !== "valid") {
      const word = problemWord(memberOf(challengeIn(judged, challengeType, name), "error"));
      throw challengeFailed(name, word);
    }
  } finally {
    await stopAnswering();
  }
}

function challengeIn(authorization: unknown, type: AcmeChallengeType, name: string): unknown {
  const challenges = memberOf(authorization, "challenges");
  const found: unknown = Array.isArray(challenges)
    ? challenges.find((challenge) => memberOf(challenge, "type") === type)
    : undefined;
  if (found === undefined) throw challengeFailed(name, `no ${type} is offered`);
  return found;
}

/** Asks until the object is in none of these states. */
async function poll(
  { account, clock, wait }: OrderOptions,
  url: string,
  whileIn: readonly string[],
): Promise<unknown> {
  for (let polls = 0; polls < MAX_POLLS; polls += 1) {
    const answer = await account.session.post(url, { kid: account.kid });
    const object = jsonOf(answer.body);
    if (!whileIn.includes(statusOf(object))) return object;
    await wait(pollDelayMs(answer, polls, clock()));
  }
  throw unavailable("it does not come to an end");
}

function pollDelayMs(answer: ExchangeAnswer, polls: number, nowMs: number): number {
  const asked = retryAfterSeconds(answer, nowMs);
  if (asked !== undefined && asked > 0) return Math.min(MAX_ASKED_POLL_MS, asked * 1_000);
  return Math.min(MAX_POLL_MS, FIRST_POLL_MS * 2 ** polls);
}

function statusOf(object: unknown): string {
  const status = memberOf(object, "status");
  return typeof status === "string" ? status : "";
}

/** @param name one of those that were ordered */
function challengeFailed(name: string, word: string): StileError {
  const message = `the ACME server could not validate ${name}: ${word}`;
  return new StileError("SERVICE_ACME_CHALLENGE_FAILED", message);
}

/** An order that is invalid says why (§7.1.3). */
function orderFailed(order: unknown): StileError {
  const word = problemWord(memberOf(order, "error"));
  return new StileError("SERVICE_ACME_REFUSED", `the ACME server gives up an order: ${word}`);
}
