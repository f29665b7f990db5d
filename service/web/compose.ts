/** Puts the interstitial together: its scripts, the cookie for a token, and which requests get it. */
import type { IncomingMessage } from "node:http";
import type { FastifyInstance } from "fastify";
import {
  createClientMetadata,
  type ExpirationGrid,
  hasPublicMetadata,
  parseWwwAuthenticate,
  TOKEN_TYPE_BLIND_RSA,
  TOKEN_TYPE_PARTIALLY_BLIND_RSA,
} from "../../tokens/index.ts";
import { acceptsPage, type PageFor } from "../edge/refusal.ts";
import { loadPageAssets, registerPageAssets } from "./assets.ts";
import { createPageRenderer } from "./page.ts";
import { type ClearanceRouteOptions, registerClearanceRoute } from "./routes.ts";

const BLIND_ALONE: readonly number[] = [TOKEN_TYPE_BLIND_RSA];
const ALL: readonly number[] = [TOKEN_TYPE_BLIND_RSA, TOKEN_TYPE_PARTIALLY_BLIND_RSA];

/** @throws `SERVICE_CONFIG_INVALID` where the scripts have not been built */
export function composePage(
  app: FastifyInstance,
  options: ClearanceRouteOptions & {
    readonly fallbackUrl: string | undefined;
    /** Of tokens with an expiration, where such are issued. */
    readonly expirationGrid: ExpirationGrid | undefined;
  },
): PageFor {
  const assets = loadPageAssets();
  registerPageAssets(app, assets);
  registerClearanceRoute(app, options);
  const { expirationGrid } = options;
  const types = expirationGrid !== undefined && isForClients(expirationGrid) ? ALL : BLIND_ALONE;
  const render = createPageRenderer(assets, options.fallbackUrl);
  return (request, wwwAuthenticate) => {
    if (!isNavigation(request)) return undefined;
    const asked = parseWwwAuthenticate(wwwAuthenticate).find(({ tokenChallenge }) =>
      types.includes(tokenChallenge.tokenType),
    );
    const { tokenKey } = asked ?? {};
    if (asked === undefined || tokenKey === undefined) return undefined;
    return render({
      method: request.method ?? "GET",
      acceptLanguage: request.headers["accept-language"],
      challenge: asked.challenge,
      tokenKey,
      maxAgeSeconds: asked.maxAgeSeconds ?? 0,
      ...(hasPublicMetadata(asked.tokenChallenge.tokenType) ? { expirationGrid } : {}),
    });
  };
}

/** False for a grid that our clients refuse: too fine to be shared, or of one step. */
function isForClients(grid: ExpirationGrid): boolean {
  try {
    createClientMetadata({ ...grid, clock: Date.now });
    return true;
  } catch {
    return false;
  }
}

/** A page in a window of its own: a frame could not hold the ceremony, and a fetch would not show it. */
function isNavigation({ headers }: Pick<IncomingMessage, "headers">): boolean {
  const mode = headers["sec-fetch-mode"];
  const destination = headers["sec-fetch-dest"];
  const isTop = destination === undefined || destination === "document";
  return acceptsPage(headers.accept) && isTop && (mode === undefined || mode === "navigate");
}
