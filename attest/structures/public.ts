/**
 * TPMT_PUBLIC and TPM2B_PUBLIC for RSA and ECC keys: TPM 2.0 Library Part 2 §12.2.4, §12.2.5.
 * A parsed area is hostile: it says what its sender claims. Only `verify…` functions make it more.
 */
import { Reader, StileError, Writer } from "../../wire/index.ts";
import {
  type CurveRow,
  curveRow,
  type HashRow,
  TPM_ALG_AES,
  TPM_ALG_CFB,
  TPM_ALG_ECC,
  TPM_ALG_ECDH,
  TPM_ALG_ECDSA,
  TPM_ALG_NULL,
  TPM_ALG_OAEP,
  TPM_ALG_RSA,
  TPM_ALG_RSAES,
  TPM_ALG_RSAPSS,
  TPM_ALG_RSASSA,
} from "./constants.ts";
import { isOnCurve } from "./curve-point.ts";
import { MAX_DIGEST_BYTES, readHashAlg } from "./fields.ts";

/** RSA-4096: the largest key of the TCG profiles. */
const MAX_RSA_BYTES = 512;
/** TPM2B_PUBLIC of an RSA-4096 key is under 700 bytes. */
const MAX_PUBLIC_BYTES = 1_024;

/** TPMT_SYM_DEF_OBJECT; undefined for TPM_ALG_NULL. */
export interface TpmtSymDefObject {
  readonly algorithm: typeof TPM_ALG_AES;
  readonly keyBits: 128 | 192 | 256;
  readonly mode: typeof TPM_ALG_CFB;
}

/** TPMT_RSA_SCHEME or TPMT_ECC_SCHEME; undefined for TPM_ALG_NULL. */
export interface TpmtAsymScheme {
  readonly scheme: number;
  /** RSAES has none. */
  readonly hashAlg: HashRow | undefined;
}

interface TpmtPublicCommon {
  /** The bytes as received: Names are taken over these. */
  readonly raw: Uint8Array;
  readonly nameAlg: HashRow;
  /** TPMA_OBJECT. */
  readonly objectAttributes: number;
  readonly authPolicy: Uint8Array;
  readonly symmetric: TpmtSymDefObject | undefined;
  readonly scheme: TpmtAsymScheme | undefined;
}

export interface TpmtPublicRsa extends TpmtPublicCommon {
  readonly type: typeof TPM_ALG_RSA;
  readonly keyBits: number;
  /** As received: 0 stands for 65537. */
  readonly exponent: number;
  /** The modulus; empty or a nonce in a template. */
  readonly unique: Uint8Array;
}

export interface TpmtPublicEcc extends TpmtPublicCommon {
  readonly type: typeof TPM_ALG_ECC;
  readonly curve: CurveRow;
  /** TPMS_ECC_POINT. */
  readonly unique: { readonly x: Uint8Array; readonly y: Uint8Array };
}

export type TpmtPublic = TpmtPublicRsa | TpmtPublicEcc;

/** A whole TPM2B_PUBLIC. @throws `WIRE_*` */
export function parseTpm2bPublic(bytes: Uint8Array): TpmtPublic {
  const reader = new Reader(bytes, "TPM2B_PUBLIC");
  const area = reader.vec16("publicArea", 1, MAX_PUBLIC_BYTES);
  reader.end();
  return parseTpmtPublic(area);
}

/** A whole TPMT_PUBLIC. @throws `WIRE_*` */
export function parseTpmtPublic(bytes: Uint8Array): TpmtPublic {
  const reader = new Reader(bytes, "TPMT_PUBLIC");
  // TPMI_ALG_PUBLIC type
  const type = reader.u16("type");
  // +TPMI_ALG_HASH nameAlg
  const nameAlg = readHashAlg(reader, "nameAlg");
  // TPMA_OBJECT objectAttributes
  const objectAttributes = reader.u32("objectAttributes");
  // TPM2B_DIGEST authPolicy
  const authPolicy = reader.vec16("authPolicy", 0, MAX_DIGEST_BYTES);
  // [type]TPMU_PUBLIC_PARMS parameters, [type]TPMU_PUBLIC_ID unique
  const common = { raw: bytes, nameAlg, objectAttributes, authPolicy };
  const area = readKey(reader, type, common);
  reader.end();
  return area;
}

type Common = Pick<TpmtPublicCommon, "raw" | "nameAlg" | "objectAttributes" | "authPolicy">;

function readKey(reader: Reader, type: number, common: Common): TpmtPublic {
  if (type === TPM_ALG_RSA) return readRsa(reader, common);
  if (type === TPM_ALG_ECC) return readEcc(reader, common);
  return reader.fail("WIRE_VALUE_NOT_ALLOWED", "type", "expected an RSA or ECC key");
}

/** TPMS_RSA_PARMS (§12.2.3.5) and TPM2B_PUBLIC_KEY_RSA (§11.2.4.5). */
function readRsa(reader: Reader, common: Common): TpmtPublicRsa {
  const symmetric = readSymDefObject(reader);
  const scheme = readScheme(reader, [TPM_ALG_RSASSA, TPM_ALG_RSAPSS, TPM_ALG_OAEP]);
  // TPMI_RSA_KEY_BITS keyBits
  const keyBits = reader.u16("keyBits");
  if (![1024, 2048, 3072, 4096].includes(keyBits)) {
    reader.fail("WIRE_VALUE_NOT_ALLOWED", "keyBits", "expected 1024, 2048, 3072 or 4096", -2);
  }
  // UINT32 exponent
  const exponent = reader.u32("exponent");
  const unique = reader.vec16("unique", 0, MAX_RSA_BYTES);
  return { ...common, type: TPM_ALG_RSA, symmetric, scheme, keyBits, exponent, unique };
}

