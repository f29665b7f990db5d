/**
 * KeyDescription of Android key attestation: the certificate extension 1.3.6.1.4.1.11129.2.1.17
 * (Android Open Source Project, "Key and ID attestation", schema versions 1 to 400). Only the fields
 * that WebAuthn judges are decoded; authorization lists have tag numbers above 30, which no other
 * structure here has, so their elements are read here.
 */
import {
  children,
  expectTag,
  parseDer,
  readFirstDer,
  readSmallInteger,
  TAG,
  type DerValue,
} from "../../ek/der.ts";
import { certificateInvalid } from "../errors.ts";
import type { AndroidSecurityLevel } from "../policy.ts";

const ENUMERATED = 0x0a;
const NULL = 0x05;
/** SecurityLevel ::= ENUMERATED { Software (0), TrustedEnvironment (1), StrongBox (2) } */
const SECURITY_LEVELS: readonly AndroidSecurityLevel[] = ["software", "tee", "strongbox"];
/** AuthorizationList has about 50 fields. */
const MAX_FIELDS = 64;
const FIELD = { purpose: 1, allApplications: 600, origin: 702 } as const;

/** Of an AuthorizationList: what WebAuthn Level 3 §8.4 asks for. */
export interface AuthorizationList {
  /** KeyPurpose: 2 signs, 3 verifies. */
  readonly purpose: readonly number[] | undefined;
  readonly allApplications: boolean;
  /** KeyOrigin: 0 is generated. */
  readonly origin: number | undefined;
}

export interface KeyDescription {
  readonly attestationSecurityLevel: AndroidSecurityLevel;
  readonly keymasterSecurityLevel: AndroidSecurityLevel;
  readonly attestationChallenge: Uint8Array;
  readonly softwareEnforced: AuthorizationList;
  readonly teeEnforced: AuthorizationList;
}

/** @throws `ATTEST_EK_CERTIFICATE_INVALID` of the shared DER reader, `ATTEST_WEBAUTHN_CERTIFICATE_INVALID` */
export function parseKeyDescription(bytes: Uint8Array): KeyDescription {
  const [version, level, keymasterVersion, keymasterLevel, challenge, uniqueId, ...lists] =
    children(parseDer(bytes, TAG.SEQUENCE));
  readSmallInteger(expectTag(version, TAG.INTEGER));
  readSmallInteger(expectTag(keymasterVersion, TAG.INTEGER));
  expectTag(uniqueId, TAG.OCTET_STRING);
  const [software, tee, ...rest] = lists;
  if (rest.length > 0) throw malformed();
  return {
    attestationSecurityLevel: readSecurityLevel(level),
    keymasterSecurityLevel: readSecurityLevel(keymasterLevel),
    attestationChallenge: expectTag(challenge, TAG.OCTET_STRING).content,
    softwareEnforced: readAuthorizationList(expectTag(software, TAG.SEQUENCE)),
    teeEnforced: readAuthorizationList(expectTag(tee, TAG.SEQUENCE)),
  };
}

function readSecurityLevel(value: DerValue | undefined): AndroidSecurityLevel {
  const { content } = expectTag(value, ENUMERATED);
  const level = content.length === 1 ? SECURITY_LEVELS[content[0] ?? -1] : undefined;
  if (level === undefined) throw malformed();
  return level;
}

function readAuthorizationList({ content }: DerValue): AuthorizationList {
  const fields = new Map<number, Uint8Array>();
  for (let rest = content; rest.length > 0;) {
    const field = readExplicitField(rest);
    // Of two origins one reader takes the first and another the last.
    if (fields.has(field.number) || fields.size >= MAX_FIELDS) throw malformed();
    fields.set(field.number, field.content);
    rest = field.rest;
  }
  const purpose = fields.get(FIELD.purpose);
  const allApplications = fields.get(FIELD.allApplications);
  const origin = fields.get(FIELD.origin);
  if (allApplications !== undefined) parseDer(allApplications, NULL);
  return {
    purpose:
      purpose === undefined
        ? undefined
        : children(parseDer(purpose, TAG.SET)).map((value) =>
            readSmallInteger(expectTag(value, TAG.INTEGER)),
          ),
    allApplications: allApplications !== undefined,
    origin: origin === undefined ? undefined : readSmallInteger(parseDer(origin, TAG.INTEGER)),
  };
}

interface ExplicitField {
  readonly number: number;
  readonly content: Uint8Array;
  readonly rest: Uint8Array;
}

/** X.690 §8.1.2.4: [n] EXPLICIT, with n in one octet below 31 and else in base 128, shortest form. */
function readExplicitField(bytes: Uint8Array): ExplicitField {
  const first = bytes[0] ?? 0;
  if ((first & 0xe0) !== 0xa0) throw malformed();
  if ((first & 0x1f) < 0x1f) {
    const { raw, content } = readFirstDer(bytes);
    return { number: first & 0x1f, content, rest: bytes.subarray(raw.length) };
  }
  // Tag numbers are below 2^14: two octets at most.
  const [high = 0, low = 0] = bytes.subarray(1, 3);
  const width = high < 0x80 ? 1 : 2;
  const number = width === 1 ? high : (high & 0x7f) * 128 + low;
  if (low >= 0x80 && width === 2) throw malformed();
  if (number < (width === 1 ? 0x1f : 0x80)) throw malformed();
  // The reader of lengths takes one-octet tags: any such tag stands for this one.
  const behind = Uint8Array.from(bytes.subarray(width));
  behind[0] = TAG.SEQUENCE;
  const { raw, content } = readFirstDer(behind);
  return { number, content, rest: bytes.subarray(width + raw.length) };
}

function malformed(): Error {
  return certificateInvalid("a malformed key attestation extension");
}
