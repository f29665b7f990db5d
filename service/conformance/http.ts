/**
 * How the suite asks: HTTPS with a connection for each request, answers of bounded size, no redirects followed,
 * no cookies kept. What gives the right to issue (headers, a client certificate) goes to the issuer alone.
 */
import { Agent } from "node:https";
import { exchange, type ExchangeAnswer, type ExchangeRequest } from "../agent/exchange.ts";

export interface ConformanceHttpOptions {
  /** PEM of further trusted CAs. */
  readonly ca?: string | undefined;
  /** Sent with every token request; secret. */
  readonly issuanceHeaders: Readonly<Record<string, string>>;
  /** PEM of the client certificate for the issuer, with its key. */
  readonly certificate?: { readonly cert: string; readonly key: string } | undefined;
  /** Of a whole exchange: a server that drips would else hold the run for days. */
  readonly timeoutMs: number;
}

export interface AskedRequest {
  readonly method?: ExchangeRequest["method"];
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
}

export interface ConformanceHttp {
  /** Nothing but the request itself is sent. @throws `ATTEST_AGENT_REFUSED` where there is no whole answer */
  readonly ask: (url: URL, request?: AskedRequest) => Promise<ExchangeAnswer>;
  /** With what gives the right to issue. @throws as `ask` */
  readonly askToIssue: (url: URL, request: AskedRequest) => Promise<ExchangeAnswer>;
}

export function createConformanceHttp(options: ConformanceHttpOptions): ConformanceHttp {
  const { ca, certificate, issuanceHeaders, timeoutMs } = options;
  const send = (
    url: URL,
    { body, headers = {}, method = "GET" }: AskedRequest,
    own: Pick<ExchangeRequest, "agent"> = {},
  ): Promise<ExchangeAnswer> =>
    exchange({
      url: url.href,
      method,
      headers,
      ...(body === undefined ? {} : { body }),
      ca,
      timeoutMs,
      signal: AbortSignal.timeout(timeoutMs),
      // Privacy Pass asks for no version of TLS.
      minVersion: "TLSv1.2",
      ...own,
    });
  return {
    ask: (url, request = {}) => send(url, request),
    askToIssue: (url, request) => {
      const headers = { ...issuanceHeaders, ...request.headers };
      if (certificate === undefined) return send(url, { ...request, headers });
      const agent = new Agent({ ...certificate, maxCachedSessions: 0 });
      return send(url, { ...request, headers }, { agent });
    },
  };
}

/** Without parameters, in lower case. */
export function mediaTypeOf({ headers }: ExchangeAnswer): string {
  return (headers["content-type"] ?? "").split(";")[0]?.trim().toLowerCase() ?? "";
}
