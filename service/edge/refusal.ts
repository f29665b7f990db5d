/**
 * What a refused client reads: a problem document, or for a person's browser a short page that says the
 * same in plain words. The page is static: nothing of the request appears in it.
 */
import { type Problem, PROBLEM_MEDIA_TYPE } from "../problems.ts";

/** Headers of every answer that Stile itself makes. */
export const securityHeaders: Readonly<Record<string, string>> = {
  "cache-control": "no-store",
  "content-security-policy":
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
  "referrer-policy": "no-referrer",
  "strict-transport-security": "max-age=31536000",
  "x-content-type-options": "nosniff",
};

const PAGE_STYLE =
  "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:12vh auto;padding:0 1rem}" +
  "@media(prefers-color-scheme:dark){body{background:#111;color:#eee}}";

/** @param accept the request's Accept header: a page only where text/html is asked for by name */
export function refusalBody(
  problem: Problem,
  accept: string | undefined,
): { contentType: string; body: string } {
  if (accept === undefined || !/\btext\/html\b/i.test(accept)) {
    return { contentType: PROBLEM_MEDIA_TYPE, body: JSON.stringify(problem.body) };
  }
  return { contentType: "text/html; charset=utf-8", body: pageOf(problem) };
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
