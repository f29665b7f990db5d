/**
 * `POST /.stile/clearance`: a page exchanges a token for the clearance cookie, without a request to the
 * application that would have effects of its own.
 */
import type { FastifyInstance } from "fastify";
import { StileError } from "../../wire/index.ts";
import type { Admission } from "../edge/admission.ts";
import { networkOf, normalHost } from "../edge/host.ts";
import { sendProblem } from "../http/app.ts";

export interface ClearanceRouteOptions {
  readonly admission: Admission;
  readonly hosts: readonly string[];
}

export function registerClearanceRoute(
  app: FastifyInstance,
  { admission, hosts }: ClearanceRouteOptions,
): void {
  const served: ReadonlySet<string> = new Set(hosts.map((host) => normalHost(host)));
  app.post(
    "/.stile/clearance",
    { schema: { summary: "A token for the clearance cookie, for pages" } },
    async (request, reply) => {
      const host = normalHost(request.headers.host ?? "");
      if (!served.has(host)) {
        throw new StileError("SERVICE_HOST_UNKNOWN", "this edge does not serve that host");
      }
      const decision = await admission.decide({
        host,
        // Whoever has a clearance already does not come here: a token is to be spent.
        cookie: undefined,
        authorization: request.headers.authorization,
        idempotencyKey: undefined,
        network: networkOf(request.ip),
      });
      if (decision.kind === "challenged") {
        return sendProblem(reply, decision.error, { "www-authenticate": decision.wwwAuthenticate });
      }
      const { clearance } = decision;
      if (clearance !== undefined) void reply.header("set-cookie", clearance.setCookie);
      return reply.code(204).send();
    },
  );
}
