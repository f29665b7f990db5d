/**
 * TCG Vendor ID Registry, "TPM Capabilities Vendor ID" (Family 1.2 and 2.0, version 1.07): the four bytes
 * that TPM_PT_MANUFACTURER and tpmManufacturer hold. Data; a new vendor is a new row.
 * A registered number says nothing of who may use it: trust comes from the chain alone.
 */
const REGISTERED: ReadonlySet<string> = new Set([
  "414D4400", // AMD
  "414E5400", // Ant Group
  "41544D4C", // Atmel
  "4252434D", // Broadcom
  "4353434F", // Cisco
  "464C5953", // Flyslice Technologies
  "524F4343", // Fuzhou Rockchip
  "474F4F47", // Google
  "48504900", // HPI
  "48504500", // HPE
  "48495349", // Huawei
  "49424D00", // IBM
  "49465800", // Infineon
  "494E5443", // Intel
  "4C454E00", // Lenovo
  "4D534654", // Microsoft
  "4E534D20", // National Semiconductor
  "4E545A00", // Nationz
  "4E534700", // NSING
  "4E544300", // Nuvoton
  "51434F4D", // Qualcomm
  "534D534E", // Samsung
  "53454345", // SecEdge
  "534E5300", // Sinosun
  "534D5343", // SMSC
  "53544D20", // ST Microelectronics
  "54584E00", // Texas Instruments
  "57454300", // Winbond
]);

/** @param manufacturer `id:` and eight upper-case hexadecimal digits */
export function isRegisteredVendor(manufacturer: string): boolean {
  return REGISTERED.has(manufacturer.slice("id:".length));
}
