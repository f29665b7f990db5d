/**
 * The device agent: attests with the TPM, fetches blind tokens ahead, and gets into origins with them.
 * It joins the device side of the attestation (`attest/agent`) with the client side of Privacy Pass
 * (`tokens/client`); the attester never learns which origin a token is for, nor the origin which device.
 */
import { createHash } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { Agent as ConnectionPool } from "node:https";
import {
  type Attested,
  type Device,
  type EkAlgorithm,
  openDevice,
} from "../../attest/agent/index.ts";
import { openWallet, type Wallet } from "../../tokens/client/index.ts";
import {
  type ClientMetadata,
  createClientMetadata,
  DEFAULT_EXPIRATION_GRID,
  type ExpirationGrid,
  formatAuthorization,
  hasPublicMetadata,
  parseWwwAuthenticate,
  type PresentedToken,
  type ReceivedChallenge,
  TOKEN_TYPE_BLIND_RSA,
  TOKEN_TYPE_PARTIALLY_BLIND_RSA,
  TOKEN_TYPE_VOPRF_P384,
  TOKEN_TYPE_VOPRF_RISTRETTO255,
} from "../../tokens/index.ts";
import { isStileError, StileError } from "../../wire/index.ts";
import { exchange, type ExchangeAnswer } from "./exchange.ts";
import { createTokenSource } from "./token-source.ts";

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
  /** Of tokens with an expiration: that of the issuer. Default {@link DEFAULT_EXPIRATION_GRID}. */
  readonly expirationGrid?: ExpirationGrid | undefined;
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
  /**
   * What an origin asks for at this URL. @throws `TOKEN_CHALLENGE_INVALID` where it asks for nothing usable;
   * `TOKEN_METADATA_REFUSED` where it asks for metadata that would tell this client from others
   */
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
const KNOWN_TYPES: readonly number[] = [
  TOKEN_TYPE_VOPRF_P384,
  TOKEN_TYPE_BLIND_RSA,
  TOKEN_TYPE_VOPRF_RISTRETTO255,
  TOKEN_TYPE_PARTIALLY_BLIND_RSA,
];
/** Where an origin names no max-age (RFC 9577 §2.1.2): its tokens are fetched anew after an hour. */
const DEFAULT_MAX_AGE_SECONDS = 3_600;

/** @throws `ATTEST_TSS_*`, `ATTEST_EK_*`, `TOKEN_WALLET_*`; RangeError for a grid that is too fine */
export async function openAgent(options: AgentOptions): Promise<Agent> {
  const grid = options.expirationGrid ?? DEFAULT_EXPIRATION_GRID;
  const metadata = createClientMetadata({ ...grid, clock: options.clock });
  const wallet = await openWallet({ dir: options.walletDir, clock: options.clock });
  let device: Device;
  try {
    device = await openDevice({ tcti: options.tcti, ekAlgorithm: options.ekAlgorithm });
  } catch (error) {
    await wallet.close();
    throw error;
  }
  return createAgent(options, device, wallet, metadata);
}

function createAgent(
  options: AgentOptions,
  device: Device,
  wallet: Wallet,
  metadata: ClientMetadata,
): Agent {
  const source = createTokenSource(options, device);
  // One connection per origin: a challenge may be tied to it (RFC 9577 §2.1.1.2).
  const connections = new ConnectionPool({ keepAlive: true, maxSockets: 1 });

  function get(url: string, headers: Readonly<Record<string, string>>): Promise<ExchangeAnswer> {
    return exchange({ url, method: "GET", headers, ca: options.ca, agent: connections });
  }

  async function obtainTokens(challenge: ReceivedChallenge, count: number): Promise<number> {
    const lifeSeconds = challenge.maxAgeSeconds ?? DEFAULT_MAX_AGE_SECONDS;
    return source.request(challenge, extensionsOf(challenge, metadata), count, (tokens) => {
      const expiresAtMs = options.clock() + lifeSeconds * 1_000;
      return wallet.put(tokens.map((one) => ({ ...one, expiresAtMs })));
    });
  }

  async function takeToken(challenge: ReceivedChallenge): Promise<PresentedToken> {
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
    challengeOf: async (url) => challengeIn(await get(url, {}), metadata),
    fetch: async (url) => {
      const first = await get(url, {});
      if (first.status !== 401) return { ...first, token: undefined };
      const { extensions, token } = await takeToken(challengeIn(first, metadata));
      const authorization = formatAuthorization(token, extensions);
      const second = await get(url, { authorization });
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

/**
 * The first challenge, in the order of the origin, that can be answered here: with the key to use, of a type that
 * is known, and without metadata that would tell this client from others. Nothing else decides, neither what
 * is in the wallet nor what an issuer refused before: the edge sees the type, so whoever could make a device
 * change it could mark it.
 * @throws `TOKEN_CHALLENGE_INVALID`, `TOKEN_METADATA_REFUSED`
 */
function challengeIn(answer: ExchangeAnswer, metadata: ClientMetadata): ReceivedChallenge {
  const header = answer.status === 401 ? (answer.headers["www-authenticate"] ?? "") : "";
  let refusal: unknown;
  for (const challenge of parseWwwAuthenticate(header)) {
    const { tokenChallenge, tokenKey } = challenge;
    if (tokenKey === undefined || !KNOWN_TYPES.includes(tokenChallenge.tokenType)) continue;
    try {
      extensionsOf(challenge, metadata);
      return challenge;
    } catch (error) {
      if (!isStileError(error, "TOKEN_METADATA_REFUSED")) throw error;
      refusal = error;
    }
  }
  if (refusal !== undefined) throw refusal;
  throw new StileError("TOKEN_CHALLENGE_INVALID", "the origin asks for no token of a known type");
}

/** Undefined for a type without metadata. @throws `TOKEN_METADATA_REFUSED` */
function extensionsOf(
  challenge: ReceivedChallenge,
  metadata: ClientMetadata,
): Uint8Array | undefined {
  const { tokenType } = challenge.tokenChallenge;
  return hasPublicMetadata(tokenType) ? metadata.extensionsFor(challenge) : undefined;
}

function digestOf(challenge: ReceivedChallenge): Uint8Array {
  return Uint8Array.from(createHash("sha256").update(challenge.challenge).digest());
}
