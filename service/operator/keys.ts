/**
 * The issuer's keys in the operator's hands: `GET /keys`, and of a process that is the issuer itself
 * `POST /keys/rotate` and `POST /keys/:tokenKeyId/revoke`. What it tells of a key is public.
 */
import type { FastifyInstance } from "fastify";
import type { KeyAdministration } from "../issuer/tenants.ts";
import type { IssuerKeys } from "../keys/issuer-keys.ts";

export type KeyChanges = Pick<KeyAdministration, "rotate" | "revoke">;

interface RotateBody {
  readonly issuer?: string;
  readonly tokenType?: number;
}

const rotateSchema = {
  body: {
    type: "object",
    additionalProperties: false,
    properties: {
      issuer: { type: "string", minLength: 1, maxLength: 260 },
      tokenType: { type: "integer", minimum: 0, maximum: 65_535 },
    },
  },
} as const;
const revokeSchema = {
  params: {
    type: "object",
    properties: { tokenKeyId: { type: "string", pattern: "^[0-9a-f]{64}$" } },
  },
} as const;

export function registerKeyRoutes(
  app: FastifyInstance,
  keys: Pick<IssuerKeys, "list"> & Partial<KeyChanges>,
): void {
  app.get("/keys", () => ({ keys: keys.list() }));
  const { revoke, rotate } = keys;
  // An edge that follows an issuer has its keys to show, not to change.
  if (revoke === undefined || rotate === undefined) return;
  app.post<{ Body: RotateBody }>(
    "/keys/rotate",
    { schema: rotateSchema },
    async (request, reply) => {
      await rotate(request.body);
      return reply.send({ keys: keys.list() });
    },
  );
  app.post<{ Params: { tokenKeyId: string } }>(
    "/keys/:tokenKeyId/revoke",
    { schema: revokeSchema },
    async (request, reply) => {
      await revoke(request.params.tokenKeyId);
      return reply.send({ keys: keys.list() });
    },
  );
}
