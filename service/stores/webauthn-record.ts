/** The bytes of a registered credential: a version, fixed numbers, then three vectors. Nothing else. */
import {
  ATTESTATION_FORMATS,
  type AttestationFormat,
  type AttestationTrust,
} from "../../attest/webauthn/index.ts";
import type { StoredCredential } from "../../attest/webauthn-enrolment/index.ts";
import { decodeHex, decodeUtf8, encodeHex, encodeUtf8, Reader, Writer } from "../../wire/index.ts";

export interface CredentialRecord extends StoredCredential {
  /** Days since the Unix epoch on which it last attested. */
  readonly day: number;
}

const VERSION = 1;
/** COSE_Key of RSA-4096 is 528 bytes. */
const MAX_KEY_BYTES = 1_024;
/** Base64url of 32 bytes is 43 letters. */
const MAX_PSEUDONYM_BYTES = 64;
const AAGUID_BYTES = 16;
/** Numbers on disk: never renumbered. */
const FORMAT_NUMBERS: Readonly<Record<AttestationFormat, number>> = {
  none: 0,
  tpm: 1,
  packed: 2,
  "android-key": 3,
  apple: 4,
  "fido-u2f": 5,
};
const TRUSTS: readonly AttestationTrust[] = ["none", "self", "unanchored", "anchored"];

export function encodeCredential(record: CredentialRecord): Uint8Array {
  return new Writer()
    .u8(VERSION)
    .u32(record.day)
    .u32(record.signCount)
    .u8(record.backupEligible ? 1 : 0)
    .u8(FORMAT_NUMBERS[record.format])
    .u8(TRUSTS.indexOf(record.trust))
    .bytes(decodeHex(record.aaguid.replaceAll("-", "")))
    .vec8(encodeUtf8(record.pseudonym))
    .vec16(record.publicKey)
    .finish();
}

/** @throws `WIRE_*` where the record is damaged: the store then counts as unavailable */
export function decodeCredential(bytes: Uint8Array): CredentialRecord {
  const reader = new Reader(Uint8Array.from(bytes), "credential record");
  if (reader.u8("version") !== VERSION) {
    reader.fail("WIRE_VALUE_NOT_ALLOWED", "version", "expected version 1", -1);
  }
  const day = reader.u32("day");
  const signCount = reader.u32("signCount");
  const backupEligible = reader.u8("backupEligible") === 1;
  const number = reader.u8("format");
  const format = ATTESTATION_FORMATS.find((name) => FORMAT_NUMBERS[name] === number);
  const trust = TRUSTS[reader.u8("trust")];
  if (format === undefined || trust === undefined) {
    return reader.fail("WIRE_VALUE_NOT_ALLOWED", "format", "expected a known one", -1);
  }
  const aaguid = encodeHex(reader.bytes("aaguid", AAGUID_BYTES)).replace(
    /^(.{8})(.{4})(.{4})(.{4})(.{12})$/,
    "$1-$2-$3-$4-$5",
  );
  const pseudonym = decodeUtf8(reader.vec8("pseudonym", 1, MAX_PSEUDONYM_BYTES), "pseudonym");
  const publicKey = reader.vec16("publicKey", 1, MAX_KEY_BYTES);
  reader.end();
  return { day, signCount, backupEligible, format, trust, aaguid, pseudonym, publicKey };
}
