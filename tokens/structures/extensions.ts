/**
 * Extensions, the public metadata of a token (draft-ietf-privacypass-auth-scheme-extensions, the wire format of
 * draft-wood-privacypass-auth-scheme-extensions-01). Their bytes select the key that signs, so what was received
 * is kept and nothing is encoded anew. Which extensions may stand in a token is a policy's matter
 * (`metadata/expiration-policy.ts`).
 */
import { Reader, Writer } from "../../wire/index.ts";

const MAX_UINT16 = 0xffff;
/** opaque extension_data<0..2^16-4-1> */
const MAX_DATA_BYTES = 65_531;

export interface Extension {
  readonly extensionType: number;
  readonly extensionData: Uint8Array;
}

/** Parsed extensions. Hostile: they are what a client chose until a signature over them verifies. */
export interface Extensions {
  /** In ascending order of their types, which may repeat. */
  readonly extensions: readonly Extension[];
  /** The received bytes, length and all: the metadata of the signature. */
  readonly encoded: Uint8Array;
}

/** @throws `WIRE_*` */
export function parseExtensions(bytes: Uint8Array): Extensions {
  const reader = new Reader(bytes, "Extensions");
  const extensions = readExtensions(reader);
  reader.end();
  return extensions;
}

/** @throws `WIRE_*` */
export function readExtensions(reader: Reader): Extensions {
  const start = reader.offset;
  // Extension extensions<0..2^16-1>;
  const items = new Reader(reader.vec16("extensions", 0, MAX_UINT16), "Extensions");
  const extensions: Extension[] = [];
  while (items.remaining > 0) {
    // ExtensionType extension_type; opaque extension_data<0..2^16-4-1>;
    const extensionType = items.u16("extension_type");
    if (extensionType < (extensions.at(-1)?.extensionType ?? 0)) {
      items.fail("WIRE_VALUE_NOT_ALLOWED", "extension_type", "expected ascending types", -2);
    }
    const extensionData = items.vec16("extension_data", 0, MAX_DATA_BYTES);
    extensions.push({ extensionType, extensionData });
  }
  return { extensions, encoded: reader.since(start) };
}

/** @throws RangeError for types that descend, or more than 65,535 bytes of extensions */
export function encodeExtensions(extensions: readonly Extension[]): Uint8Array<ArrayBuffer> {
  const items = new Writer();
  let last = 0;
  for (const { extensionData, extensionType } of extensions) {
    if (extensionType < last) throw new RangeError("extension_type: expected ascending types");
    last = extensionType;
    items.u16(extensionType).vec16(extensionData);
  }
  return new Writer().vec16(items.finish()).finish();
}
