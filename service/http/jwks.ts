/** The public keys with which others verify what Stile signs (RFC 7517 §5). */
import type { FastifyInstance } from "fastify";
import type { JWK } from "jose";

/** @param keys those of now */
export function registerJwks(app: FastifyInstance, keys: () => readonly JWK[]): void {
  app.get(
    "/.well-known/jwks.json",
    { schema: { summary: "Public keys of clearances and attestation results" } },
    (_request, reply) =>
      reply
        // A key of clearances is here for twice as long before it signs, at the least (service/config).
        .header("cache-control", "public, max-age=300")
        .type("application/jwk-set+json")
        .send(Buffer.from(JSON.stringify({ keys: keys() }))),
  );
}
