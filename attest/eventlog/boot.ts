/**
 * What was loaded (E8): UEFI drivers and option ROMs in PCR 2, boot applications in PCR 4, and what boot
 * loaders measure with EV_IPL in PCRs 8, 9, 12. A digest says what ran; the path in an event's data is the
 * log's word alone, and is not reported. Nor is a type more than that (E5): in PCRs 2 and 4 each event that
 * is not listed is reported, lest an image is hidden by another type.
 */
import type { Coverage } from "./coverage.ts";
import {
  EV_EFI_ACTION,
  EV_EFI_BOOT_SERVICES_APPLICATION,
  EV_EFI_BOOT_SERVICES_DRIVER,
  EV_EFI_RUNTIME_SERVICES_DRIVER,
  EV_IPL,
  EV_SEPARATOR,
} from "./event-types.ts";
import type { EventLogFinding } from "./findings.ts";
import { isText, type TcgEvent } from "./parse-event-log.ts";
import { isExtended } from "./replay.ts";

const OPTION_ROM_PCR = 2;
const BOOT_MANAGER_PCR = 4;
const EV_OMIT_BOOT_DEVICE_EVENTS = 0x0000_0012;
const OMITTED = "BOOT ATTEMPTS OMITTED";
const CALLING = "Calling EFI Application from Boot Option";
const RETURNING = "Returning from EFI Application from Boot Option";
/** What GRUB puts before the text that it measured. */
const LOADER_PREFIXES = ["grub_cmd: ", "kernel_cmdline: ", "module_cmdline: "] as const;

/** Every byte is a letter: what is not ASCII is shown as such, and nothing is thrown. */
const latin1 = new TextDecoder("latin1");

/** An image by its Authenticode digests, by TPM_ALG_ID. */
export interface MeasuredImage {
  readonly eventIndex: number;
  readonly covered: boolean;
  readonly digests: ReadonlyMap<number, Uint8Array>;
}

/** A command line, command or file name of a boot loader. */
export interface LoaderMeasurement {
  readonly eventIndex: number;
  readonly pcrIndex: number;
  /** True where the text is what was measured; else it only describes it. */
  readonly covered: boolean;
  readonly text: string;
}

export interface BootState {
  /** Started before the boot manager said so; each is a finding as well. */
  readonly earlyApplications: readonly MeasuredImage[];
  /** In the order in which they were started. */
  readonly bootApplications: readonly MeasuredImage[];
  /** Drivers of the firmware's and of option ROMs. */
  readonly drivers: readonly MeasuredImage[];
  readonly loader: readonly LoaderMeasurement[];
  readonly findings: readonly EventLogFinding[];
}

export function bootState(events: readonly TcgEvent[], coverage: Coverage): BootState {
  const earlyApplications: MeasuredImage[] = [];
  const bootApplications: MeasuredImage[] = [];
  const findings: EventLogFinding[] = [];
  let isCalling = false;
  for (const event of events) {
    isCalling ||= isCall(event, coverage);
    const isApplication = event.eventType === EV_EFI_BOOT_SERVICES_APPLICATION;
    if (!isApplication || event.pcrIndex !== BOOT_MANAGER_PCR) continue;
    const image = measuredImage(event, coverage);
    if (isCalling) {
      bootApplications.push(image);
      continue;
    }
    earlyApplications.push(image);
    findings.push({ code: "boot-application-unexpected", eventIndex: event.index });
  }
  const drivers = events
    .filter((event) => event.pcrIndex === OPTION_ROM_PCR && isDriver(event))
    .map((event) => measuredImage(event, coverage));
  const loader = events
    .filter(({ eventType }) => eventType === EV_IPL)
    .map((event) => loaderMeasurement(event, coverage));
  const hidden = events
    .filter((event) => isMisplaced(event, coverage))
    .map(({ index }): EventLogFinding => ({ code: "event-type-unexpected", eventIndex: index }));
  return {
    earlyApplications,
    bootApplications,
    drivers,
    loader,
    findings: [...findings, ...hidden],
  };
}

/**
 * Neither an image that is listed nor a text that is known. That the digest is of the data is not enough: an
 * image's digest is of bytes that whoever hides it can log as the data of any type.
 */
function isMisplaced(event: TcgEvent, coverage: Coverage): boolean {
  const { eventType, pcrIndex } = event;
  if (!isExtended(event) || eventType === EV_SEPARATOR) return false;
  if (pcrIndex === OPTION_ROM_PCR) return !isDriver(event);
  if (pcrIndex !== BOOT_MANAGER_PCR || eventType === EV_EFI_BOOT_SERVICES_APPLICATION) return false;
  const texts = eventType === EV_EFI_ACTION ? [CALLING, RETURNING] : [OMITTED];
  const isKnownType = eventType === EV_EFI_ACTION || eventType === EV_OMIT_BOOT_DEVICE_EVENTS;
  const isKnownText = texts.some((text) => isText(event.event, text));
  return !isKnownType || !isKnownText || !coverage.isDataCovered(event);
}

/** Some firmware measures the call into PCR 5, and some none at all where it was told to omit it. */
function isCall(event: TcgEvent, coverage: Coverage): boolean {
  if (!coverage.isDataCovered(event)) return false;
  const isCalling = event.eventType === EV_EFI_ACTION && isText(event.event, CALLING);
  if (isCalling) return event.pcrIndex === BOOT_MANAGER_PCR || event.pcrIndex === 5;
  return event.eventType === EV_OMIT_BOOT_DEVICE_EVENTS && event.pcrIndex === BOOT_MANAGER_PCR;
}

function isDriver({ eventType }: TcgEvent): boolean {
  return eventType === EV_EFI_BOOT_SERVICES_DRIVER || eventType === EV_EFI_RUNTIME_SERVICES_DRIVER;
}

function measuredImage(event: TcgEvent, coverage: Coverage): MeasuredImage {
  return { eventIndex: event.index, covered: coverage.isCovered(event), digests: event.digests };
}

function loaderMeasurement(event: TcgEvent, coverage: Coverage): LoaderMeasurement {
  const units = textUnits(event.event);
  const text = latin1.decode(units);
  const prefix = LOADER_PREFIXES.find((known) => text.startsWith(known)) ?? "";
  const covered =
    coverage.isDataCovered(event) || coverage.covers(event, units.subarray(prefix.length));
  return { eventIndex: event.index, pcrIndex: event.pcrIndex, covered, text };
}

/** The letters of UTF-16 (systemd-boot) or 8-bit text (GRUB), up to the zero that ends it. */
function textUnits(bytes: Uint8Array): Uint8Array {
  const isWide = bytes.length >= 2 && bytes.length % 2 === 0 && bytes[1] === 0;
  const units = isWide ? bytes.filter((_, index) => index % 2 === 0) : bytes;
  const end = units.indexOf(0);
  return units.subarray(0, end < 0 ? units.length : end);
}
