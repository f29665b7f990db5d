/** A software TPM that has attested to a sidecar, and asks it for tokens. */
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { attest, connectTransport, createDpopProof, openDevice } from "../../attest/agent/index.ts";
import type { ExchangeAnswer } from "../../service/agent/exchange.ts";
import { openManufacturerCa, startSwtpm } from "../../swtpm/index.ts";
import type { TestSidecar } from "./sidecar.ts";

export interface AttestedDevice {
  /** Asks for tokens, with a proof of its key. */
  readonly request: (mediaType: string, body: Uint8Array) => Promise<ExchangeAnswer>;
  readonly close: () => Promise<void>;
}

/** By the clock of the sidecar, or of the attester. */
export async function openAttestedDevice(
  target: Pick<TestSidecar, "ca" | "dir" | "post" | "url"> & {
    readonly clock: Pick<TestSidecar["clock"], "offsetMs">;
  },
): Promise<AttestedDevice> {
  const clock = (): number => Date.now() + target.clock.offsetMs;
  const random = (length: number): Uint8Array => Uint8Array.from(randomBytes(length));
  const folder = join(target.dir, "manufacturer");
  const ca = await openManufacturerCa({ clock, folder });
  const tpm = await startSwtpm({ ca, ekAlgorithms: ["ecc"] });
  const device = await openDevice({ tcti: tpm.tcti, ekAlgorithm: "ecc" });
  const origin = target.url;
  const transport = await connectTransport({ origin, ca: target.ca, timeoutMs: 10_000 });
  const { attestationResult: accessToken } = await attest({ device, transport, clock });
  transport.close();
  return {
    request: async (mediaType, body) => {
      const uri = `${target.url}/token-request`;
      const proof = { device, method: "POST", uri, accessToken, clock, random };
      const ask = async (nonce?: string): Promise<ExchangeAnswer> =>
        target.post("/token-request", body, {
          authorization: `DPoP ${accessToken}`,
          dpop: await createDpopProof({ ...proof, nonce }),
          "content-type": mediaType,
        });
      const first = await ask();
      // An attester that has started anew.
      const nonce = first.headers["dpop-nonce"];
      return first.status === 401 && typeof nonce === "string" ? ask(nonce) : first;
    },
    close: async () => {
      await device.close();
      await tpm.stop();
    },
  };
}
