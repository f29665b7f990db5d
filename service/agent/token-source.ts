/** Attests when it has to and asks the attester for tokens. */
import {
  attest,
  type Attested,
  connectTransport,
  createDpopProof,
  type Device,
} from "../../attest/agent/index.ts";
import {
  createPrivateTokenClient,
  createTokenClient,
  type WalletToken,
} from "../../tokens/client/index.ts";
import { isPrivateTokenType, type ReceivedChallenge } from "../../tokens/index.ts";
import { isStileError } from "../../wire/index.ts";
import type { AgentOptions } from "./agent.ts";
import { exchange, type ExchangeAnswer } from "./exchange.ts";

export interface TokenSource {
  readonly attest: () => Promise<Attested>;
  /**
   * Hands tokens to `keep` as they come: of a type without batches, one a time.
   * @param extensions of a type with public metadata
   * @returns how many. @throws `TOKEN_ISSUANCE_REFUSED` where there was none
   */
  readonly request: (
    challenge: ReceivedChallenge,
    extensions: Uint8Array | undefined,
    count: number,
    keep: (tokens: readonly Pick<WalletToken, "token" | "extensions">[]) => Promise<void>,
  ) => Promise<number>;
}

/** A result that ends this soon is not used any more. */
const MARGIN_MS = 10_000;
const TRANSPORT_TIMEOUT_MS = 30_000;

export function createTokenSource(options: AgentOptions, device: Device): TokenSource {
  const { ca, clock } = options;
  const publicClient = createTokenClient();
  const privateClient = createPrivateTokenClient({ random: options.random });
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

  async function usableResult(): Promise<Attested> {
    const isUsable = attested !== undefined && attested.expiresAtMs - MARGIN_MS > clock();
    return attested !== undefined && isUsable ? attested : attestNow();
  }

  return {
    attest: attestNow,
    async request(challenge, extensions, count, keep) {
      const { tokenChallenge, tokenKey } = challenge;
      if (tokenKey === undefined) throw new TypeError("the challenge carries no token key");
      const isPrivate = isPrivateTokenType(tokenChallenge.tokenType);
      const tokenClient = isPrivate ? privateClient : publicClient;
      const metadata = extensions === undefined ? {} : { extensions };
      const asked = { challenge: challenge.challenge, tokenKey, ...metadata };
      // No batch holds requests with metadata.
      const rounds = extensions === undefined ? [count] : Array.from({ length: count }, () => 1);
      let kept = 0;
      try {
        for (const size of rounds) {
          const pending = await tokenClient.request({ ...asked, count: size });
          const answer = await post(options, device, await usableResult(), pending);
          const tokens = await pending.finalize(answer);
          await keep(tokens.map((token) => ({ token, ...metadata })));
          kept += tokens.length;
        }
      } catch (error) {
        // Fewer than asked for, as of a batch: an allowance that ends on the way.
        if (kept === 0 || !isStileError(error, "TOKEN_ISSUANCE_REFUSED")) throw error;
      }
      return kept;
    },
  };
}

type Pending = Awaited<ReturnType<ReturnType<typeof createTokenClient>["request"]>>;

async function post(
  { attester, ca, clock, random }: AgentOptions,
  device: Device,
  { attestationResult: accessToken }: Attested,
  pending: Pending,
): Promise<Parameters<Pending["finalize"]>[0]> {
  const url = `${attester}/token-request`;
  const ask = async (nonce?: string): Promise<ExchangeAnswer> => {
    const proof = { device, method: "POST", uri: url, accessToken, nonce, clock, random };
    return exchange({
      url,
      method: "POST",
      headers: {
        authorization: `DPoP ${accessToken}`,
        dpop: await createDpopProof(proof),
        "content-type": pending.mediaType,
        accept: pending.accept,
      },
      body: pending.body,
      ca,
    });
  };
  const first = await ask();
  const nonce = first.status === 401 ? first.headers["dpop-nonce"] : undefined;
  // RFC 9449 §8: once more, with what the attester wants in the proof. It has issued nothing yet.
  const answer = typeof nonce === "string" ? await ask(nonce) : first;
  const mediaType = (answer.headers["content-type"] ?? "").split(";")[0]?.trim() ?? "";
  return { status: answer.status, mediaType, body: answer.body };
}
