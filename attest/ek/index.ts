/** EK certificates: chain to a manufacturer, profile and key. */
export { EK_CERTIFICATE_ODDITIES, type EkCertificateOddity } from "./oddities.ts";
export { parseTrustedRoots, type TrustedRoots } from "./roots.ts";
export {
  type VerifiedEkCertificate,
  verifyEkCertificate,
  type VerifyEkCertificateOptions,
} from "./verify.ts";
