/** The general path's kept connections to one upstream. A request gets its connection when it is ready. */
import { Agent, type ClientRequestArgs } from "node:http";
import type { Duplex } from "node:stream";
import type { Dialled } from "./dial.ts";
import type { Upstream } from "./upstream.ts";

/** Idle connections that are kept. */
const MAX_FREE_SOCKETS = 256;

class UpstreamAgent extends Agent {
  readonly #upstream: Upstream;
  /** Of its connections. */
  readonly tlsVersion: number;

  constructor(upstream: Upstream, keepMs: number) {
    super({ keepAlive: true, maxFreeSockets: MAX_FREE_SOCKETS, timeout: keepMs });
    this.#upstream = upstream;
    this.tlsVersion = upstream.tlsVersion;
  }

  override createConnection(_options: ClientRequestArgs, callback?: Created): undefined {
    this.#upstream.dial(undefined, false, asCallback(callback));
  }

  /** All of them go to one place. */
  override getName(): string {
    return "";
  }
}

export class UpstreamAgents {
  readonly #keepMs: number;
  readonly #agents = new Map<Upstream, UpstreamAgent>();

  constructor(keepMs: number) {
    this.#keepMs = keepMs;
  }

  /** Connections that were verified by files of before serve no further request: they end by their time. */
  of(upstream: Upstream): UpstreamAgent {
    const known = this.#agents.get(upstream);
    if (known?.tlsVersion === upstream.tlsVersion) return known;
    const agent = new UpstreamAgent(upstream, this.#keepMs);
    this.#agents.set(upstream, agent);
    return agent;
  }

  destroy(): void {
    for (const agent of this.#agents.values()) agent.destroy();
  }
}

type Created = (error: Error | null, socket: Duplex) => void;

/** As `node:http` takes a connection that is made later. */
export function asCallback(created: Created | undefined): Dialled {
  return (error, socket) => {
    if (created === undefined) socket?.destroy();
    else if (socket !== undefined) created(null, socket);
    // Its types want a socket beside an error, too.
    else Reflect.apply(created, undefined, [error ?? new Error("no connection")]);
  };
}
