/** An attestation key that openssl's engine plays, and the structures that a TPM would sign with it. */
import { constants, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import {
  computeName,
  curveRow,
  encodeTpm2bPublic,
  encodeTpmlPcrSelection,
  encodeTpmtSignature,
  type HashName,
  hashRow,
  parseTpm2bPublic,
  type PcrValue,
  type QuoteCheck,
  TPM_ALG_ECC,
  TPM_ALG_ECDSA,
  TPM_ALG_RSA,
  TPM_ALG_RSAPSS,
  TPM_ALG_RSASSA,
  TPM_ALG_SHA256,
  TPM_ECC_NIST_P256,
  TPM_GENERATED_VALUE,
  TPM_ST_ATTEST_CERTIFY,
  TPM_ST_ATTEST_QUOTE,
  TPMA_OBJECT_FIXEDPARENT,
  TPMA_OBJECT_FIXEDTPM,
  TPMA_OBJECT_RESTRICTED,
  TPMA_OBJECT_SENSITIVEDATAORIGIN,
  TPMA_OBJECT_SIGN_ENCRYPT,
  TPMA_OBJECT_USERWITHAUTH,
  type TpmtPublic,
} from "../../../attest/index.ts";
import { createNodeAttestCrypto } from "../../../attest/node/index.ts";
import { concatBytes, Writer } from "../../../wire/index.ts";

const crypto = createNodeAttestCrypto();
const SHA256 = hashRow(TPM_ALG_SHA256) ?? missing();
const P256 = curveRow(TPM_ECC_NIST_P256) ?? missing();

function missing(): never {
  throw new Error("the table lacks a row");
}

export type AkKind = "ecdsa" | "rsassa" | "rsapss";

export interface SoftwareAk {
  readonly area: TpmtPublic;
  readonly publicKey: KeyObject;
  /** Bytes of TPMS_ATTEST in, TPMT_SIGNATURE out. */
  readonly sign: (attest: Uint8Array) => Uint8Array;
  readonly quote: (pcrs: readonly PcrValue[], extraData: Uint8Array) => QuoteCheck;
  /** TPMS_ATTEST of a certification. */
  readonly certify: (
    certified: TpmtPublic,
    extraData: Uint8Array,
  ) => { readonly attest: Uint8Array; readonly signature: Uint8Array };
}

const ATTRIBUTES =
  TPMA_OBJECT_FIXEDTPM |
  TPMA_OBJECT_FIXEDPARENT |
  TPMA_OBJECT_SENSITIVEDATAORIGIN |
  TPMA_OBJECT_USERWITHAUTH |
  TPMA_OBJECT_SIGN_ENCRYPT;

export function createSoftwareAk(kind: AkKind, isRestricted = true): SoftwareAk {
  const pair =
    kind === "ecdsa"
      ? generateKeyPairSync("ec", { namedCurve: "P-256" })
      : generateKeyPairSync("rsa", { modulusLength: 2048 });
  const area = areaOf(kind, pair.publicKey, isRestricted);
  const signBytes = (attest: Uint8Array): Uint8Array => signAttest(kind, pair.privateKey, attest);
  const name = computeName(area, crypto);
  return {
    area,
    publicKey: pair.publicKey,
    sign: signBytes,
    quote: (pcrValues, extraData) => {
      const pcrSelection = selectionOf(pcrValues);
      const values = concatBytes(pcrValues.map(({ value }) => value));
      const body = new Writer().bytes(pcrSelection).vec16(crypto.hash("sha256", values)).finish();
      const attest = attestOf(TPM_ST_ATTEST_QUOTE, name, extraData, body);
      const quote = { attest, signature: signBytes(attest) };
      return { ak: area, quote, extraData, pcrSelection, pcrValues, crypto };
    },
    certify: (certified, extraData) => {
      const body = new Writer().vec16(computeName(certified, crypto)).vec16(name).finish();
      const attest = attestOf(TPM_ST_ATTEST_CERTIFY, name, extraData, body);
      return { attest, signature: signBytes(attest) };
    },
  };
}

function areaOf(kind: AkKind, publicKey: KeyObject, isRestricted: boolean): TpmtPublic {
  const { n, x, y } = publicKey.export({ format: "jwk" });
  const bytes = (text: string | undefined): Uint8Array =>
    new Uint8Array(Buffer.from(text ?? "", "base64url"));
  const common = {
    nameAlg: SHA256,
    objectAttributes: isRestricted ? ATTRIBUTES | TPMA_OBJECT_RESTRICTED : ATTRIBUTES,
    authPolicy: new Uint8Array(),
    symmetric: undefined,
  };
  const scheme = { ecdsa: TPM_ALG_ECDSA, rsassa: TPM_ALG_RSASSA, rsapss: TPM_ALG_RSAPSS }[kind];
  const own = { ...common, scheme: { scheme, hashAlg: SHA256 } };
  return parseTpm2bPublic(
    encodeTpm2bPublic(
      kind === "ecdsa"
        ? { ...own, type: TPM_ALG_ECC, curve: P256, unique: { x: bytes(x), y: bytes(y) } }
        : { ...own, type: TPM_ALG_RSA, keyBits: 2048, exponent: 0, unique: bytes(n) },
    ),
  );
}

function signAttest(kind: AkKind, key: KeyObject, attest: Uint8Array): Uint8Array {
  if (kind === "ecdsa") {
    const raw = new Uint8Array(sign("sha256", attest, { key, dsaEncoding: "ieee-p1363" }));
    const [signatureR, signatureS] = [raw.subarray(0, 32), raw.subarray(32)];
    return encodeTpmtSignature({ sigAlg: TPM_ALG_ECDSA, hash: SHA256, signatureR, signatureS });
  }
  const isPss = kind === "rsapss";
  const padding = isPss ? constants.RSA_PKCS1_PSS_PADDING : constants.RSA_PKCS1_PADDING;
  const saltLength = constants.RSA_PSS_SALTLEN_DIGEST;
  const sig = new Uint8Array(
    sign("sha256", attest, { key, padding, ...(isPss ? { saltLength } : {}) }),
  );
  const sigAlg = isPss ? TPM_ALG_RSAPSS : TPM_ALG_RSASSA;
  return encodeTpmtSignature({ sigAlg, hash: SHA256, sig });
}

function selectionOf(values: readonly PcrValue[]): Uint8Array {
  const banks = new Map<HashName, number[]>();
  for (const { hash, pcr } of values) banks.set(hash, [...(banks.get(hash) ?? []), pcr]);
  return encodeTpmlPcrSelection([...banks].map(([hash, pcrs]) => ({ hash, pcrs })));
}

function attestOf(
  type: number,
  signer: Uint8Array,
  extraData: Uint8Array,
  body: Uint8Array,
): Uint8Array {
  return new Writer()
    .u32(TPM_GENERATED_VALUE)
    .u16(type)
    .vec16(signer)
    .vec16(extraData)
    .u64(1n)
    .u32(2)
    .u32(3)
    .u8(1)
    .u64(4n)
    .bytes(body)
    .finish();
}
