/** The public listener of a process that is no edge: Stile's own endpoints, and nothing to forward to. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { checkRequestHead } from "../../tls/index.ts";
import { StileError } from "../../wire/index.ts";
import type { EdgeHandler } from "../edge/handler.ts";
import { refuse, refuseUpgrade } from "../edge/refusal.ts";
import { problemOf } from "../problems.ts";

/** Answers a request whose head is sound. */
export type OwnEndpoints = (request: IncomingMessage, response: ServerResponse) => void;

export function createOwnHandler(ownEndpoints: OwnEndpoints): EdgeHandler {
  return {
    handle: (request, response) => {
      try {
        checkRequestHead(request);
        ownEndpoints(request, response);
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
