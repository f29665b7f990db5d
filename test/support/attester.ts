/** An attester that trusts the manufacturer of the software TPMs, and a way to reach it in memory. */
import { createHash } from "node:crypto";
import type { AttestTransport } from "../../attest/agent/index.ts";
import {
  type AppraisalPolicy,
  type AppraisedDevice,
  createTpmAttester,
  DEFAULT_APPRAISAL_POLICY,
  type DeviceRecord,
  type DeviceRegistry,
  encodeChallengeResponse,
  encodeEvidenceResponse,
  parseChallengeRequest,
  parseEvidenceRequest,
  parseTrustedRoots,
  type TpmAttester,
} from "../../attest/index.ts";
import { createNodeAttestCrypto } from "../../attest/node/index.ts";
import { testNow } from "./swtpm.ts";

/** Deterministic bytes that do not repeat: a stand-in for a CSPRNG. */
export function seededRandom(seed: string): (length: number) => Uint8Array {
  let count = 0;
  return (length) => {
    count += 1;
    return new Uint8Array(
      createHash("shake256", { outputLength: length }).update(`${seed} ${count}`).digest(),
    );
  };
}

export async function createTestAttester(
  rootPem: string,
  policy: Partial<AppraisalPolicy> = {},
  registry: DeviceRegistry = memoryRegistry(),
): Promise<TpmAttester> {
  return createTpmAttester({
    crypto: createNodeAttestCrypto(),
    random: seededRandom("attester"),
    clock: () => testNow,
    roots: await parseTrustedRoots(rootPem),
    policy: {
      ...DEFAULT_APPRAISAL_POLICY,
      pcrBanks: [{ hash: "sha256", pcrs: [0, 1, 2, 3, 4, 5, 6, 7, 16] }],
      ...policy,
    },
    registry,
    pseudonymSecret: new Uint8Array(32).fill(7),
    sessionMs: 60_000,
    maxSessions: 100,
  });
}

/** A registry that forgets with the process and revokes nothing. */
export function memoryRegistry(): DeviceRegistry {
  const records = new Map<string, DeviceRecord>();
  return {
    lookUp: ({ pseudonym }) => Promise.resolve(records.get(pseudonym)),
    record: ({ pseudonym, record }) => {
      records.set(pseudonym, record);
      return Promise.resolve();
    },
  };
}

/** What a service does with the two requests: parse, ask the attester, encode. */
export async function serveAttester(
  attester: TpmAttester,
  path: string,
  body: unknown,
  tlsExporter: Uint8Array | undefined,
  onDevice: (device: AppraisedDevice) => void = () => undefined,
): Promise<object> {
  if (path === "/attest/tpm/challenge") {
    return encodeChallengeResponse(await attester.challenge(parseChallengeRequest(body)));
  }
  onDevice(await attester.evidence(parseEvidenceRequest(body), tlsExporter));
  return encodeEvidenceResponse({ attestationResult: "header.payload.signature", expiresIn: 300 });
}

export interface MemoryTransport extends AttestTransport {
  /** The devices that were let in. */
  readonly devices: AppraisedDevice[];
}

/** @param change may alter a request on its way, as an attacker in between could. */
export function memoryTransport(
  attester: TpmAttester,
  exporters: { readonly device: Uint8Array | undefined; readonly server: Uint8Array | undefined },
  change: (path: string, body: unknown) => unknown = (_, body) => body,
): MemoryTransport {
  const devices: AppraisedDevice[] = [];
  return {
    devices,
    tlsExporter: () => exporters.device,
    async postJson(path, body) {
      const sent: unknown = JSON.parse(JSON.stringify(change(path, body)));
      const answer = await serveAttester(attester, path, sent, exporters.server, (device) =>
        devices.push(device),
      );
      return JSON.parse(JSON.stringify(answer)) as unknown;
    },
  };
}
