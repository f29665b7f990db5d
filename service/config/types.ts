/** The configuration as every part of the service sees it; the schema beside it says what each setting means. */

import type { EdgeAdaptiveConfig } from "./edge-adaptive.ts";
import type { AcmeConfig } from "./acme.ts";
import type { EdgeAgentConfig } from "./edge-agents.ts";
import type { EdgeMode, EdgeRuleConfig } from "./edge-rules.ts";
import type { ClearanceKeysConfig } from "./clearance-keys.ts";
import type { ExtAuthzConfig } from "./ext-authz.ts";
import type { LimitsConfig } from "./limits.ts";
import type { PassthroughConfig } from "./passthrough.ts";
import type { PlainHttpConfig } from "./plain-http.ts";
import type { ProcessesConfig } from "./processes.ts";
import type { PublicMetadataConfig } from "./public-metadata.ts";
import type { TlsConfig } from "./tls.ts";
import type { UpstreamsConfig } from "./upstreams.ts";
import type { WebAuthnConfig } from "./webauthn.ts";

/** Roles of RFC 9576 §3; joint: all three in one process. */
export type Role = "joint" | "edge" | "attester" | "issuer";

/** What a challenge is bound to (RFC 9577 §2.1.1.2). */
export type RedemptionContextSetting = "none" | "window" | "window+network" | "connection";

/** Which headers of a proxy's question say what it is about; none: it is not asked. */
export type AuthorizeHeaders = "off" | "original" | "forwarded";

export interface Config {
  readonly role: Role;
  readonly publicUrl: string;
  readonly listen: {
    readonly host: string;
    readonly port: number;
    readonly trustedProxies: readonly string[];
    readonly proxyProtocol: readonly string[];
    /** Without it, nothing listens for plain HTTP. */
    readonly http?: PlainHttpConfig;
    readonly passthrough: readonly PassthroughConfig[];
  };
  readonly operator: { readonly listen: string };
  readonly stateDir: string;
  /** One of the two says what opens the keys at rest. */
  readonly passphraseFile?: string;
  readonly tpmSealing?: TpmSealingConfig;
  readonly log: { readonly level: "debug" | "info" | "warn" | "error" | "silent" };
  readonly processes: ProcessesConfig;
  readonly tls: TlsConfig;
  /** Certificates from an ACME server, beside those of `tls` or alone. */
  readonly acme?: AcmeConfig;
  /** Of the roles edge and joint. */
  readonly edge?: EdgeConfig;
  /** Of the roles attester and joint. */
  readonly attester?: AttesterConfig;
  readonly issuer: IssuerConfig;
  readonly limits: LimitsConfig;
}

/** The passphrase, sealed to a TPM (docs/keys.md). */
export interface TpmSealingConfig {
  readonly tcti: string;
  readonly pcrs: readonly number[];
}

export interface EdgeConfig extends UpstreamsConfig {
  readonly hosts: readonly string[];
  readonly issuerName: string;
  readonly mode: EdgeMode;
  /** Of the mode adaptive. */
  readonly adaptive?: EdgeAdaptiveConfig;
  readonly agents: readonly EdgeAgentConfig[];
  readonly rules: readonly EdgeRuleConfig[];
  readonly redemptionContext: RedemptionContextSetting;
  readonly windowSeconds: number;
  readonly clearanceSeconds: number;
  readonly clearanceKeys: ClearanceKeysConfig;
  readonly challengeMaxAgeSeconds: number;
  readonly grease: boolean;
  readonly maxBodyBytes: number;
  readonly fastPath: boolean;
  readonly authorize: { readonly headers: AuthorizeHeaders };
  readonly extAuthz?: ExtAuthzConfig;
  readonly fallbackUrl?: string;
  readonly cors: { readonly origins: readonly string[] };
  readonly spentStore: SpentStoreConfig;
  /** Of the role edge: whose keys it redeems under. */
  readonly issuer?: FollowedIssuerConfig;
}

/** Where spent tokens are remembered (docs/spent-store.md). */
export interface SpentStoreConfig {
  readonly engine: "embedded" | "postgres" | "valkey";
  readonly servers: readonly string[];
  readonly user?: string;
  readonly passwordFile?: string;
  readonly caFile?: string;
  readonly database: string;
  readonly cluster: boolean;
  readonly replicas: number;
  readonly replicasOnDisk: boolean;
  readonly unsafeDurability: boolean;
}

export interface FollowedIssuerConfig {
  readonly url: string;
  readonly caFile?: string;
  readonly refreshSeconds: number;
  readonly logKeyId?: string;
}

export interface AttesterConfig {
  readonly manufacturerRootsFile: string;
  readonly manufacturerRootsPin?: { readonly version: string; readonly sha256: string };
  readonly channelBinding: "required" | "unsafeOff";
  readonly pcrs: readonly number[];
  readonly sessionSeconds: number;
  readonly maxSessions: number;
  readonly resultSeconds: number;
  readonly policyFile?: string;
  readonly retentionDays: number;
  readonly webauthn: WebAuthnConfig;
  readonly allowance: { readonly tokens: number; readonly windowSeconds: number };
  /** Of the role attester: where token requests are forwarded to. */
  readonly issuer?: RemoteIssuerConfig;
}

export interface RemoteIssuerConfig {
  readonly url: string;
  readonly caFile?: string;
  readonly certificateFile: string;
  readonly keyFile: string;
  readonly timeoutSeconds: number;
}

export interface IssuerConfig {
  readonly activeSeconds: number;
  readonly directoryMaxAgeSeconds: number;
  readonly redeemableSeconds: number;
  readonly maxBatch: number;
  readonly workers: number;
  readonly maxQueue: number;
  readonly tokenTypes: readonly number[];
  /** Of token type 0xDA7A. */
  readonly publicMetadata?: PublicMetadataConfig;
  readonly voprfEngine: "native" | "any";
  /** Of the role issuer: who may ask it for signatures. */
  readonly attesters: readonly TrustedAttesterConfig[];
  /** Of the role issuer: further issuers in the same process. */
  readonly tenants: readonly TenantConfig[];
}

export interface TenantConfig {
  readonly name: string;
  readonly attesters?: readonly string[];
}

export interface TrustedAttesterConfig {
  readonly name: string;
  readonly certificateSha256: readonly string[];
  readonly tokensPerMinute: number;
}
