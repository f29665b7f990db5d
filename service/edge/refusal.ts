/**
 * What a refused client reads: a problem document, or for a person's browser a short page that says the
 * same in plain words. The page is static: nothing of the request appears in it.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { closeSoon, writeUpgradeHead } from "../../tls/index.ts";
import { type Problem, PROBLEM_MEDIA_TYPE } from "../problems.ts";
import type { RenderedPage } from "../web/page.ts";

/** A refused request with a body up to this size keeps its connection; a larger one is not read. */
const MAX_DISCARDED_BYTES = 65_536;

/** Headers of every answer that Stile itself makes. */
export const securityHeaders: Readonly<Record<string, string>> = {
  "cache-control": "no-store",
  "content-security-policy":
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
  "referrer-policy": "no-referrer",
  "strict-transport-security": "max-age=31536000",
  "x-content-type-options": "nosniff",
};

/** What a person's browser gets with a challenge; undefined for a request that is not one's. */
export type PageFor = (
  request: Pick<IncomingMessage, "headers" | "method">,
  wwwAuthenticate: string,
) => RenderedPage | undefined;

const PAGE_TYPE = "text/html; charset=utf-8";
const PAGE_STYLE =
  "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:12vh auto;padding:0 1rem}" +
  "@media(prefers-color-scheme:dark){body{background:#111;color:#eee}}";

/**
 * @param accept the request's Accept header: a page only where text/html is asked for by name
 * @param page what a person reads instead of the short page
 */
export function refusalBody(
  problem: Problem,
  accept: string | undefined,
  page?: RenderedPage,
): { contentType: string; body: string } {
  if (page !== undefined) return { contentType: PAGE_TYPE, body: page.html };
  if (!acceptsPage(accept)) {
    return { contentType: PROBLEM_MEDIA_TYPE, body: JSON.stringify(problem.body) };
  }
  return { contentType: PAGE_TYPE, body: pageOf(problem) };
}

/** A browser that shows what it gets to a person asks for HTML by name. */
export function acceptsPage(accept: string | undefined): boolean {
  return accept !== undefined && /\btext\/html\b/i.test(accept);
}

function pageOf(problem: Problem): string {
  const needsToken = problem.status === 401;
  const heading = needsToken ? "One moment" : "This did not work";
  const text = needsToken
    ? "This site lets in devices that prove they are genuine hardware, without puzzles and without " +
      "learning who you are. Your browser or program has to present a Privacy Pass token, and did not."
    : `The request was refused: ${problem.body.title}.`;
  return (
    `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">` +
    `<title>${heading}</title><style>${PAGE_STYLE}</style><h1>${heading}</h1><p>${text}</p></html>`
  );
}

/** Answers with a problem; where an answer is out already, only the connection's end can say so. */
export function refuse(
  request: IncomingMessage,
  response: ServerResponse,
  problem: Problem,
  headers: Readonly<Record<string, string>>,
  page?: RenderedPage,
): void {
  if (response.headersSent) {
    // Part of the answer is out: only cutting the connection tells the client that it is not whole.
    response.destroy();
    return;
  }
  const { contentType, body } = refusalBody(problem, request.headers.accept, page);
  const keep = problem.status !== 400 && isSmallBody(request);
  response.writeHead(problem.status, {
    ...securityHeaders,
    ...problem.headers,
    ...headers,
    ...page?.headers,
    "content-type": contentType,
    "content-length": Buffer.byteLength(body),
    ...(keep ? {} : { connection: "close" }),
  });
  response.end(request.method === "HEAD" ? undefined : body);
}

function isSmallBody(request: IncomingMessage): boolean {
  if (request.headers["transfer-encoding"] !== undefined) return false;
  // It waits for a 100 that it does not get, and may send its body or not: what follows is not told apart.
  if (request.headers.expect !== undefined && !request.complete) return false;
  return Number(request.headers["content-length"] ?? "0") <= MAX_DISCARDED_BYTES;
}

/** The same for a request to switch protocols, of which node:http leaves us the bare socket. */
export function refuseUpgrade(
  socket: Duplex,
  problem: Problem,
  headers: Readonly<Record<string, string>>,
): void {
  if (socket.destroyed) return;
  const { contentType, body } = refusalBody(problem, undefined);
  writeUpgradeHead(socket, {
    status: problem.status,
    reason: problem.body.title.replaceAll(/[^\x20-\x7e]/g, ""),
    headers: Object.entries({
      "content-type": contentType,
      "content-length": String(Buffer.byteLength(body)),
      "cache-control": "no-store",
      ...headers,
    }).flat(),
    connection: ["connection", "close"],
  });
  socket.end(body);
  closeSoon(socket);
}
