/** Which proxies before the listener are believed (docs/deploy.md). */
import { Type } from "typebox";

export const trustedProxiesSchema: Type.TUnsafe<readonly string[]> = Type.Unsafe<readonly string[]>(
  Type.Array(Type.String({ pattern: "^[0-9a-fA-F:./]+$", maxLength: 64 }), {
    description:
      "networks of your own proxies before it: only they say who the client is and may ask /.stile/authorize",
    maxItems: 256,
    default: [],
  }),
);
