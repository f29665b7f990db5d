/** The section `limits`: what one client may take of the listener's time and memory, and how it ends. */
import { Type } from "typebox";
import { DAY, section, whole } from "./kinds.ts";

export interface LimitsConfig {
  readonly requestsPerMinute: number;
  readonly drainSeconds: number;
  readonly handshakeSeconds: number;
  readonly headersSeconds: number;
  readonly requestSeconds: number;
  readonly idleSeconds: number;
  readonly keepAliveSeconds: number;
  readonly headerBytes: number;
  readonly headers: number;
  readonly http2Streams: number;
}

const settings = Type.Object(
  {
    requestsPerMinute: whole(
      "requests of one address to Stile's own endpoints",
      1,
      10_000_000,
      600,
    ),
    drainSeconds: whole("time for open requests when the service stops", 0, 3_600, 15),
    handshakeSeconds: whole("for a TLS handshake", 1, 300, 10),
    headersSeconds: whole("for the head of a request; not above requestSeconds", 1, 3_600, 15),
    requestSeconds: whole(
      "for a whole request with its body, however steadily it comes",
      1,
      DAY,
      900,
    ),
    idleSeconds: whole(
      "silence of a client with a body to send or an answer to read",
      1,
      3_600,
      60,
    ),
    keepAliveSeconds: whole("that a connection waits for its next request", 1, 3_600, 75),
    headerBytes: whole("of all header fields of a request; more get 431", 4_096, 131_072, 16_384),
    headers: whole("header fields of a request", 20, 1_000, 100),
    http2Streams: whole("requests of an HTTP/2 connection under way at once", 1, 1_000, 100),
  },
  section,
);

/** The section `limits`. */
export const limitsSettings: Type.TUnsafe<LimitsConfig> = Type.Unsafe<LimitsConfig>(settings);

/** Node would not start with it. */
export function limitsFault({ limits }: { readonly limits: LimitsConfig }): string | undefined {
  return limits.headersSeconds > limits.requestSeconds
    ? "limits.headersSeconds must not be above limits.requestSeconds"
    : undefined;
}
