/**
 * The issuer's directory (RFC 9578 §4): the same bytes for everyone, with a strong ETag and a cache life
 * that ends before the listed keys do. HEAD and 304 come with it.
 */
import type { FastifyInstance } from "fastify";
import {
  encodeDirectory,
  ISSUER_DIRECTORY_PATH,
  type KeyRing,
  MEDIA_TYPE_ISSUER_DIRECTORY,
  type TokenCrypto,
} from "../../tokens/index.ts";

export interface IssuerRoutesOptions {
  readonly keyRing: KeyRing;
  readonly crypto: TokenCrypto;
  readonly clock: () => number;
  readonly directoryLifetimeMs: number;
}

/** Where token requests go, relative to the directory. */
export const TOKEN_REQUEST_PATH = "/token-request";

export function registerIssuerRoutes(app: FastifyInstance, options: IssuerRoutesOptions): void {
  app.get(
    ISSUER_DIRECTORY_PATH,
    { schema: { summary: "The issuer's public keys (RFC 9578 §4)" } },
    (request, reply) => {
      const directory = encodeDirectory(options.keyRing, {
        issuerRequestUri: TOKEN_REQUEST_PATH,
        directoryLifetimeMs: options.directoryLifetimeMs,
        clock: options.clock,
        crypto: options.crypto,
      });
      void reply
        .header("etag", directory.etag)
        .header("cache-control", `public, max-age=${directory.maxAgeSeconds}`);
      if (matchesEtag(request.headers["if-none-match"], directory.etag))
        return reply.code(304).send();
      return reply.type(MEDIA_TYPE_ISSUER_DIRECTORY).send(Buffer.from(directory.body));
    },
  );
}

/** RFC 9110 §13.1.2: a list of entity tags, compared weakly, or `*`. */
function matchesEtag(header: string | undefined, etag: string): boolean {
  if (header === undefined) return false;
  const tags = header.split(",").map((tag) => tag.trim().replace(/^W\//, ""));
  return tags.includes("*") || tags.includes(etag);
}
