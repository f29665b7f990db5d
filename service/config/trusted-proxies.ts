/** Which proxies before the listener are believed (docs/deploy.md), and which speak the PROXY protocol (docs/front.md). */
import { Type } from "typebox";

const networks = (description: string): Type.TUnsafe<readonly string[]> =>
  Type.Unsafe<readonly string[]>(
    Type.Array(Type.String({ pattern: "^[0-9a-fA-F:./]+$", maxLength: 64 }), {
      description,
      maxItems: 256,
      default: [],
    }),
  );

export const trustedProxiesSchema: Type.TUnsafe<readonly string[]> = networks(
  "networks of your own proxies before it: only they say who the client is and may ask /.stile/authorize",
);

export const proxyProtocolSchema: Type.TUnsafe<readonly string[]> = networks(
  "networks whose connections must begin with a header of the PROXY protocol, version 1 or 2",
);