/** TPMS_ECC_PARMS (§12.2.3.6) and TPMS_ECC_POINT (§11.2.5.2). */
function readEcc(reader: Reader, common: Common): TpmtPublicEcc {
  const symmetric = readSymDefObject(reader);
  const scheme = readScheme(reader, [TPM_ALG_ECDSA, TPM_ALG_ECDH]);
  // TPMI_ECC_CURVE curveID
  const curve =
    curveRow(reader.u16("curveID")) ??
    reader.fail("WIRE_VALUE_NOT_ALLOWED", "curveID", "expected P-256, P-384 or P-521", -2);
  // TPMT_KDF_SCHEME+ kdf: no profile in use names one
  if (reader.u16("kdf") !== TPM_ALG_NULL) {
    reader.fail("WIRE_VALUE_NOT_ALLOWED", "kdf", "expected TPM_ALG_NULL", -2);
  }
  const x = reader.vec16("unique.x", 0, curve.coordinateBytes);
  const y = reader.vec16("unique.y", 0, curve.coordinateBytes);
  return { ...common, type: TPM_ALG_ECC, symmetric, scheme, curve, unique: { x, y } };
}

/** TPMT_SYM_DEF_OBJECT+ (§11.1.7). */
function readSymDefObject(reader: Reader): TpmtSymDefObject | undefined {
  const algorithm = reader.u16("symmetric.algorithm");
  if (algorithm === TPM_ALG_NULL) return undefined;
  const keyBits = algorithm === TPM_ALG_AES ? reader.u16("symmetric.keyBits") : 0;
  const mode = algorithm === TPM_ALG_AES ? reader.u16("symmetric.mode") : 0;
  if ((keyBits !== 128 && keyBits !== 192 && keyBits !== 256) || mode !== TPM_ALG_CFB) {
    return reader.fail("WIRE_VALUE_NOT_ALLOWED", "symmetric", "expected AES in CFB mode");
  }
  return { algorithm: TPM_ALG_AES, keyBits, mode };
}

/** TPMT_RSA_SCHEME+ (§11.2.4.2), TPMT_ECC_SCHEME+ (§11.2.5.6): those with a hash, RSAES, or none. */
function readScheme(reader: Reader, withHash: readonly number[]): TpmtAsymScheme | undefined {
  const scheme = reader.u16("scheme");
  if (scheme === TPM_ALG_NULL) return undefined;
  if (scheme === TPM_ALG_RSAES && withHash.includes(TPM_ALG_OAEP)) {
    return { scheme, hashAlg: undefined };
  }
  if (!withHash.includes(scheme)) {
    reader.fail("WIRE_VALUE_NOT_ALLOWED", "scheme", "expected a known scheme", -2);
  }
  return { scheme, hashAlg: readHashAlg(reader, "scheme.hashAlg") };
}

/** What {@link encodeTpmtPublic} takes: a public area without its bytes. */
export type TpmtPublicFields = Omit<TpmtPublicRsa, "raw"> | Omit<TpmtPublicEcc, "raw">;

/** TPMT_PUBLIC. */
export function encodeTpmtPublic(area: TpmtPublicFields): Uint8Array<ArrayBuffer> {
  const writer = new Writer()
    .u16(area.type)
    .u16(area.nameAlg.alg)
    .u32(area.objectAttributes)
    .vec16(area.authPolicy);
  if (area.symmetric === undefined) writer.u16(TPM_ALG_NULL);
  else writer.u16(area.symmetric.algorithm).u16(area.symmetric.keyBits).u16(area.symmetric.mode);
  if (area.scheme === undefined) writer.u16(TPM_ALG_NULL);
  else {
    writer.u16(area.scheme.scheme);
    if (area.scheme.hashAlg !== undefined) writer.u16(area.scheme.hashAlg.alg);
  }
  if (area.type === TPM_ALG_RSA) {
    return writer.u16(area.keyBits).u32(area.exponent).vec16(area.unique).finish();
  }
  const { curve, unique } = area;
  return writer.u16(curve.curveId).u16(TPM_ALG_NULL).vec16(unique.x).vec16(unique.y).finish();
}

/** TPM2B_PUBLIC. */
export function encodeTpm2bPublic(area: TpmtPublicFields): Uint8Array<ArrayBuffer> {
  return new Writer().vec16(encodeTpmtPublic(area)).finish();
}

/** The key, if the area is of a key and not a template: sizes that match the parameters, points on the curve (B4, B5). */
export function checkUnique(area: TpmtPublic): void {
  const fits =
    area.type === TPM_ALG_RSA
      ? area.unique.length * 8 === area.keyBits &&
        (area.unique[0] ?? 0) >= 0x80 &&
        ((area.unique.at(-1) ?? 0) & 1) === 1
      : isOnCurve(area.curve.name, area.unique);
  if (!fits) {
    throw new StileError(
      "ATTEST_STRUCTURE_INVALID",
      "TPMT_PUBLIC.unique: does not fit its key size or curve",
    );
  }
}
