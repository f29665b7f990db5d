/**
 * The four JSON bodies of TPM enrolment, in both directions (docs/architecture.md, "Attestation, on the
 * wire"). What is parsed here has the right form and sizes; nothing in it has been verified.
 */
import type { SignedAttest } from "../quote/signature.ts";
import type { EventLogRules } from "../policy/index.ts";
import type { PcrValue } from "../quote/verify-quote.ts";
import {
  readBytes,
  readList,
  readObject,
  readText,
  readWhole,
  readWord,
  writeBytes,
} from "./json-fields.ts";

/** An EK certificate is 1 to 2 kB; RSA-4096 chains with long extensions stay under 4 kB. */
export const MAX_CERTIFICATE_BYTES = 8_192;
/** The EK certificate and at most five intermediates. */
export const MAX_CERTIFICATES = 6;
/** TPM2B_PUBLIC, TPMS_ATTEST and TPMT_SIGNATURE of the largest keys are under 700 bytes. */
const MAX_STRUCTURE_BYTES = 1_024;
/** 24 PCRs in each of four banks. */
const MAX_PCR_VALUES = 96;
/** Logs are 10 to 80 kB; a large dbx and a long Windows boot come to some 200 kB. As base64url it fits a body. */
const MAX_EVENT_LOG_MESSAGE_BYTES = 327_680;
const MAX_SECONDS = 31_536_000;
const SESSION_FORM = /^[A-Za-z0-9_-]{1,64}$/;
const JWT_FORM = /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/;
const HASHES = ["sha1", "sha256", "sha384", "sha512"] as const;

/** Step 1, device to attester. */
export interface ChallengeRequest {
  /** DER: the EK certificate, then intermediates. */
  readonly ekCertificates: readonly Uint8Array[];
  /** TPM2B_PUBLIC. */
  readonly ekPublic: Uint8Array;
  /** TPM2B_PUBLIC. */
  readonly akPublic: Uint8Array;
}

/** Step 1, attester to device. */
export interface ChallengeResponse {
  readonly session: string;
  /** TPM2B_ID_OBJECT. */
  readonly credentialBlob: Uint8Array;
  /** TPM2B_ENCRYPTED_SECRET. */
  readonly encryptedSecret: Uint8Array;
  readonly nonce: Uint8Array;
  /** TPML_PCR_SELECTION. */
  readonly pcrSelection: Uint8Array;
  readonly channelBinding: "tls-exporter" | "none";
  /** Whether the evidence is to bring the firmware's event log; where `off`, it is not looked at. */
  readonly eventLog: EventLogRules["mode"];
  /** Seconds. */
  readonly expiresIn: number;
}

/** Step 2, device to attester. */
export interface EvidenceRequest {
  readonly session: string;
  readonly activatedSecret: Uint8Array;
  readonly quote: SignedAttest;
  /** In selection order. */
  readonly pcrValues: readonly PcrValue[];
  readonly deviceKey: SignedAttest & {
    /** TPM2B_PUBLIC. */
    readonly public: Uint8Array;
  };
  /** The firmware's log of this boot, where the device has one. */
  readonly eventLog?: Uint8Array;
}

/** Step 2, attester to device. */
export interface EvidenceResponse {
  /** EAR as a JWT. */
  readonly attestationResult: string;
  /** Seconds. */
  readonly expiresIn: number;
}

/** @throws `ATTEST_MESSAGE_INVALID` */
export function parseChallengeRequest(json: unknown): ChallengeRequest {
  const body = readObject(json, "body", ["ekCertificates", "ekPublic", "akPublic"]);
  return {
    ekCertificates: readList(
      body.ekCertificates,
      "ekCertificates",
      { min: 1, max: MAX_CERTIFICATES },
      (item) => readBytes(item, "ekCertificates", MAX_CERTIFICATE_BYTES),
    ),
    ekPublic: readBytes(body.ekPublic, "ekPublic", MAX_STRUCTURE_BYTES),
    akPublic: readBytes(body.akPublic, "akPublic", MAX_STRUCTURE_BYTES),
  };
}

export function encodeChallengeRequest(request: ChallengeRequest): object {
  return {
    ekCertificates: request.ekCertificates.map(writeBytes),
    ekPublic: writeBytes(request.ekPublic),
    akPublic: writeBytes(request.akPublic),
  };
}

