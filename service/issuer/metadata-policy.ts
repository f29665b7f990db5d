/** Which public metadata is signed and accepted, as the configuration says it: the same at issuer and edge. */
import { createExpirationPolicy, type MetadataPolicy } from "../../tokens/index.ts";
import { expirationGrid, type IssuerConfig } from "../config/index.ts";

/** Empty where no type with public metadata is served. */
export function metadataPolicyOf(
  { publicMetadata }: IssuerConfig,
  clock: () => number,
): { readonly metadataPolicy?: MetadataPolicy } {
  if (publicMetadata === undefined) return {};
  return { metadataPolicy: createExpirationPolicy({ ...expirationGrid(publicMetadata), clock }) };
}
