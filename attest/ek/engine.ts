/** The engine of Web Crypto that pkijs runs on here, and SHA-256 by it. One per process; it has no state. */
import { Crypto } from "@peculiar/webcrypto";
import * as pkijs from "pkijs";

// Node's SubtleCrypto type has key encapsulation, which pkijs declares and its engine lacks.
export const engine: pkijs.ICryptoEngine = new pkijs.CryptoEngine({
  name: "stile",
  crypto: new Crypto(),
}) as unknown as pkijs.ICryptoEngine;

export async function sha256(data: Uint8Array): Promise<Uint8Array> {
  return new Uint8Array(await engine.digest("SHA-256", Uint8Array.from(data)));
}