/** @throws `ATTEST_MESSAGE_INVALID` */
export function parseChallengeResponse(json: unknown): ChallengeResponse {
  const body = readObject(json, "body", [
    "session",
    "credentialBlob",
    "encryptedSecret",
    "nonce",
    "pcrSelection",
    "channelBinding",
    "eventLog",
    "expiresIn",
  ]);
  return {
    session: readText(body.session, "session", SESSION_FORM),
    credentialBlob: readBytes(body.credentialBlob, "credentialBlob", MAX_STRUCTURE_BYTES),
    encryptedSecret: readBytes(body.encryptedSecret, "encryptedSecret", MAX_STRUCTURE_BYTES),
    nonce: readBytes(body.nonce, "nonce", MAX_STRUCTURE_BYTES),
    pcrSelection: readBytes(body.pcrSelection, "pcrSelection", MAX_STRUCTURE_BYTES),
    channelBinding: readWord(body.channelBinding, "channelBinding", ["tls-exporter", "none"]),
    eventLog: readWord(body.eventLog, "eventLog", ["required", "if-present", "off"]),
    expiresIn: readWhole(body.expiresIn, "expiresIn", MAX_SECONDS),
  };
}

export function encodeChallengeResponse(response: ChallengeResponse): object {
  return {
    session: response.session,
    credentialBlob: writeBytes(response.credentialBlob),
    encryptedSecret: writeBytes(response.encryptedSecret),
    nonce: writeBytes(response.nonce),
    pcrSelection: writeBytes(response.pcrSelection),
    channelBinding: response.channelBinding,
    eventLog: response.eventLog,
    expiresIn: response.expiresIn,
  };
}

/** @throws `ATTEST_MESSAGE_INVALID` */
export function parseEvidenceRequest(json: unknown): EvidenceRequest {
  const keys = ["session", "activatedSecret", "quote", "pcrValues", "deviceKey"] as const;
  const body = readObject(json, "body", keys, ["eventLog"]);
  const quote = readObject(body.quote, "quote", ["attest", "signature"]);
  const key = readObject(body.deviceKey, "deviceKey", ["public", "attest", "signature"]);
  return {
    session: readText(body.session, "session", SESSION_FORM),
    activatedSecret: readBytes(body.activatedSecret, "activatedSecret", 64),
    quote: readSigned(quote, "quote"),
    pcrValues: readList(body.pcrValues, "pcrValues", { min: 1, max: MAX_PCR_VALUES }, readPcrValue),
    deviceKey: {
      public: readBytes(key.public, "deviceKey.public", MAX_STRUCTURE_BYTES),
      ...readSigned(key, "deviceKey"),
    },
    ...(body.eventLog === undefined
      ? {}
      : { eventLog: readBytes(body.eventLog, "eventLog", MAX_EVENT_LOG_MESSAGE_BYTES) }),
  };
}

export function encodeEvidenceRequest(request: EvidenceRequest): object {
  const { deviceKey, quote } = request;
  return {
    session: request.session,
    activatedSecret: writeBytes(request.activatedSecret),
    quote: writeSigned(quote),
    pcrValues: request.pcrValues.map(({ hash, pcr, value }) => ({
      hash,
      pcr,
      value: writeBytes(value),
    })),
    deviceKey: { public: writeBytes(deviceKey.public), ...writeSigned(deviceKey) },
    ...(request.eventLog === undefined ? {} : { eventLog: writeBytes(request.eventLog) }),
  };
}

/** @throws `ATTEST_MESSAGE_INVALID` */
export function parseEvidenceResponse(json: unknown): EvidenceResponse {
  const body = readObject(json, "body", ["attestationResult", "expiresIn"]);
  return {
    attestationResult: readText(body.attestationResult, "attestationResult", JWT_FORM),
    expiresIn: readWhole(body.expiresIn, "expiresIn", MAX_SECONDS),
  };
}

export function encodeEvidenceResponse(response: EvidenceResponse): object {
  return { attestationResult: response.attestationResult, expiresIn: response.expiresIn };
}

function readSigned(
  fields: Readonly<Record<"attest" | "signature", unknown>>,
  field: string,
): SignedAttest {
  return {
    attest: readBytes(fields.attest, `${field}.attest`, MAX_STRUCTURE_BYTES),
    signature: readBytes(fields.signature, `${field}.signature`, MAX_STRUCTURE_BYTES),
  };
}

function writeSigned(signed: SignedAttest): { attest: string; signature: string } {
  return { attest: writeBytes(signed.attest), signature: writeBytes(signed.signature) };
}

function readPcrValue(json: unknown): PcrValue {
  const item = readObject(json, "pcrValues", ["hash", "pcr", "value"]);
  return {
    hash: readWord(item.hash, "pcrValues.hash", HASHES),
    pcr: readWhole(item.pcr, "pcrValues.pcr", 23),
    value: readBytes(item.value, "pcrValues.value", 64),
  };
}
