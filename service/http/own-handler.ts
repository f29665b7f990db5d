/** The public listener of a process that is no edge: Stile's own endpoints, and nothing to forward to. */
import type { FastifyInstance } from "fastify";
import { checkRequestHead } from "../../tls/index.ts";
import { StileError } from "../../wire/index.ts";
import type { EdgeHandler } from "../edge/handler.ts";
import { refuse, refuseUpgrade } from "../edge/refusal.ts";
import { problemOf } from "../problems.ts";

export function createOwnHandler(app: FastifyInstance): EdgeHandler {
  return {
    handle: (request, response) => {
      try {
        checkRequestHead(request);
        app.routing(request, response);
      } catch (error) {
        refuse(request, response, problemOf(error), {});
      }
    },
    upgrade: (_request, socket) => {
      const error = new StileError("SERVICE_NOT_FOUND", "no such resource");
      refuseUpgrade(socket, problemOf(error), {});
    },
  };
}
