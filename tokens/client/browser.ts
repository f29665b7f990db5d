/** The client of Privacy Pass for a page: what needs nothing of Node. */
export { createTokenClient, type PendingIssuance } from "./token-client.ts";
