/** The public keys with which others verify what Stile signs (RFC 7517 §5). */
import type { FastifyInstance } from "fastify";
import type { JWK } from "jose";

export function registerJwks(app: FastifyInstance, keys: readonly JWK[]): void {
  const body = Buffer.from(JSON.stringify({ keys }));
  app.get(
    "/.well-known/jwks.json",
    { schema: { summary: "Public keys of clearances and attestation results" } },
    (_request, reply) =>
      reply
        .header("cache-control", "public, max-age=300")
        .type("application/jwk-set+json")
        .send(body),
  );
}
