/**
 * authenticatorData (WebAuthn Level 3 §6.1) with attested credential data (§6.5.1); checklist F2.
 * Nothing in it is verified: a signature over it says that it came from a key, and the attestation
 * statement that the key lives in an authenticator.
 */
import { encodeHex, Reader } from "../../wire/index.ts";
import { readCborMap } from "./cbor.ts";
import { type CoseKey, readCoseKey } from "./cose-key.ts";

/** §6.1: the bits of flags. Bits 1 and 5 are reserved. */
const FLAG = { up: 0x01, uv: 0x04, be: 0x08, bs: 0x10, at: 0x40, ed: 0x80 } as const;
const RESERVED = 0x22;
const RP_ID_HASH_BYTES = 32;
const AAGUID_BYTES = 16;
/** §6.5.1: credentialIdLength. */
const MAX_CREDENTIAL_ID_BYTES = 1023;
/** Above any that a client sends: credential id, RSA key and extensions together. */
const MAX_AUTHENTICATOR_DATA_BYTES = 8 * 1024;

export interface AuthenticatorFlags {
  readonly userPresent: boolean;
  readonly userVerified: boolean;
  readonly backupEligible: boolean;
  readonly backedUp: boolean;
}

export interface AttestedCredentialData {
  /** Lower-case UUID text. */
  readonly aaguid: string;
  readonly credentialId: Uint8Array;
  readonly publicKey: CoseKey;
  /** COSE_Key as received. */
  readonly publicKeyBytes: Uint8Array;
}

export interface AuthenticatorData {
  /** As received: signatures are over these. */
  readonly raw: Uint8Array;
  readonly rpIdHash: Uint8Array;
  readonly flags: AuthenticatorFlags;
  readonly signCount: number;
}

export interface RegistrationAuthenticatorData extends AuthenticatorData {
  readonly attested: AttestedCredentialData;
}

export const ZERO_AAGUID = "00000000-0000-0000-0000-000000000000";

/** Of a registration: attested credential data is there. @throws `WIRE_*`, `ATTEST_WEBAUTHN_*`, `ATTEST_ALGORITHM_NOT_ALLOWED` */
export function parseRegistrationAuthenticatorData(
  bytes: Uint8Array,
  allowSha1: boolean,
): RegistrationAuthenticatorData {
  const reader = createReader(bytes);
  const { common, flags } = readCommon(reader, bytes);
  if ((flags & FLAG.at) === 0) {
    reader.fail("ATTEST_WEBAUTHN_AUTHENTICATOR_DATA_INVALID", "flags", "expected AT");
  }
  const attested = readAttestedCredentialData(reader, bytes, allowSha1);
  endWithExtensions(reader, bytes, flags);
  return { ...common, attested };
}

/** Of an assertion: §6.1 forbids attested credential data there. @throws as above */
export function parseAssertionAuthenticatorData(bytes: Uint8Array): AuthenticatorData {
  const reader = createReader(bytes);
  const { common, flags } = readCommon(reader, bytes);
  if ((flags & FLAG.at) !== 0) {
    reader.fail("ATTEST_WEBAUTHN_AUTHENTICATOR_DATA_INVALID", "flags", "expected no AT");
  }
  endWithExtensions(reader, bytes, flags);
  return common;
}

function createReader(bytes: Uint8Array): Reader {
  const reader = new Reader(bytes, "authenticatorData");
  if (bytes.length > MAX_AUTHENTICATOR_DATA_BYTES) {
    reader.fail("WIRE_LENGTH_OUT_OF_BOUNDS", "length", "larger than the limit");
  }
  return reader;
}

function readCommon(
  reader: Reader,
  raw: Uint8Array,
): { readonly common: AuthenticatorData; readonly flags: number } {
  const rpIdHash = reader.bytes("rpIdHash", RP_ID_HASH_BYTES);
  const flags = reader.u8("flags");
  const signCount = reader.u32("signCount");
  const backedUpOnly = (flags & (FLAG.be | FLAG.bs)) === FLAG.bs;
  // §6.1.3: a credential that cannot be backed up is not backed up.
  if ((flags & RESERVED) !== 0 || backedUpOnly) {
    reader.fail("ATTEST_WEBAUTHN_AUTHENTICATOR_DATA_INVALID", "flags", "not allowed together", -5);
  }
  const common: AuthenticatorData = {
    raw,
    rpIdHash,
    flags: {
      userPresent: (flags & FLAG.up) !== 0,
      userVerified: (flags & FLAG.uv) !== 0,
      backupEligible: (flags & FLAG.be) !== 0,
      backedUp: (flags & FLAG.bs) !== 0,
    },
    signCount,
  };
  return { common, flags };
}

function readAttestedCredentialData(
  reader: Reader,
  bytes: Uint8Array,
  allowSha1: boolean,
): AttestedCredentialData {
  const aaguid = formatAaguid(reader.bytes("aaguid", AAGUID_BYTES));
  const credentialId = reader.vec16("credentialId", 1, MAX_CREDENTIAL_ID_BYTES);
  const { map, raw } = readCborMap(bytes.subarray(reader.offset), "credentialPublicKey");
  const publicKeyBytes = reader.bytes("credentialPublicKey", raw.length);
  return { aaguid, credentialId, publicKey: readCoseKey(map, allowSha1), publicKeyBytes };
}

/** Extension outputs are signed by whoever signed the rest; none is used here, so only their form counts. */
function endWithExtensions(reader: Reader, bytes: Uint8Array, flags: number): void {
  if ((flags & FLAG.ed) !== 0) {
    const { map, raw } = readCborMap(bytes.subarray(reader.offset), "extensions");
    reader.bytes("extensions", raw.length);
    if (map.size === 0 || [...map.keys()].some((key) => typeof key !== "string")) {
      reader.fail("WIRE_VALUE_NOT_ALLOWED", "extensions", "expected extension identifiers");
    }
  }
  reader.end();
}

/** @param bytes 16 bytes. @returns lower-case UUID text */
export function formatAaguid(bytes: Uint8Array): string {
  return encodeHex(bytes).replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
