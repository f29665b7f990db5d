/**
 * The keys of clearances in the operator's hands: `GET /clearance-keys`, and where they are this edge's own
 * `POST /clearance-keys/rotate` and `POST /clearance-keys/:kid/revoke`. What it tells of a key is public.
 */
import type { FastifyInstance } from "fastify";
import type { ClearanceKeys } from "../edge/clearance-keys.ts";

export type ClearanceKeyRoutes = Pick<ClearanceKeys, "changes" | "list" | "observe">;

const revokeSchema = {
  params: {
    type: "object",
    properties: { kid: { type: "string", pattern: "^[A-Za-z0-9_-]{22}$" } },
  },
} as const;

export function registerClearanceKeyRoutes(
  app: FastifyInstance,
  { changes, list }: ClearanceKeyRoutes,
): void {
  app.get("/clearance-keys", () => ({ keys: list() }));
  if (changes === undefined) return;
  app.post("/clearance-keys/rotate", async (_request, reply) => {
    await changes.rotate();
    return reply.send({ keys: list() });
  });
  app.post<{ Params: { kid: string } }>(
    "/clearance-keys/:kid/revoke",
    { schema: revokeSchema },
    async (request, reply) => {
      await changes.revoke(request.params.kid);
      return reply.send({ keys: list() });
    },
  );
}
