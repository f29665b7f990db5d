/** A sound boot with Secure Boot on, event by event, and ways to break one thing of it. */
import { type VerifiedEventLog, verifyEventLog } from "../../../../attest/eventlog/index.ts";
import {
  type BuiltEvent,
  buildLog,
  crypto,
  quoteOf,
  signatureList,
  variable,
} from "./log-builder.ts";

export const NO_ACTION = 3;
export const SEPARATOR = 4;
export const CONFIG = 0x8000_0001;
export const APPLICATION = 0x8000_0003;
export const DRIVER = 0x8000_0004;
export const ACTION = 0x8000_0007;
export const AUTHORITY = 0x8000_00e0;
export const GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
export const DATABASE = "d719b2cb-3d3a-4596-a3bc-dad00e67656f";

export const zero: Uint8Array = new Uint8Array(4);
export const separators = (...pcrs: number[]): BuiltEvent[] =>
  pcrs.map((pcr) => ({ pcr, type: SEPARATOR, data: zero }));
export const config = (vendor: string, name: string, data: Uint8Array): BuiltEvent => ({
  pcr: 7,
  type: CONFIG,
  data: variable(vendor, name, data),
});
export const secureBoot = (value: number): BuiltEvent =>
  config(GLOBAL, "SecureBoot", Uint8Array.of(value));
export const certificate: Uint8Array = Buffer.from("a certificate of some authority");
export const databases: BuiltEvent[] = [
  config(GLOBAL, "PK", signatureList(Buffer.from("platform key"))),
  config(GLOBAL, "KEK", signatureList(Buffer.from("key exchange key"))),
  config(DATABASE, "db", signatureList(certificate, Buffer.from("another"))),
  config(DATABASE, "dbx", new Uint8Array()),
];
export const authority: BuiltEvent = {
  pcr: 7,
  type: AUTHORITY,
  data: variable(DATABASE, "db", Buffer.concat([Buffer.alloc(16, 7), certificate])),
};
export const calling: BuiltEvent = {
  pcr: 4,
  type: ACTION,
  data: Buffer.from("Calling EFI Application from Boot Option"),
};
export const application: BuiltEvent = {
  pcr: 4,
  type: APPLICATION,
  data: Buffer.from("a device path"),
  measured: Buffer.from("an image"),
};
export const boot: BuiltEvent[] = [
  { pcr: 0, type: 8, data: Buffer.from("version") },
  secureBoot(1),
  ...databases,
  ...separators(7),
  calling,
  ...separators(0, 1, 2, 3, 4, 5, 6),
  authority,
  application,
];

export function verified(events: readonly BuiltEvent[]): VerifiedEventLog {
  const log = buildLog(events);
  return verifyEventLog({ log, quote: quoteOf(log), crypto });
}
export const codes = (events: readonly BuiltEvent[]): string[] =>
  verified(events).findings.map(({ code }) => code);
export const state = (events: readonly BuiltEvent[]): string => verified(events).secureBoot.state;
/** The boot with an event put in before the first that fits. */
export const before = (fits: (event: BuiltEvent) => boolean, added: BuiltEvent): BuiltEvent[] => {
  const at = boot.findIndex(fits);
  return [...boot.slice(0, at), added, ...boot.slice(at)];
};
export const replaced = (old: BuiltEvent, by: BuiltEvent): BuiltEvent[] =>
  boot.map((event) => (event === old ? by : event));
