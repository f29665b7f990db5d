/**
 * The issuer's directory (RFC 9578 §4): the same bytes for everyone, with a strong ETag and a cache life
 * that ends before the listed keys do, HEAD and 304 with it; and the log of all that it ever was.
 */
import type { FastifyInstance } from "fastify";
import { ISSUER_DIRECTORY_PATH, MEDIA_TYPE_ISSUER_DIRECTORY } from "../../tokens/index.ts";
import type { Tenant } from "./tenants.ts";

/** One compact JWS a line, see `tokens/keys/directory-log.ts`. */
export const DIRECTORY_LOG_PATH = "/.stile/directory-log";

const logQuery = {
  type: "object",
  additionalProperties: false,
  properties: { from: { type: "string", pattern: "^[0-9]{1,9}$" } },
} as const;

/** @param tenantOf throws for a Host that no issuer has */
export function registerIssuerRoutes(
  app: FastifyInstance,
  tenantOf: (host: string | undefined) => Tenant,
): void {
  app.get(
    ISSUER_DIRECTORY_PATH,
    { schema: { summary: "The issuer's public keys (RFC 9578 §4)" } },
    async (request, reply) => {
      const directory = await tenantOf(request.headers.host).directory();
      void reply
        .header("etag", directory.etag)
        .header("cache-control", `public, max-age=${directory.maxAgeSeconds}`);
      if (matchesEtag(request.headers["if-none-match"], directory.etag))
        return reply.code(304).send();
      return reply.type(MEDIA_TYPE_ISSUER_DIRECTORY).send(Buffer.from(directory.body));
    },
  );
  app.get<{ Querystring: { from?: string } }>(
    DIRECTORY_LOG_PATH,
    { schema: { summary: "Every directory that was served, signed", querystring: logQuery } },
    async (request, reply) => {
      const { directory, log } = tenantOf(request.headers.host);
      // So that the newest entry is the directory of now, whether or not somebody has asked for it.
      await directory();
      const lines = log.linesFrom(Number(request.query.from ?? 0));
      return reply.header("cache-control", "no-cache").type("text/plain").send(lines);
    },
  );
}

/** RFC 9110 §13.1.2: a list of entity tags, compared weakly, or `*`. */
function matchesEtag(header: string | undefined, etag: string): boolean {
  if (header === undefined) return false;
  const tags = header.split(",").map((tag) => tag.trim().replace(/^W\//, ""));
  return tags.includes("*") || tags.includes(etag);
}
