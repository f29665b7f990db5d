/** EK certificates: chain to a manufacturer, profile and key. */
export { parseTrustedRoots, type TrustedRoots } from "./roots.ts";
export {
  type EkCertificateOddity,
  type VerifiedEkCertificate,
  verifyEkCertificate,
  type VerifyEkCertificateOptions,
} from "./verify.ts";
