/** Software TPMs. Only tests, demonstrations and the development mode import this. */
export {
  createManufacturerCa,
  type ManufacturerCa,
  openManufacturerCa,
} from "./manufacturer-ca.ts";
export { startSwtpm, type Swtpm } from "./start.ts";
