/**
 * ExtensionSet, draft-ietf-privacypass-auth-scheme-extensions: the extension types that an origin asks for in a
 * challenge. We read it and never send it: our metadata is known beforehand.
 */
import { Reader, Writer } from "../../wire/index.ts";

/** Hostile: what an origin asks for says nothing about what is safe to send. */
export interface ExtensionEntry {
  readonly isRequired: boolean;
  readonly extensionType: number;
}

/** @throws `WIRE_*` */
export function parseExtensionSet(bytes: Uint8Array): readonly ExtensionEntry[] {
  const reader = new Reader(bytes, "ExtensionSet");
  // ExtensionEntry extension_types<0..2^16-1>;
  const items = new Reader(reader.vec16("extension_types", 0, 0xffff), "ExtensionSet");
  reader.end();
  const entries: ExtensionEntry[] = [];
  while (items.remaining > 0) {
    // Bool is_required; ExtensionType extension_type;
    const isRequired = items.u8("is_required");
    if (isRequired > 1) items.fail("WIRE_VALUE_NOT_ALLOWED", "is_required", "expected 0 or 1", -1);
    entries.push({ isRequired: isRequired === 1, extensionType: items.u16("extension_type") });
  }
  return entries;
}

export function encodeExtensionSet(entries: readonly ExtensionEntry[]): Uint8Array<ArrayBuffer> {
  const items = new Writer();
  for (const { extensionType, isRequired } of entries) {
    items.u8(isRequired ? 1 : 0).u16(extensionType);
  }
  return new Writer().vec16(items.finish()).finish();
}
