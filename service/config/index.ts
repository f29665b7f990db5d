/** Configuration: one schema, one parse, one frozen object. */
export type { EdgeAdaptiveConfig, ThresholdsConfig } from "./edge-adaptive.ts";
export type { AcmeCertificateConfig, AcmeChallengeType, AcmeConfig, AcmeKeyType } from "./acme.ts";
export type { EdgeAgentConfig } from "./edge-agents.ts";
export type { EdgeAction, EdgeMode, EdgeRuleConfig } from "./edge-rules.ts";
export type { ClientCertificatesConfig } from "./tls-clients.ts";
export { loadConfig } from "./load.ts";
export { rolesOf } from "./roles.ts";
export { checkConfig, configSchema } from "./schema.ts";
export type {
  AttesterConfig,
  AuthorizeHeaders,
  Config,
  EdgeConfig,
  FollowedIssuerConfig,
  IssuerConfig,
  RemoteIssuerConfig,
  SpentStoreConfig,
  TpmSealingConfig,
  TrustedAttesterConfig,
} from "./types.ts";
export type { PlainHttpConfig } from "./plain-http.ts";
export type { TlsConfig } from "./tls.ts";
export type { UpstreamConfig } from "./upstreams.ts";
export { expirationGrid } from "./public-metadata.ts";
