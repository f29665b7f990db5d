/** Settings of the keys that clearances are signed with (docs/keys.md). */
import { Type } from "typebox";
import { DAY, flag, section, whole } from "./kinds.ts";

export interface ClearanceKeysConfig {
  readonly activeSeconds: number;
  readonly publishedSeconds: number;
  readonly copied: boolean;
}

/** Twice as long as `/.well-known/jwks.json` may be cached. */
const MIN_PUBLISHED_SECONDS = 600;

const settings = Type.Object(
  {
    activeSeconds: whole("how long a key signs clearances", 3_600, 365 * DAY, 30 * DAY),
    publishedSeconds: whole(
      "how long a key is shown (JWKS, `stile clearance-key`) before it signs",
      MIN_PUBLISHED_SECONDS,
      30 * DAY,
      DAY,
    ),
    copied: flag(
      "another edge makes the keys; this one looks each minute at what is copied into stateDir/clearance-keys",
    ),
  },
  section,
);

export const clearanceKeySettings: Type.TUnsafe<ClearanceKeysConfig> =
  Type.Unsafe<ClearanceKeysConfig>(settings);
