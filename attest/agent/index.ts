/** The device side of the attestation. Needs tpm2-tss and Node. */
export {
  EK_CHAIN_FIRST_INDEX,
  EK_NV_INDICES,
  type EkCertificates,
  loadEk,
  readEkCertificates,
  splitCertificates,
} from "./ek.ts";
export { type PublicJwk, publicJwk, publicKeyOf } from "./public-key.ts";
export {
  akTemplate,
  deviceKeyTemplate,
  type EkAlgorithm,
  ekTemplate,
  isDefaultEk,
} from "./templates.ts";
