/**
 * The device agent: attests with the TPM, fetches blind tokens ahead, and gets into origins with them.
 * It joins the device side of the attestation (`attest/agent`) with the client side of Privacy Pass
 * (`tokens/client`); the attester never learns which origin a token is for, nor the origin which device.
 */
import { createHash } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { Agent as ConnectionPool } from "node:https";
import {
  attest,
  type Attested,
  connectTransport,
  createDpopProof,
  type Device,
  type EkAlgorithm,
  openDevice,
} from "../../attest/agent/index.ts";
import {
  createTokenClient,
  openWallet,
  type TokenClient,
  type Wallet,
} from "../../tokens/client/index.ts";
import {
  formatAuthorization,
  parseWwwAuthenticate,
  type ReceivedChallenge,
  TOKEN_TYPE_BLIND_RSA,
} from "../../tokens/index.ts";
import { isStileError, StileError } from "../../wire/index.ts";
import { exchange, type ExchangeAnswer } from "./exchange.ts";

export interface AgentOptions {
  /** Origin of the attester, `https://host[:port]`. */
  readonly attester: string;
  /** PEM of further trusted CAs. */
  readonly ca?: string | undefined;
  readonly tcti: string;
  readonly ekAlgorithm: EkAlgorithm;
  /** The firmware's log of this boot, where the machine has one. */
  readonly readEventLog?: () => Promise<Uint8Array | undefined>;
  readonly walletDir: string;
  /** Unix milliseconds. */
  readonly clock: () => number;
  readonly random: (length: number) => Uint8Array;
}

export interface FetchResult {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Uint8Array;
  /** The token that was presented, or undefined where none was asked for. Spent. */
  readonly token: Uint8Array | undefined;
}

export interface Agent {
  /** A fresh attestation result. @throws `ATTEST_AGENT_REFUSED`, `ATTEST_TSS_*` */
  readonly attest: () => Promise<Attested>;
  /** What an origin asks for at this URL. @throws `TOKEN_CHALLENGE_INVALID` where it asks for nothing usable */
  readonly challengeOf: (url: string) => Promise<ReceivedChallenge>;
  /** Fetches tokens for a challenge into the wallet. @returns how many. @throws `TOKEN_ISSUANCE_REFUSED` and others */
  readonly obtainTokens: (challenge: ReceivedChallenge, count: number) => Promise<number>;
  /** GETs the URL; where a token is asked for, presents one, fetching a batch first if the wallet has none. */
  readonly fetch: (url: string) => Promise<FetchResult>;
  /** Tokens in the wallet for a challenge. */
  readonly count: (challenge: ReceivedChallenge) => number;
  readonly close: () => Promise<void>;
}

/** Tokens that are fetched when the wallet has none for a challenge. */
const DEFAULT_BATCH = 10;
/** A result that ends this soon is not used any more. */
const MARGIN_MS = 10_000;
const TRANSPORT_TIMEOUT_MS = 30_000;
/** Where an origin names no max-age (RFC 9577 §2.1.2): its tokens are fetched anew after an hour. */
const DEFAULT_MAX_AGE_SECONDS = 3_600;

/** @throws `ATTEST_TSS_*`, `ATTEST_EK_*`, `TOKEN_WALLET_*` */
export async function openAgent(options: AgentOptions): Promise<Agent> {
  const wallet = await openWallet({ dir: options.walletDir, clock: options.clock });
  let device: Device;
  try {
    device = await openDevice({ tcti: options.tcti, ekAlgorithm: options.ekAlgorithm });
  } catch (error) {
    await wallet.close();
    throw error;
  }
  return createAgent(options, device, wallet);
}

