/**
 * What an attester remembers of its devices: an interface, implemented in `service/`. Devices are known by
 * their pseudonym alone, a keyed hash that is of no use elsewhere; no EK and no certificate is kept.
 *
 * Contract: a record is durable when `record` returns. A crash in between leaves the old record or the new.
 * Whatever a store cannot answer is a refusal, never an unknown device.
 */
import type { ClockRecord } from "../quote/clock.ts";

export interface DeviceRecord extends ClockRecord {
  /** Whether resets, restarts and firmware are told in the clear (D7, `hierarchyOfSigner`). */
  readonly counters: "plain" | "blurred";
}

export interface DeviceEntry {
  readonly pseudonym: string;
  /** `id:XXXXXXXX`. */
  readonly manufacturer: string;
  readonly deviceClass: string;
  readonly record: DeviceRecord;
}

export interface DeviceRegistry {
  /**
   * The last accepted record, or undefined for a device that is not known.
   * @throws `ATTEST_DEVICE_REVOKED` where the device, its manufacturer or its class is revoked,
   * `ATTEST_REGISTRY_UNAVAILABLE`
   */
  readonly lookUp: (device: {
    readonly pseudonym: string;
    readonly manufacturer: string;
  }) => Promise<DeviceRecord | undefined>;
  /**
   * Replaces the record of a device whose whole evidence was accepted.
   * @throws `ATTEST_DEVICE_REVOKED` where its class is revoked, `ATTEST_REGISTRY_UNAVAILABLE`
   */
  readonly record: (entry: DeviceEntry) => Promise<void>;
}
