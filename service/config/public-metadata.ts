/** Settings of token type 0xDA7A: which expirations its tokens may carry, and nothing else in their metadata. */
import { Type } from "typebox";
import { checkExpirationGrid, hasPublicMetadata, type ExpirationGrid } from "../../tokens/index.ts";
import { closed, DAY, whole } from "./kinds.ts";

export interface PublicMetadataConfig {
  readonly expirationPrecisionSeconds: number;
  readonly maxLifetimeSeconds: number;
}

export const publicMetadataSchema: Type.TObject = Type.Object(
  {
    expirationPrecisionSeconds: whole(
      "expirations are multiples of this, of the Unix time: the coarser, the more clients share one",
      60,
      30 * DAY,
      DAY,
    ),
    maxLifetimeSeconds: whole(
      "how far ahead an expiration may be: 1 to 16 times the precision, at most issuer.redeemableSeconds",
      60,
      365 * DAY,
      2 * DAY,
    ),
  },
  {
    ...closed,
    description: "of token type 55930, whose tokens carry an expiration that all can read",
  },
);

export function expirationGrid(config: PublicMetadataConfig): ExpirationGrid {
  const { expirationPrecisionSeconds: precisionSeconds, maxLifetimeSeconds } = config;
  return { precisionSeconds, maxLifetimeSeconds };
}

/** What is wrong with the settings taken together, as a sentence. */
export function publicMetadataFault(issuer: {
  readonly tokenTypes: readonly number[];
  readonly redeemableSeconds: number;
  readonly publicMetadata?: PublicMetadataConfig;
}): string | undefined {
  const { publicMetadata, redeemableSeconds, tokenTypes } = issuer;
  const isServed = tokenTypes.some(hasPublicMetadata);
  if (publicMetadata === undefined) {
    return isServed ? "missing setting issuer.publicMetadata" : undefined;
  }
  if (!isServed) return "issuer.publicMetadata is only for 55930 in issuer.tokenTypes";
  if (publicMetadata.maxLifetimeSeconds > redeemableSeconds) {
    // A token would die with its key before it expires.
    return "issuer.publicMetadata.maxLifetimeSeconds must not be above issuer.redeemableSeconds";
  }
  try {
    checkExpirationGrid(expirationGrid(publicMetadata));
    return undefined;
  } catch (error) {
    return `issuer.publicMetadata.${error instanceof Error ? error.message : String(error)}`;
  }
}