function createAgent(options: AgentOptions, device: Device, wallet: Wallet): Agent {
  const source = createTokenSource(options, device);
  // One connection per origin: a challenge may be tied to it (RFC 9577 §2.1.1.2).
  const connections = new ConnectionPool({ keepAlive: true, maxSockets: 1 });

  function get(url: string, headers: Readonly<Record<string, string>>): Promise<ExchangeAnswer> {
    return exchange({ url, method: "GET", headers, ca: options.ca, agent: connections });
  }

  async function obtainTokens(challenge: ReceivedChallenge, count: number): Promise<number> {
    const tokens = await source.request(challenge, count);
    const lifeSeconds = challenge.maxAgeSeconds ?? DEFAULT_MAX_AGE_SECONDS;
    const expiresAtMs = options.clock() + lifeSeconds * 1_000;
    await wallet.put(tokens.map((token) => ({ token, expiresAtMs })));
    return tokens.length;
  }

  async function takeToken(challenge: ReceivedChallenge): Promise<Uint8Array> {
    const digest = digestOf(challenge);
    try {
      return await wallet.take(digest);
    } catch (error) {
      if (!isStileError(error, "TOKEN_WALLET_EMPTY")) throw error;
    }
    await obtainTokens(challenge, DEFAULT_BATCH);
    return wallet.take(digest);
  }

  return {
    attest: () => source.attest(),
    obtainTokens,
    challengeOf: async (url) => challengeIn(await get(url, {})),
    fetch: async (url) => {
      const first = await get(url, {});
      if (first.status !== 401) return { ...first, token: undefined };
      const token = await takeToken(challengeIn(first));
      const second = await get(url, { authorization: formatAuthorization(token) });
      return { ...second, token };
    },
    count: (challenge) => wallet.count(digestOf(challenge)),
    close: async () => {
      connections.destroy();
      await wallet.close();
      await device.close();
    },
  };
}

/** Attests when it has to and asks the attester for tokens. */
interface TokenSource {
  readonly attest: () => Promise<Attested>;
  readonly request: (challenge: ReceivedChallenge, count: number) => Promise<readonly Uint8Array[]>;
}

function createTokenSource(options: AgentOptions, device: Device): TokenSource {
  const { ca, clock } = options;
  const tokenClient = createTokenClient();
  let attested: Attested | undefined;

  async function attestNow(): Promise<Attested> {
    const transport = await connectTransport({
      origin: options.attester,
      ...(ca === undefined ? {} : { ca }),
      timeoutMs: TRANSPORT_TIMEOUT_MS,
    });
    try {
      attested = await attest({
        device,
        transport,
        clock,
        ...(options.readEventLog === undefined ? {} : { readEventLog: options.readEventLog }),
      });
      return attested;
    } finally {
      transport.close();
    }
  }

  return {
    attest: attestNow,
    request: async (challenge, count) => {
      const known = attested;
      const isUsable = known !== undefined && known.expiresAtMs - MARGIN_MS > clock();
      const result = isUsable ? known : await attestNow();
      return requestTokens(options, device, tokenClient, result, challenge, count);
    },
  };
}

/** The first challenge that can be answered here: blind RSA, with the key to use. */
function challengeIn(answer: ExchangeAnswer): ReceivedChallenge {
  const header = answer.status === 401 ? (answer.headers["www-authenticate"] ?? "") : "";
  const usable = parseWwwAuthenticate(header).find(
    ({ tokenChallenge, tokenKey }) =>
      tokenChallenge.tokenType === TOKEN_TYPE_BLIND_RSA && tokenKey !== undefined,
  );
  if (usable === undefined) {
    throw new StileError("TOKEN_CHALLENGE_INVALID", "the origin asks for no token of a known type");
  }
  return usable;
}

async function requestTokens(
  options: AgentOptions,
  device: Device,
  tokenClient: TokenClient,
  attested: Attested,
  challenge: ReceivedChallenge,
  count: number,
): Promise<readonly Uint8Array[]> {
  const { tokenKey } = challenge;
  if (tokenKey === undefined) throw new TypeError("the challenge carries no token key");
  const url = `${options.attester}/token-request`;
  const accessToken = attested.attestationResult;
  const pending = await tokenClient.request({ challenge: challenge.challenge, tokenKey, count });
  const { clock, random } = options;
  const proof = await createDpopProof({
    device,
    method: "POST",
    uri: url,
    accessToken,
    clock,
    random,
  });
  const answer = await exchange({
    url,
    method: "POST",
    headers: {
      authorization: `DPoP ${accessToken}`,
      dpop: proof,
      "content-type": pending.mediaType,
      accept: pending.accept,
    },
    body: pending.body,
    ca: options.ca,
  });
  const mediaType = (answer.headers["content-type"] ?? "").split(";")[0]?.trim() ?? "";
  return pending.finalize({ status: answer.status, mediaType, body: answer.body });
}

function digestOf(challenge: ReceivedChallenge): Uint8Array {
  return Uint8Array.from(createHash("sha256").update(challenge.challenge).digest());
}
