/**
 * The second step of TPM enrolment: evidence of an open session (checklist B, D, E). Signatures come before
 * contents, verification before policy, and the registry is written last.
 */
import { encodeHex, type ErrorCode, StileError } from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";
import { type VerifiedEventLog, verifyEventLog } from "../eventlog/index.ts";
import { exactVersion } from "../ek/index.ts";
import { checkDeviceKeyPublic } from "../keys/roles.ts";
import {
  type Appraisal,
  type AppraisalPolicy,
  type AppraisalReason,
  appraise,
  type EventLogFacts,
} from "../policy/index.ts";
import { CLOCK_REFUSALS, type ClockFinding, compareClockInfo } from "../quote/clock.ts";
import { hierarchyOfSigner } from "../quote/qualified-signer.ts";
import { verifyCertify } from "../quote/verify-certify.ts";
import { verifyQuote, type VerifiedQuote } from "../quote/verify-quote.ts";
import { TPM_ALG_RSA, TPM_ALG_SHA256 } from "../structures/constants.ts";
import { computeName } from "../structures/name.ts";
import { parseTpm2bPublic, type TpmtPublic } from "../structures/public.ts";
import { evidenceBinding } from "./binding.ts";
import type { DeviceRecord, DeviceRegistry } from "./device-registry.ts";
import type { EvidenceRequest } from "./messages.ts";
import type { AttestationSession } from "./sessions.ts";

export interface EvidenceVerifier {
  readonly crypto: AttestCrypto;
  readonly policy: AppraisalPolicy;
  readonly registry: DeviceRegistry;
  /** TPML_PCR_SELECTION that was asked for. */
  readonly pcrSelection: Uint8Array;
}

export type AffirmedAppraisal = Extract<Appraisal, { readonly decision: "affirmed" }>;

/** Evidence that verified and that the policy affirmed. */
export interface AcceptedEvidence {
  readonly deviceKey: TpmtPublic;
  readonly channelBinding: "tls-exporter" | "none";
  readonly quote: VerifiedQuote;
  readonly appraisal: AffirmedAppraisal;
}

/** @throws as `TpmAttester.evidence` */
export async function verifyEvidence(
  verifier: EvidenceVerifier,
  session: AttestationSession,
  request: EvidenceRequest,
  tlsExporter: Uint8Array | undefined,
): Promise<AcceptedEvidence> {
  const { crypto, policy } = verifier;
  const deviceKey = parseTpm2bPublic(request.deviceKey.public);
  checkDeviceKeyPublic(deviceKey);
  const bindTo = {
    nonce: session.nonce,
    tlsExporter: exporterFor(policy, tlsExporter),
    deviceKeyName: computeName(deviceKey, crypto),
  };
  const { ak } = session;
  const quote = await verifyQuote({
    ak,
    quote: request.quote,
    extraData: evidenceBinding(crypto, "quote", bindTo),
    pcrSelection: verifier.pcrSelection,
    pcrValues: request.pcrValues,
    crypto,
  });
  await verifyCertify({
    ak,
    certify: request.deviceKey,
    extraData: evidenceBinding(crypto, "certify", bindTo),
    certified: deviceKey,
    crypto,
  });
  const appraisal = await appraiseQuote(verifier, session, { quote, deviceKey }, request.eventLog);
  const channelBinding = bindTo.tlsExporter === undefined ? "none" : "tls-exporter";
  return { deviceKey, channelBinding, quote, appraisal };
}

/** Required and absent is a refusal; switched off means that it is not looked at even where it is there. */
function exporterFor(
  policy: AppraisalPolicy,
  tlsExporter: Uint8Array | undefined,
): Uint8Array | undefined {
  if (policy.channelBinding === "unsafeOff") return undefined;
  if (tlsExporter !== undefined) return tlsExporter;
  const message = "the evidence came over no TLS connection of ours";
  throw new StileError("ATTEST_NONCE_MISMATCH", message);
}

