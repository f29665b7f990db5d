/**
 * The interstitial as HTML: what comes with the 401 to a person's browser. Nothing of the request is in it but
 * the method and the language; what the script needs is a JSON block, and scripts and styles run by nonce.
 */
import { randomBytes } from "node:crypto";
import type { ExpirationGrid } from "../../tokens/index.ts";
import { encodeBase64Url } from "../../wire/index.ts";
import type { PageAssets } from "./assets.ts";
import { chooseLanguage, LANGUAGES, type Language, type PageTexts, textsOf } from "./texts.ts";

export interface PageRequest {
  readonly method: string;
  readonly acceptLanguage: string | undefined;
  /** The encoded TokenChallenge. */
  readonly challenge: Uint8Array;
  readonly tokenKey: Uint8Array;
  readonly maxAgeSeconds: number;
  /** Of a type whose tokens carry an expiration. */
  readonly expirationGrid?: ExpirationGrid | undefined;
}

export interface RenderedPage {
  readonly html: string;
  readonly headers: Readonly<Record<string, string>>;
}

export type PageRenderer = (request: PageRequest) => RenderedPage;

/** Tokens that the page asks for at a time. */
const BATCH = 10;
const NONCE_BYTES = 16;

const STYLE = `
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--back:#f6f7f9;--card:#fff;--line:#d8dee4;--go:#0b57d0;--on:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#a8b0ba;--back:#0f1216;--card:#171b21;--line:#2c333c;--go:#8ab4f8;--on:#0b1a33}}
*{box-sizing:border-box}
body{margin:0;min-height:100dvh;display:grid;place-items:center;padding:1.25rem;background:var(--back);color:var(--ink);font:1.0625rem/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main{width:100%;max-width:30rem;background:var(--card);border:1px solid var(--line);border-radius:1rem;padding:2rem 1.75rem}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 .75rem;text-wrap:balance}
p{margin:0 0 1.25rem;text-wrap:pretty}
button{font:inherit;font-weight:600;width:100%;padding:.8rem 1rem;border:0;border-radius:.6rem;background:var(--go);color:var(--on);cursor:pointer}
#aside p{margin:1rem 0 0;text-align:center}
a,.plain{color:var(--go)}
.plain{display:inline;width:auto;padding:0;background:none;font-weight:inherit;text-decoration:underline}
button:hover{filter:brightness(1.08)}
button:focus-visible{outline:3px solid var(--go);outline-offset:3px}
progress{width:100%;height:.4rem;accent-color:var(--go);margin-bottom:1.25rem}
[hidden]{display:none}
small{display:block;margin-top:1.5rem;padding-top:1rem;border-top:1px solid var(--line);color:var(--soft);font-size:.875rem}
`;

/** @param fallbackUrl a link for those whom the page cannot help */
export function createPageRenderer(assets: PageAssets, fallbackUrl?: string): PageRenderer {
  const texts = new Map(LANGUAGES.map((language) => [language, textsOf(language)]));
  return (request) => {
    const language = chooseLanguage(request.acceptLanguage);
    const nonce = randomBytes(NONCE_BYTES).toString("base64url");
    return {
      html: render(request, language, texts.get(language) ?? textsOf("en"), nonce, {
        ...assets,
        fallbackUrl,
      }),
      headers: {
        "content-security-policy": policyOf(nonce),
        "content-language": language,
        vary: "accept, accept-language",
      },
    };
  };
}

function policyOf(nonce: string): string {
  return [
    "default-src 'none'",
    `script-src 'nonce-${nonce}'`,
    `style-src 'nonce-${nonce}'`,
    "connect-src 'self'",
    "worker-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types stile",
  ].join("; ");
}

function render(
  request: PageRequest,
  language: Language,
  texts: PageTexts,
  nonce: string,
  { fallbackUrl, mainUrl, workerUrl }: PageAssets & { readonly fallbackUrl: string | undefined },
): string {
  const data = {
    challenge: encodeBase64Url(request.challenge),
    tokenKey: encodeBase64Url(request.tokenKey),
    maxAgeSeconds: request.maxAgeSeconds,
    expirationGrid: request.expirationGrid,
    batch: BATCH,
    method: request.method,
    workerUrl,
    texts,
  };
  const text = (name: string): string => escapeHtml(texts[name] ?? "");
  const heading = text("working.heading");
  const fallback =
    fallbackUrl === undefined
      ? ""
      : `<p><a href="${escapeHtml(fallbackUrl)}">${text("fallback")}</a></p>`;
  return (
    `<!doctype html><html lang="${language}"><head><meta charset="utf-8">` +
    `<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="robots" content="noindex">` +
    `<title>${heading}</title><style nonce="${nonce}">${STYLE}</style>` +
    `<script type="application/json" id="stile">${escapeJson(data)}</script>` +
    `<script type="module" nonce="${nonce}" src="${mainUrl}"></script></head>` +
    `<body><main><div role="status" aria-live="polite"><h1 id="heading">${heading}</h1>` +
    `<p id="text"></p></div><noscript><p>${text("noscript")}</p>${fallback}</noscript>` +
    `<progress id="progress" max="1" value="0" aria-labelledby="heading"></progress>` +
    `<button id="continue" type="button" hidden></button><div id="aside" hidden>${fallback}</div>` +
    `<small>${text("about")} <button id="forget" type="button" class="plain" hidden>${text("forget")}</button>` +
    `</small></main></body></html>`
  );
}

/** JSON in a script element: no "</script>" and no "<!--" can be in it. */
function escapeJson(value: unknown): string {
  return JSON.stringify(value).replaceAll("<", "\\u003c");
}

function escapeHtml(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}
