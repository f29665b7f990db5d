/**
 * Event types of the TCG PC Client Platform Firmware Profile (PFP) §10.4.1, and what their digest is of.
 * A type that is not here is kept and reported by its number, and nothing is guessed of it (E10).
 */
export const EV_POST_CODE = 0x0000_0001;
export const EV_NO_ACTION = 0x0000_0003;
export const EV_SEPARATOR = 0x0000_0004;
export const EV_IPL = 0x0000_000d;
export const EV_EFI_VARIABLE_DRIVER_CONFIG = 0x8000_0001;
export const EV_EFI_BOOT_SERVICES_APPLICATION = 0x8000_0003;
export const EV_EFI_BOOT_SERVICES_DRIVER = 0x8000_0004;
export const EV_EFI_RUNTIME_SERVICES_DRIVER = 0x8000_0005;
export const EV_EFI_ACTION = 0x8000_0007;
export const EV_EFI_HCRTM_EVENT = 0x8000_0010;
export const EV_EFI_VARIABLE_AUTHORITY = 0x8000_00e0;

interface EventTypeRow {
  readonly name: string;
  /**
   * True where the digest is of the event data as logged, so that the data can be checked (E5). Elsewhere
   * it is of something that is not in the log: code, a table, a file.
   */
  readonly isOfData: boolean;
}

const row = (name: string, isOfData: boolean): EventTypeRow => ({ name, isOfData });

const ROWS: ReadonlyMap<number, EventTypeRow> = new Map([
  [0x0000_0000, row("EV_PREBOOT_CERT", false)],
  [EV_POST_CODE, row("EV_POST_CODE", true)],
  [0x0000_0002, row("EV_UNUSED", false)],
  [EV_NO_ACTION, row("EV_NO_ACTION", false)],
  [EV_SEPARATOR, row("EV_SEPARATOR", true)],
  [0x0000_0005, row("EV_ACTION", true)],
  [0x0000_0006, row("EV_EVENT_TAG", true)],
  [0x0000_0007, row("EV_S_CRTM_CONTENTS", false)],
  [0x0000_0008, row("EV_S_CRTM_VERSION", true)],
  [0x0000_0009, row("EV_CPU_MICROCODE", false)],
  [0x0000_000a, row("EV_PLATFORM_CONFIG_FLAGS", true)],
  [0x0000_000b, row("EV_TABLE_OF_DEVICES", true)],
  [0x0000_000c, row("EV_COMPACT_HASH", false)],
  [EV_IPL, row("EV_IPL", true)],
  [0x0000_000e, row("EV_IPL_PARTITION_DATA", false)],
  [0x0000_000f, row("EV_NONHOST_CODE", false)],
  [0x0000_0010, row("EV_NONHOST_CONFIG", false)],
  [0x0000_0011, row("EV_NONHOST_INFO", true)],
  [0x0000_0012, row("EV_OMIT_BOOT_DEVICE_EVENTS", true)],
  [EV_EFI_VARIABLE_DRIVER_CONFIG, row("EV_EFI_VARIABLE_DRIVER_CONFIG", true)],
  // Of the variable's data alone, in most firmware.
  [0x8000_0002, row("EV_EFI_VARIABLE_BOOT", false)],
  [EV_EFI_BOOT_SERVICES_APPLICATION, row("EV_EFI_BOOT_SERVICES_APPLICATION", false)],
  [EV_EFI_BOOT_SERVICES_DRIVER, row("EV_EFI_BOOT_SERVICES_DRIVER", false)],
  [EV_EFI_RUNTIME_SERVICES_DRIVER, row("EV_EFI_RUNTIME_SERVICES_DRIVER", false)],
  [0x8000_0006, row("EV_EFI_GPT_EVENT", true)],
  [EV_EFI_ACTION, row("EV_EFI_ACTION", true)],
  [0x8000_0008, row("EV_EFI_PLATFORM_FIRMWARE_BLOB", false)],
  [0x8000_0009, row("EV_EFI_HANDOFF_TABLES", false)],
  [0x8000_000a, row("EV_EFI_PLATFORM_FIRMWARE_BLOB2", false)],
  [0x8000_000b, row("EV_EFI_HANDOFF_TABLES2", false)],
  [0x8000_000c, row("EV_EFI_VARIABLE_BOOT2", true)],
  [0x8000_000d, row("EV_EFI_GPT_EVENT2", true)],
  [EV_EFI_HCRTM_EVENT, row("EV_EFI_HCRTM_EVENT", false)],
  [EV_EFI_VARIABLE_AUTHORITY, row("EV_EFI_VARIABLE_AUTHORITY", true)],
  [0x8000_00e1, row("EV_EFI_SPDM_FIRMWARE_BLOB", false)],
  [0x8000_00e2, row("EV_EFI_SPDM_FIRMWARE_CONFIG", false)],
]);

/** The specification's name, or the number in hexadecimal. The type itself is covered by no digest. */
export function eventTypeName(eventType: number): string {
  return ROWS.get(eventType)?.name ?? `0x${eventType.toString(16).padStart(8, "0")}`;
}

export function isDigestOfData(eventType: number): boolean {
  return ROWS.get(eventType)?.isOfData ?? false;
}
