/** The client of Privacy Pass for a page: what needs nothing of Node. */
export { parseWwwAuthenticate } from "../challenge/private-token.ts";
export {
  createClientMetadata,
  DEFAULT_EXPIRATION_GRID,
  expirationMsOf,
} from "../metadata/client-metadata.ts";
export type { ExpirationGrid } from "../metadata/expiration-policy.ts";
export { createTokenClient, type PendingIssuance } from "./token-client.ts";
