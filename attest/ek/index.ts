/** EK certificates: chain to a manufacturer, profile and key. */
export { type ManufacturerBundle, parseManufacturerBundle } from "./bundle.ts";
export {
  type CollectedManufacturer,
  encodeManufacturerBundle,
  type EncodedBundle,
} from "./encode-bundle.ts";
export { parseRevocationLists, type RevocationList } from "./crl.ts";
export { denyRowsOf, parseDenyList } from "./deny-list.ts";
export {
  checkFirmware,
  exactVersion,
  type FirmwareFinding,
  type FirmwarePolicy,
  parseTpmVersion,
  type TpmFirmware,
} from "./firmware.ts";
export { EK_CERTIFICATE_ODDITIES, type EkCertificateOddity } from "./oddities.ts";
export type { RevocationPolicy } from "./revocation.ts";
export { parseTrustedRoots, type TrustedRoots } from "./roots.ts";
export {
  type VerifiedEkCertificate,
  verifyEkCertificate,
  type VerifyEkCertificateOptions,
} from "./verify.ts";
export { VULNERABLE_FIRMWARE } from "./vulnerable-firmware.ts";
