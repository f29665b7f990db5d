/** The whole of step 2: what a device sends, from JSON to the policy's decision, under a session that is open. */
import { createHash } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import {
  type AcceptedEvidence,
  verifyEvidence,
} from "../../../../attest/enrolment/verify-evidence.ts";
import {
  DEFAULT_APPRAISAL_POLICY,
  encodeEvidenceRequest,
  encodeTpm2bPublic,
  encodeTpmlPcrSelection,
  evidenceBinding,
  type EvidenceRequest,
  computeName,
  parseEvidenceRequest,
} from "../../../../attest/index.ts";
import { createNodeAttestCrypto } from "../../../../attest/node/index.ts";
import { mutateBytes, pick, type Random } from "../../../support/fuzz.ts";
import { memoryRegistry } from "../../../support/attester.ts";
import { buildLog, quoteOf } from "../../eventlog/support/log-builder.ts";
import { application, boot } from "../../eventlog/support/sound-boot.ts";
import { createSoftwareAk, type SoftwareAk } from "../software-ak.ts";
import { type FuzzTarget, jsonTarget } from "./target.ts";

const crypto = createNodeAttestCrypto();
const BOOT_PCRS = [0, 1, 2, 3, 4, 5, 6, 7] as const;
const log = buildLog(boot);
const pcrValues = quoteOf(log).pcrValues.filter(({ pcr }) => pcr < BOOT_PCRS.length);
const image = createHash("sha256")
  .update(application.measured ?? "")
  .digest("hex");
const tlsExporter = new Uint8Array(32).fill(0xe1);
const nonce = new Uint8Array(32).fill(0x0f);

const policy = {
  ...DEFAULT_APPRAISAL_POLICY,
  eventLog: {
    ...DEFAULT_APPRAISAL_POLICY.eventLog,
    mode: "required",
    secureBoot: "on",
    bootApplications: new Set([image]),
  },
} as const;

interface Evidence {
  readonly request: EvidenceRequest;
  readonly accepted: AcceptedEvidence;
}

export function evidenceTargets(): FuzzTarget[] {
  return (["ecdsa", "rsassa", "rsapss"] as const).map((kind) => {
    const ak = createSoftwareAk(kind);
    const sound = soundRequest(ak);
    const seed = encodeEvidenceRequest(sound);
    const anyJson = jsonTarget({
      name: `whole evidence by an AK with ${kind}`,
      share: 60,
      seeds: [seed],
      parse: (json) => appraise(ak, parseEvidenceRequest(json)),
      fault: (result) => faultOf(result, sound),
    });
    return {
      ...anyJson,
      // Most mutations of JSON end at its form: three of four go into the bytes that it carries.
      next: (random) => {
        if (random(4) === 0) return anyJson.next(random);
        const changed = withChangedBytes(sound, random);
        return {
          input: JSON.stringify(encodeEvidenceRequest(changed)),
          run: () => appraise(ak, parseEvidenceRequest(encodeEvidenceRequest(changed))),
          fault: (result) => faultOf(result, sound),
        };
      },
    };
  });
}

function withChangedBytes(sound: EvidenceRequest, random: Random): EvidenceRequest {
  const change = (bytes: Uint8Array): Uint8Array => mutateBytes(bytes, random, [bytes, log]);
  const { deviceKey, quote } = sound;
  return pick(random, [
    () => ({ ...sound, quote: { ...quote, attest: change(quote.attest) } }),
    () => ({ ...sound, quote: { ...quote, signature: change(quote.signature) } }),
    () => ({ ...sound, deviceKey: { ...deviceKey, public: change(deviceKey.public) } }),
    () => ({ ...sound, deviceKey: { ...deviceKey, attest: change(deviceKey.attest) } }),
    () => ({ ...sound, deviceKey: { ...deviceKey, signature: change(deviceKey.signature) } }),
    () => ({ ...sound, eventLog: change(log) }),
    () => {
      const at = random(pcrValues.length);
      const values = pcrValues.map((row, i) =>
        i === at ? { ...row, value: change(row.value) } : row,
      );
      return { ...sound, pcrValues: values };
    },
  ])();
}

function soundRequest(ak: SoftwareAk): EvidenceRequest {
  const deviceKey = createSoftwareAk("ecdsa", false).area;
  const bindTo = { nonce, tlsExporter, deviceKeyName: computeName(deviceKey, crypto) };
  return {
    session: "session-1",
    activatedSecret: new Uint8Array(32).fill(5),
    quote: ak.quote(pcrValues, evidenceBinding(crypto, "quote", bindTo)).quote,
    pcrValues,
    deviceKey: {
      public: encodeTpm2bPublic(deviceKey),
      ...ak.certify(deviceKey, evidenceBinding(crypto, "certify", bindTo)),
    },
    eventLog: log,
  };
}

async function appraise({ area }: SoftwareAk, request: EvidenceRequest): Promise<Evidence> {
  const session = {
    ak: area,
    ek: area,
    secret: new Uint8Array(32),
    nonce,
    pseudonym: "device",
    manufacturer: "id:49424D00",
    expiresAtMs: 0,
  };
  const pcrSelection = encodeTpmlPcrSelection(policy.pcrBanks);
  const verifier = { crypto, policy, registry: memoryRegistry(), pcrSelection };
  const accepted = await verifyEvidence(verifier, session, request, tlsExporter);
  return { request, accepted };
}

/** Session and secret are looked up before; of the log, texts that nothing measures may say anything. */
function faultOf(result: unknown, sound: EvidenceRequest): string | undefined {
  const { accepted, request } = result as Evidence;
  const { eventLog: _log, session: _session, activatedSecret: _secret, ...signed } = request;
  const { eventLog: _its, session: _one, activatedSecret: _other, ...expected } = sound;
  if (!isDeepStrictEqual(signed, expected)) return "evidence that nobody signed was believed";
  const { configuration, executables } = accepted.appraisal.trustworthiness;
  return configuration === 2 && executables === 2 ? undefined : "claims went missing";
}
