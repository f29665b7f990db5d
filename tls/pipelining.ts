/**
 * Bounds what one connection can have done at once. A client may send request after request without
 * reading an answer (RFC 9112 §9.3.2); node:http hands all of them over as they are parsed, so that a few
 * kilobytes would become thousands of requests under way. Here the excess waits, in order, and the
 * connection is not read on until it has been started.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";

type RequestHandler = (request: IncomingMessage, response: ServerResponse) => void;

interface Pipeline {
  /** Requests that were started and are not answered. */
  active: number;
  readonly waiting: (() => void)[];
  isPausing: boolean;
}

/** @param maxActive requests of one connection that are handled at the same time */
export function limitPipelining(handler: RequestHandler, maxActive: number): RequestHandler {
  const pipelines = new WeakMap<Socket, Pipeline>();

  function pipelineOf(socket: Socket): Pipeline {
    const known = pipelines.get(socket);
    if (known !== undefined) return known;
    const pipeline: Pipeline = { active: 0, waiting: [], isPausing: false };
    pipelines.set(socket, pipeline);
    return pipeline;
  }

  return (request, response) => {
    const { socket } = request;
    const pipeline = pipelineOf(socket);
    const start = (): void => {
      pipeline.active += 1;
      response.once("close", () => {
        pipeline.active -= 1;
        // Nobody is left to be answered: what did not begin never does.
        if (socket.destroyed) pipeline.waiting.splice(0);
        pipeline.waiting.shift()?.();
        if (pipeline.waiting.length === 0 && socket.isPaused()) socket.resume();
      });
      handler(request, response);
    };
    if (pipeline.active < maxActive) {
      start();
      return;
    }
    pipeline.waiting.push(start);
    pauseAfterRead(socket, pipeline);
  };
}

/**
 * Two ticks later: node:http resumes the socket after each message that it parsed, and that resumption
 * reaches the handle one tick later, whatever was paused in between. TLS gives on what it has decrypted
 * even then, so this is done after each record: some hundred heads are parsed on at most.
 */
function pauseAfterRead(socket: Socket, pipeline: Pipeline): void {
  if (pipeline.isPausing) return;
  pipeline.isPausing = true;
  process.nextTick(() =>
    process.nextTick(() => {
      pipeline.isPausing = false;
      if (pipeline.waiting.length > 0) socket.pause();
    }),
  );
}
