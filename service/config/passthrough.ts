/** Hosts that are forwarded without being decrypted, `listen.passthrough` (docs/front.md). */
import { Type } from "typebox";
import { choice, closed, DAY, text, whole } from "./kinds.ts";

export interface PassthroughConfig {
  readonly names: readonly string[];
  readonly upstream: string;
  readonly proxyProtocol: "off" | "v1" | "v2";
  readonly maxConnections: number;
  readonly connectTimeoutSeconds: number;
  readonly idleTimeoutSeconds: number;
}

const passthrough = Type.Object(
  {
    names: Type.Array(
      Type.String({ pattern: "^(\\*\\.)?[a-z0-9_-]{1,63}(\\.[a-z0-9_-]{1,63})*$", maxLength: 255 }),
      {
        description: "server names, or *.domain for one more label; none that this service answers",
        minItems: 1,
        maxItems: 256,
        uniqueItems: true,
      },
    ),
    upstream: text("where their connections go: host:port or unix:/path"),
    proxyProtocol: choice("what tells it the client's address: a header of this version, or off", [
      "off",
      "v1",
      "v2",
    ]),
    maxConnections: whole("connections at a time; more are refused", 1, 1_000_000, 1_000),
    connectTimeoutSeconds: whole("until it has taken a connection", 1, 300, 5),
    idleTimeoutSeconds: whole("silence of both sides", 1, DAY, 300),
  },
  closed,
);

export const passthroughSchema: Type.TUnsafe<readonly PassthroughConfig[]> = Type.Unsafe<
  readonly PassthroughConfig[]
>(
  Type.Array(passthrough, {
    description: "hosts whose connections are forwarded undecrypted, by their server name",
    maxItems: 256,
    default: [],
  }),
);
