/**
 * The device's side of TPM enrolment in two steps (docs/architecture.md, "Attestation, on the wire"):
 * from a device and a connection to an attestation result. The attester's answers are hostile: they
 * are parsed strictly, and the TPM decides whether a credential is meant for this EK and AK.
 */
import { concatBytes, constantTimeEqual, StileError } from "../../wire/index.ts";
import { type BindingPurpose, evidenceBinding } from "../enrolment/binding.ts";
import {
  type ChallengeResponse,
  encodeChallengeRequest,
  encodeEvidenceRequest,
  parseChallengeResponse,
  parseEvidenceResponse,
} from "../enrolment/messages.ts";
import { createNodeAttestCrypto } from "../node/index.ts";
import type { PcrValue } from "../quote/verify-quote.ts";
import { parseTpmsAttestQuote } from "../structures/attest.ts";
import { parseTpmlPcrSelection } from "../structures/pcr-selection.ts";
import type { Attestation } from "../tss2/index.ts";
import type { Device } from "./device.ts";
import type { AttestTransport } from "./transport.ts";

/** PCRs may be extended between reading and quoting them, a few times while a machine starts. */
const MAX_QUOTES = 4;

export interface AttestOptions {
  readonly device: Device;
  /** Both steps and the exporter must be of one TLS connection. */
  readonly transport: AttestTransport;
  /** Unix milliseconds. */
  readonly clock: () => number;
  /** The firmware's log of this boot; asked for only where the attester wants it. */
  readonly readEventLog?: () => Promise<Uint8Array | undefined>;
}

/** A result to be used as `Authorization: DPoP …` until it expires. */
export interface Attested {
  /** EAR as a JWT; whoever has it and the TPM can use it. */
  readonly attestationResult: string;
  /** Unix milliseconds by the device's clock. */
  readonly expiresAtMs: number;
}

/**
 * @throws `ATTEST_AGENT_REFUSED` where the attester refuses, `ATTEST_MESSAGE_INVALID` or `WIRE_*`
 * where it answers nonsense, `ATTEST_TSS_FAILED` where the TPM refuses the attester's credential
 */
export async function attest(options: AttestOptions): Promise<Attested> {
  const { device, transport, clock } = options;
  const challenge = parseChallengeResponse(
    await transport.postJson("/attest/tpm/challenge", encodeChallengeRequest(device)),
  );
  const activatedSecret = await device.activateCredential(
    challenge.credentialBlob,
    challenge.encryptedSecret,
  );
  const bindingFor = createBinding(device, challenge, exporterFor(challenge, transport));
  const { quote, pcrValues } = await quotePcrs(device, challenge, bindingFor("quote"));
  const certified = await device.certifyDeviceKey(bindingFor("certify"));
  const eventLog = await eventLogFor(challenge, options);
  const evidence = encodeEvidenceRequest({
    session: challenge.session,
    activatedSecret,
    quote,
    pcrValues,
    deviceKey: { public: device.deviceKeyPublic, ...certified },
    ...(eventLog === undefined ? {} : { eventLog }),
  });
  const answer = parseEvidenceResponse(await transport.postJson("/attest/tpm/evidence", evidence));
  return {
    attestationResult: answer.attestationResult,
    expiresAtMs: clock() + answer.expiresIn * 1_000,
  };
}

function exporterFor(
  challenge: ChallengeResponse,
  transport: AttestTransport,
): Uint8Array | undefined {
  if (challenge.channelBinding === "none") return undefined;
  const exporter = transport.tlsExporter();
  if (exporter !== undefined) return exporter;
  const message = "the attester wants evidence bound to a TLS connection, and this is none";
  throw new StileError("ATTEST_AGENT_REFUSED", message);
}

/** What a machine booted is told to nobody who does not ask. */
async function eventLogFor(
  challenge: ChallengeResponse,
  { readEventLog }: AttestOptions,
): Promise<Uint8Array | undefined> {
  if (challenge.eventLog === "off") return undefined;
  const log = await readEventLog?.();
  if (log !== undefined || challenge.eventLog === "if-present") return log;
  throw new StileError("ATTEST_AGENT_REFUSED", "the attester wants an event log, and none is here");
}

function createBinding(
  device: Device,
  challenge: ChallengeResponse,
  tlsExporter: Uint8Array | undefined,
): (purpose: BindingPurpose) => Uint8Array {
  const crypto = createNodeAttestCrypto();
  const input = { nonce: challenge.nonce, tlsExporter, deviceKeyName: device.deviceKeyName };
  return (purpose) => evidenceBinding(crypto, purpose, input);
}

/** A quote and the values that it is of. */
async function quotePcrs(
  device: Device,
  challenge: ChallengeResponse,
  extraData: Uint8Array,
): Promise<{ quote: Attestation; pcrValues: PcrValue[] }> {
  const selection = parseTpmlPcrSelection(challenge.pcrSelection);
  for (let i = 0; i < MAX_QUOTES; i += 1) {
    const pcrValues: PcrValue[] = [];
    for (const { hash, pcrs } of selection.banks) {
      const values = await device.pcrRead(hash.name, pcrs);
      values.forEach((value, at) => pcrValues.push({ hash: hash.name, pcr: pcrs[at] ?? 0, value }));
    }
    const quote = await device.quote(extraData, selection.raw);
    if (isQuoteOf(quote, pcrValues)) return { quote, pcrValues };
  }
  throw new StileError("ATTEST_PCR_DIGEST_MISMATCH", "the PCRs change while they are quoted");
}

/** The AK's scheme has SHA-256, so pcrDigest has too. */
function isQuoteOf(quote: Attestation, pcrValues: readonly PcrValue[]): boolean {
  const { pcrDigest } = parseTpmsAttestQuote(quote.attest);
  const values = concatBytes(pcrValues.map(({ value }) => value));
  return constantTimeEqual(pcrDigest, createNodeAttestCrypto().hash("sha256", values));
}
