/** The client's side, on Node: requests and finalisation over privacypass-ts, and a wallet on disk. */
export { createPrivateTokenClient } from "./private-token-client.ts";
export {
  createTokenClient,
  type IssuanceResponse,
  type PendingIssuance,
  type TokenClient,
  type TokenClientRequest,
} from "./token-client.ts";
export { openWallet, type Wallet, type WalletOptions, type WalletToken } from "./wallet.ts";
