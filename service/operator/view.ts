/** `GET /` on the operator listener: the view, for a person. Its script reads `/metrics`, `/keys` and `/readyz`. */
import { randomBytes } from "node:crypto";
import type { FastifyInstance } from "fastify";
import { loadOperatorScript } from "../web/assets.ts";

const NONCE_BYTES = 16;
const SCRIPT_PATH = "/view.js";

const STYLE = `
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--back:#f6f7f9;--card:#fff;--line:#d8dee4}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#a8b0ba;--back:#0f1216;--card:#171b21;--line:#2c333c}}
body{margin:0;padding:1.25rem;background:var(--back);color:var(--ink);font:.9375rem/1.45 system-ui,sans-serif}
header{display:flex;gap:.75rem;align-items:baseline;margin-bottom:1rem}
h1{font-size:1.25rem;margin:0}
#status{font-weight:600}
[data-ready=true] #status{color:#1a7f37}[data-ready=false] #status{color:#cf222e}
@media(prefers-color-scheme:dark){[data-ready=true] #status{color:#3fb950}[data-ready=false] #status{color:#f85149}}
#charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(19rem,1fr));gap:1rem}
section{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.9rem 1rem}
h2{font-size:.9375rem;margin:0 0 .5rem}
svg{width:100%;height:5rem;border-bottom:1px solid var(--line)}
.line{fill:none;stroke-width:1.6;vector-effect:non-scaling-stroke}
ul{list-style:none;margin:.5rem 0 0;padding:0;font-size:.8125rem;color:var(--soft);overflow-wrap:anywhere}
li::before{content:"";display:inline-block;width:.7rem;height:.25rem;margin-right:.4rem;vertical-align:middle;background:currentColor}
li.line-0::before{background:#0969da}li.line-1::before{background:#bf8700}li.line-2::before{background:#1a7f37}li.line-3::before{background:#cf222e}
li.line-4::before{background:#8250df}li.line-5::before{background:#0a7a8f}li.line-6::before{background:#bc4c00}li.line-7::before{background:#6e7781}
polyline.line-0{stroke:#0969da}polyline.line-1{stroke:#bf8700}polyline.line-2{stroke:#1a7f37}polyline.line-3{stroke:#cf222e}
polyline.line-4{stroke:#8250df}polyline.line-5{stroke:#0a7a8f}polyline.line-6{stroke:#bc4c00}polyline.line-7{stroke:#6e7781}
#keys{margin-top:1rem;overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:.2rem .9rem .2rem 0;text-align:left}
th{color:var(--soft);font-weight:500}
`;

/** @throws `SERVICE_CONFIG_INVALID` where the script has not been built */
export function registerView(app: FastifyInstance, version: string): void {
  const script = loadOperatorScript();
  app.get(SCRIPT_PATH, (_request, reply) =>
    reply.type("text/javascript; charset=utf-8").header("cache-control", "no-cache").send(script),
  );
  app.get("/", (_request, reply) => {
    const nonce = randomBytes(NONCE_BYTES).toString("base64url");
    const policy = [
      "default-src 'none'",
      "script-src 'self'",
      `style-src 'nonce-${nonce}'`,
      "connect-src 'self'",
      "base-uri 'none'",
      "form-action 'none'",
      "frame-ancestors 'none'",
    ];
    return reply
      .headers({
        "content-security-policy": policy.join("; "),
        "cache-control": "no-store",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
      })
      .type("text/html; charset=utf-8")
      .send(
        `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Stile</title>` +
          `<meta name="viewport" content="width=device-width,initial-scale=1">` +
          `<style nonce="${nonce}">${STYLE}</style><script type="module" src="${SCRIPT_PATH}"></script></head>` +
          `<body><header><h1>Stile ${version}</h1><span id="status" role="status"></span></header>` +
          `<main><div id="charts"></div><section id="keys"></section></main></body></html>`,
      );
  });
}
