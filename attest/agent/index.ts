/** The device side of the attestation. Needs tpm2-tss and Node. */
export { attest, type Attested, type AttestOptions } from "./attest.ts";
export { type Device, type DeviceOptions, openDevice } from "./device.ts";
export { createDpopProof, type DpopProofOptions } from "./dpop.ts";
export {
  EK_CHAIN_FIRST_INDEX,
  EK_NV_INDICES,
  type EkCertificates,
  loadEk,
  readEkCertificates,
  splitCertificates,
} from "./ek.ts";
export { es256JwkOf, publicKeyOf } from "./public-key.ts";
export {
  akTemplate,
  deviceKeyTemplate,
  type EkAlgorithm,
  ekTemplate,
  isDefaultEk,
} from "./templates.ts";
export {
  type AttestTransport,
  connectTransport,
  type NodeTransport,
  type NodeTransportOptions,
} from "./transport.ts";
