/** What of a client's credentials is the application's own: all but the token and the clearance. */
import { otherCredentials } from "../../tokens/index.ts";
import { withoutClearanceCookie } from "./clearance.ts";

/** Without what would be empty. */
export function credentialsForUpstream({
  authorization,
  cookie,
}: {
  readonly authorization?: string | undefined;
  readonly cookie?: string | undefined;
}): {
  readonly authorization?: string;
  readonly cookie?: string;
} {
  const kept = cookie === undefined ? undefined : withoutClearanceCookie(cookie);
  const others = authorization === undefined ? undefined : otherCredentials(authorization);
  return {
    ...(others === undefined ? {} : { authorization: others }),
    ...(kept === undefined ? {} : { cookie: kept }),
  };
}
