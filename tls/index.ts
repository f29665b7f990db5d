/** TLS 1.3 termination, request hygiene and forwarding. It knows requests, never tokens or devices. */
export type { ChallengeCertificates } from "./acme-alpn.ts";
export {
  type CertificateFiles,
  type CertificateSource,
  fileCertificates,
  type FileCertificatesOptions,
} from "./certificates.ts";
export {
  type ClientCertificateRule,
  type ClientCertificates,
  createClientCertificates,
  type VerifiedClient,
} from "./clients/client-certificates.ts";
export { isSpiffePattern } from "./clients/identity.ts";
export { tlsExporter } from "./exporter.ts";
export {
  createForwarder,
  type ForwardExtra,
  type Forwarder,
  type ForwarderOptions,
} from "./forwarder.ts";
export { type AddressCounter, createAddressCounter } from "./front/address-limits.ts";
export type { FrontEvent, FrontOptions } from "./front/front.ts";
export type { PassthroughRecord, PassthroughRoute } from "./front/passthrough.ts";
export {
  ADDRESS_BYTES,
  isInNetwork,
  type Network,
  parseNetwork,
  readAddress,
} from "./front/network.ts";
export {
  encodeProxyHeader,
  type Endpoint,
  type ProxiedConnection,
  type ProxyVersion,
} from "./front/proxy-header.ts";
export { isSpoofable } from "./header-hygiene.ts";
export { writeUpgradeHead } from "./h2/upgrade-answer.ts";
export {
  createListener,
  DEFAULT_LISTENER_LIMITS,
  type ListenAt,
  type Listener,
  type ListenerLimits,
  type ListenerOptions,
  type TlsEvent,
} from "./listener.ts";
export { checkRequestHead } from "./request-head.ts";
export type { RequestHead } from "./splice/request-head.ts";
export type { FastDecision, FastPath, FastPathOptions, LocalAnswer } from "./splice/splicer.ts";
export { dnsNamesOf, type ServerCertificate, signatureOf, wildcardOf } from "./server-names.ts";
export { createTicketKeys, type TicketKeySource } from "./ticket-keys.ts";
export { parseUpstream, type UpstreamAddress } from "./upstreams/address.ts";
export type { UpstreamOutcome } from "./upstreams/failure.ts";
export type { HealthCheckOptions } from "./upstreams/health-check.ts";
export { createUpstreamTls, type UpstreamTls } from "./upstreams/tls-client.ts";
export type { UpstreamEvent, UpstreamSettings } from "./upstreams/upstream.ts";
export { createUpstreams, type Upstreams, type UpstreamsOptions } from "./upstreams/upstreams.ts";
export { watchFiles, type WatchedFiles } from "./watched-files.ts";
export { checkUpgradeRequest } from "./upgrade.ts";
export { closeSoon } from "./close-soon.ts";
