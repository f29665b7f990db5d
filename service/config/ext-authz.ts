/** Settings of the gRPC listener that Envoy asks (docs/deploy.md). */
import { Type } from "typebox";
import { closed, text } from "./kinds.ts";

export interface ExtAuthzConfig {
  readonly listen: string;
}

const settings = Type.Object(
  {
    listen: text(
      "where Envoy asks by gRPC: host:port on loopback, for listen.trustedProxies, or unix:/path, for whoever may open it",
    ),
  },
  closed,
);

/** The section `edge.extAuthz`; without it there is no such listener. */
export const extAuthzSettings: Type.TUnsafe<ExtAuthzConfig> = Type.Unsafe<ExtAuthzConfig>(settings);
