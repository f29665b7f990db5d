/** One upstream: its address, how it does, and what it has under way. */
import type { OnReadOpts, Socket } from "node:net";
import type { UpstreamAddress } from "./address.ts";
import { dial, type Dialled } from "./dial.ts";
import { Ejection, type EjectionOptions } from "./ejection.ts";
import type { UpstreamFailure } from "./failure.ts";
import { PeakEwma } from "./peak-ewma.ts";
import { type ClientEnds, proxyHeader, type ProxyProtocol } from "./proxy-out.ts";
import type { UpstreamTls } from "./tls-client.ts";

export interface UpstreamSettings {
  /** Names it in metrics and in the log. */
  readonly name: string;
  readonly address: UpstreamAddress;
  /** Its share, relative to the others'. */
  readonly weight: number;
  readonly maxUnderWay: number;
  readonly tls: UpstreamTls | undefined;
  readonly connectTimeoutMs: number;
  readonly proxyProtocol: ProxyProtocol;
}

/** `ejected`, `readmitted`: by how exchanges go; `unhealthy`, `healthy`: by the checks. */
export type UpstreamEvent = "ejected" | "readmitted" | "unhealthy" | "healthy";

/** How its attempts ended. `abandoned`: the client left first, or a kept connection had ended before. */
export type AttemptOutcome = "answered" | UpstreamFailure | "abandoned";

/** Of an upstream that has not answered yet, while it is asked: others are asked first. */
const UNKNOWN_MS = 60_000;

export class Upstream {
  readonly settings: UpstreamSettings;
  readonly outcomes: Record<AttemptOutcome, number> = {
    answered: 0,
    connect: 0,
    broken: 0,
    malformed: 0,
    timeout: 0,
    abandoned: 0,
  };
  /** As the active checks see it. */
  isHealthy = true;
  underWay = 0;
  /** Undefined where there is no other to turn to. */
  readonly ejection: Ejection | undefined;
  readonly #latency = new PeakEwma();

  constructor(settings: UpstreamSettings, ejection: EjectionOptions | undefined) {
    this.settings = settings;
    this.ejection = ejection && new Ejection(ejection);
  }

  get name(): string {
    return this.settings.name;
  }

  /** What connections are made under: they are kept for as long as it stays. */
  get tlsVersion(): number {
    return this.settings.tls?.version() ?? 0;
  }

  get isFull(): boolean {
    return this.underWay >= this.settings.maxUnderWay;
  }

  stateAt(nowMs: number): "in" | "out" | "trial" {
    if (!this.isHealthy) return "out";
    return this.ejection?.stateAt(nowMs) ?? "in";
  }

  latencyMs(nowMs: number): number {
    return this.#latency.read(nowMs);
  }

  /** What one request more would meet there: the lower, the better. */
  cost(nowMs: number): number {
    const latency = this.#latency.read(nowMs);
    const perRequest = latency === 0 && this.underWay > 0 ? UNKNOWN_MS : latency;
    return (perRequest * (this.underWay + 1)) / this.settings.weight;
  }

  count(outcome: AttemptOutcome, elapsedMs: number, nowMs: number): void {
    this.outcomes[outcome] += 1;
    if (outcome === "answered") this.#latency.observe(elapsedMs, nowMs);
    else if (outcome !== "connect") this.#latency.observeAtLeast(elapsedMs, nowMs);
  }

  /** @param client whose request it is for; undefined for our own. @returns ends the attempt without a word */
  dial(
    client: ClientEnds | undefined,
    halfOpen: boolean,
    done: Dialled,
    onRead?: OnReadOpts,
  ): () => void {
    const { address, connectTimeoutMs: timeoutMs, proxyProtocol, tls } = this.settings;
    const header = proxyHeader(proxyProtocol, client);
    return dial({ address, tls, timeoutMs, header, halfOpen, onRead }, done);
  }

  connect(client: ClientEnds | undefined, halfOpen: boolean): Promise<Socket> {
    return new Promise((resolve, reject) => {
      this.dial(client, halfOpen, (error, socket) => {
        if (socket === undefined) reject(error ?? new Error("no connection"));
        else resolve(socket);
      });
    });
  }
}
