/**
 * UEFI_VARIABLE_DATA (PFP §10.4.2.6) and EFI_SIGNATURE_LIST (UEFI §32.4.1) of measured variables. Strict:
 * sizes must add up, names are UTF-16 of a bounded length, nothing is left over.
 */
import { encodeHex, Reader } from "../../wire/index.ts";

/** Names are some ten characters. */
const MAX_NAME_CHARS = 256;
const MAX_VARIABLE_BYTES = 4_194_304;
const GUID_BYTES = 16;
/** Header of EFI_SIGNATURE_LIST: a GUID and three lengths. */
const LIST_HEADER_BYTES = GUID_BYTES + 12;
/** dbx holds some hundred hashes today. */
const MAX_SIGNATURES = 16_384;

const SIGNATURE_TYPES: ReadonlyMap<string, SignatureType> = new Map([
  ["a5c059a1-94e4-4aa7-87b5-ab155c2bf072", "x509"],
  ["c1c41626-504c-4092-aca9-41f936934328", "sha256"],
  ["3c5766e8-269c-4e34-aa14-ed776e85b3b6", "rsa2048"],
  ["826ca512-cf10-4ac9-b187-be01496631bd", "sha1"],
  ["3bd2a492-96c0-4079-b420-fcf98ef103ed", "x509-sha256"],
]);

type SignatureType = "x509" | "sha256" | "rsa2048" | "sha1" | "x509-sha256" | "other";

export interface UefiVariable {
  /** The vendor's GUID, in its usual form. */
  readonly vendor: string;
  readonly name: string;
  readonly data: Uint8Array;
}

/** EFI_SIGNATURE_DATA with the type of its list. */
export interface EfiSignature {
  readonly type: SignatureType;
  readonly owner: string;
  readonly data: Uint8Array;
}

/** @throws `WIRE_*` */
export function parseUefiVariable(bytes: Uint8Array): UefiVariable {
  const reader = new Reader(bytes, "UEFI_VARIABLE_DATA");
  const vendor = guidText(reader.bytes("variableName", GUID_BYTES));
  const nameChars = lengthOf(reader, "unicodeNameLength", MAX_NAME_CHARS);
  const dataBytes = lengthOf(reader, "variableDataLength", MAX_VARIABLE_BYTES);
  let name = "";
  for (let i = 0; i < nameChars; i += 1) {
    name += String.fromCharCode(reader.u16le("unicodeName"));
  }
  const data = reader.bytes("variableData", dataBytes);
  reader.end();
  return { vendor, name, data };
}

/** The contents of PK, KEK, db or dbx; empty where the variable does not exist. @throws `WIRE_*` */
export function parseSignatureLists(bytes: Uint8Array): readonly EfiSignature[] {
  const reader = new Reader(bytes, "EFI_SIGNATURE_LIST");
  const signatures: EfiSignature[] = [];
  while (reader.remaining > 0) readSignatureList(reader, signatures);
  return signatures;
}

function readSignatureList(reader: Reader, signatures: EfiSignature[]): void {
  const guid = guidText(reader.bytes("signatureType", GUID_BYTES));
  const type = SIGNATURE_TYPES.get(guid) ?? "other";
  const listBytes = reader.u32le("signatureListSize");
  const headerBytes = reader.u32le("signatureHeaderSize");
  const signatureBytes = reader.u32le("signatureSize");
  const contentBytes = listBytes - LIST_HEADER_BYTES - headerBytes;
  const isWhole =
    contentBytes >= 0 && signatureBytes > GUID_BYTES && contentBytes % signatureBytes === 0;
  if (!isWhole) {
    reader.fail("WIRE_LENGTH_OUT_OF_BOUNDS", "signatureSize", "the sizes do not add up", -12);
  }
  reader.bytes("signatureHeader", headerBytes);
  const count = contentBytes / signatureBytes;
  if (signatures.length + count > MAX_SIGNATURES) {
    reader.fail("WIRE_LENGTH_OUT_OF_BOUNDS", "signatures", `expected at most ${MAX_SIGNATURES}`);
  }
  for (let i = 0; i < count; i += 1) {
    const owner = guidText(reader.bytes("signatureOwner", GUID_BYTES));
    const data = reader.bytes("signatureData", signatureBytes - GUID_BYTES);
    signatures.push({ type, owner, data });
  }
}

/** EFI_SIGNATURE_DATA alone, as in EV_EFI_VARIABLE_AUTHORITY. @throws `WIRE_*` */
export function parseSignatureData(bytes: Uint8Array): Pick<EfiSignature, "data" | "owner"> {
  const reader = new Reader(bytes, "EFI_SIGNATURE_DATA");
  const owner = guidText(reader.bytes("signatureOwner", GUID_BYTES));
  return { owner, data: reader.rest("signatureData") };
}

function lengthOf(reader: Reader, field: string, max: number): number {
  const length = reader.u64le(field);
  if (length > BigInt(max)) {
    reader.fail("WIRE_LENGTH_OUT_OF_BOUNDS", field, `expected at most ${max}`, -8);
  }
  return Number(length);
}

/** EFI_GUID: the first three fields are little-endian. */
function guidText(bytes: Uint8Array): string {
  const part = (from: number, to: number): Uint8Array => bytes.slice(from, to);
  return [
    part(0, 4).toReversed(),
    part(4, 6).toReversed(),
    part(6, 8).toReversed(),
    part(8, 10),
    part(10, 16),
  ]
    .map(encodeHex)
    .join("-");
}