async function appraiseQuote(
  verifier: EvidenceVerifier,
  session: AttestationSession,
  verified: { readonly quote: VerifiedQuote; readonly deviceKey: TpmtPublic },
  log: Uint8Array | undefined,
): Promise<AffirmedAppraisal> {
  const { policy, registry } = verifier;
  const { ak, ek, manufacturer, pseudonym } = session;
  const record = recordOf(verifier, session, verified.quote);
  const previous = await registry.lookUp({ pseudonym, manufacturer });
  const isPlain = record.counters === "plain";
  const appraisal = appraise(policy, {
    firmware: {
      manufacturer,
      version: isPlain ? exactVersion(record.firmwareVersion) : undefined,
      keyTypes: [ek, ak, verified.deviceKey].map(({ type }) =>
        type === TPM_ALG_RSA ? "rsa" : "ecc",
      ),
    },
    clockFindings: clockFindings(previous, record),
    pcrValues: verified.quote.pcrValues,
    eventLog: eventLogFacts(verifier, verified.quote, log),
  });
  if (appraisal.decision === "refused") throw refusal(appraisal.decidedBy);
  const deviceClass = appraisal.deviceClass.name;
  await registry.record({ pseudonym, manufacturer, deviceClass, record });
  return appraisal;
}

function recordOf(
  { crypto }: EvidenceVerifier,
  { ak, ek }: AttestationSession,
  { clockInfo, firmwareVersion, qualifiedSigner }: VerifiedQuote,
): DeviceRecord {
  const hierarchy = hierarchyOfSigner(ak, qualifiedSigner, crypto, ek);
  const counters = hierarchy === "endorsement" || hierarchy === "platform" ? "plain" : "blurred";
  return { clockInfo, firmwareVersion, qualifiedSigner, counters };
}

function clockFindings(
  previous: DeviceRecord | undefined,
  current: DeviceRecord,
): ReturnType<typeof compareClockInfo>["findings"] {
  if (previous === undefined) return current.clockInfo.safe ? [] : ["clock-not-safe"];
  const isPlain = previous.counters === "plain" && current.counters === "plain";
  return compareClockInfo(previous, current, isPlain ? "plain" : "blurred").findings;
}

/** A log is looked at where the policy asks for it, and then it has to be of this boot. */
function eventLogFacts(
  { crypto, policy }: EvidenceVerifier,
  quote: VerifiedQuote,
  log: Uint8Array | undefined,
): EventLogFacts | undefined {
  const { mode, workarounds } = policy.eventLog;
  if (mode === "off" || log === undefined) return undefined;
  const verified = verifyEventLog({ log, quote, crypto, workarounds });
  return {
    secureBoot: verified.secureBoot.state,
    findings: verified.findings.map(({ code }) => code),
    bootApplications: bootApplicationDigests(verified),
  };
}

function bootApplicationDigests({ boot, log }: VerifiedEventLog): string[] | undefined {
  if (!log.algorithms.some(({ alg }) => alg === TPM_ALG_SHA256)) return undefined;
  // All that ran: an allow-list must not pass what came before the boot manager.
  return [...boot.earlyApplications, ...boot.bootApplications].map(({ digests }) =>
    encodeHex(digests.get(TPM_ALG_SHA256) ?? new Uint8Array()),
  );
}

function refusal({ detail = "refused", rule }: AppraisalReason): StileError {
  return new StileError(codeOf(rule, detail), `policy rule ${rule}: ${detail}`);
}

function codeOf(rule: AppraisalReason["rule"], detail: string): ErrorCode {
  if (rule === "firmware") return "ATTEST_FIRMWARE_REFUSED";
  const finding = (Object.keys(CLOCK_REFUSALS) as ClockFinding[]).find((name) => name === detail);
  return finding === undefined ? "ATTEST_POLICY_REFUSED" : CLOCK_REFUSALS[finding];
}
