/** The bytes of a device's record: a version, fixed numbers, then three short strings. Nothing else. */
import type { DeviceRecord } from "../../attest/index.ts";
import { decodeUtf8, encodeUtf8, Reader, Writer } from "../../wire/index.ts";

export interface StoredDevice {
  readonly manufacturer: string;
  readonly deviceClass: string;
  /** Days since the Unix epoch on which it was last accepted. */
  readonly day: number;
  readonly record: DeviceRecord;
}

const VERSION = 1;
const MAX_TEXT_BYTES = 255;
const MAX_NAME_BYTES = 66;

export function encodeDevice({ day, deviceClass, manufacturer, record }: StoredDevice): Uint8Array {
  const { clockInfo, counters, firmwareVersion, qualifiedSigner } = record;
  return new Writer()
    .u8(VERSION)
    .u32(day)
    .u64(clockInfo.clock)
    .u32(clockInfo.resetCount)
    .u32(clockInfo.restartCount)
    .u8(clockInfo.safe ? 1 : 0)
    .u64(firmwareVersion)
    .u8(counters === "plain" ? 1 : 0)
    .vec8(qualifiedSigner)
    .vec8(encodeUtf8(manufacturer))
    .vec8(encodeUtf8(deviceClass))
    .finish();
}

/** @throws `WIRE_*` where the record is damaged: the store then counts as unavailable */
export function decodeDevice(bytes: Uint8Array): StoredDevice {
  const reader = new Reader(Uint8Array.from(bytes), "device record");
  if (reader.u8("version") !== VERSION) {
    reader.fail("WIRE_VALUE_NOT_ALLOWED", "version", "expected version 1", -1);
  }
  const day = reader.u32("day");
  const clockInfo = {
    clock: reader.u64("clock"),
    resetCount: reader.u32("resetCount"),
    restartCount: reader.u32("restartCount"),
    safe: reader.u8("safe") === 1,
  };
  const firmwareVersion = reader.u64("firmwareVersion");
  const counters = reader.u8("counters") === 1 ? "plain" : "blurred";
  const qualifiedSigner = reader.vec8("qualifiedSigner", 0, MAX_NAME_BYTES);
  const manufacturer = decodeUtf8(reader.vec8("manufacturer", 1, MAX_TEXT_BYTES), "manufacturer");
  const deviceClass = decodeUtf8(reader.vec8("deviceClass", 1, MAX_TEXT_BYTES), "deviceClass");
  reader.end();
  const record = { clockInfo, firmwareVersion, qualifiedSigner, counters } as const;
  return { manufacturer, deviceClass, day, record };
}
