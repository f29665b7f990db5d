/** The client of Privacy Pass for a page: what needs nothing of Node. */
export { parseWwwAuthenticate } from "../challenge/private-token.ts";
export { createTokenClient, type PendingIssuance } from "./token-client.ts";
