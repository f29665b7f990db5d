/** Software TPMs. Only tests, demonstrations and the development mode import this. */
export {
  createManufacturerCa,
  type ManufacturerCa,
  type ManufacturerCaDeps,
  openManufacturerCa,
} from "./manufacturer-ca.ts";
export { startSwtpm, type Swtpm, type SwtpmOptions } from "./start.ts";
