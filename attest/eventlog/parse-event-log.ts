/**
 * Measured-boot logs: TCG PC Client Platform Firmware Profile §10.2, the crypto-agile form (E1:
 * TCG_EfiSpecIDEvent, then TCG_PCR_EVENT2) and the SHA-1 form (TCG_PCR_EVENT). Strict: sizes are capped
 * before anything is read (E2), every byte belongs to an event. A parsed log is hostile: only a replay
 * against quoted PCRs says which of its events took place, see `verify-event-log.ts`.
 */
import { Reader, StileError } from "../../wire/index.ts";
import { hashRow, TPM_ALG_SHA1 } from "../structures/constants.ts";
import { EV_NO_ACTION } from "./event-types.ts";

/** Linux reserves 64 KiB and grows it as firmware asks; the largest that is known has some hundred. */
export const MAX_EVENT_LOG_BYTES = 16_777_216;
const MAX_EVENTS = 32_768;
/** GPT tables and option ROM lists are some 10 KiB; dbx grows by some KiB a year. */
const MAX_EVENT_BYTES = 4_194_304;
/** Banks that a TPM may have (Part 2, HASH_COUNT is 5 at most today). */
const MAX_ALGORITHMS = 8;
const MAX_DIGEST_BYTES = 64;
/** PCRs of the PC Client profile. */
const MAX_PCR = 23;
/** Windows ends its logs with an event of no PCR, which is not extended. */
const NO_PCR = 0xffff_ffff;
const SHA1_BYTES = 20;
const SPEC_ID_SIGNATURE_BYTES = 16;
const SPEC_ID_03 = "Spec ID Event03\0";

/** A bank of the log. Names are for the hashes that this verifier has. */
export interface EventLogAlgorithm {
  readonly alg: number;
  readonly digestBytes: number;
}

export interface TcgEvent {
  /** Position in the log, the header not counted. */
  readonly index: number;
  readonly pcrIndex: number;
  readonly eventType: number;
  /** By TPM_ALG_ID, one for each bank of the log. */
  readonly digests: ReadonlyMap<number, Uint8Array>;
  readonly event: Uint8Array;
}

export interface EventLog {
  readonly kind: "parsed-event-log";
  readonly format: "crypto-agile" | "sha1";
  readonly algorithms: readonly EventLogAlgorithm[];
  readonly events: readonly TcgEvent[];
}

/** A whole log. @throws `WIRE_*`, `ATTEST_EVENT_LOG_INVALID` */
export function parseEventLog(bytes: Uint8Array): EventLog {
  if (bytes.length > MAX_EVENT_LOG_BYTES) {
    throw new StileError("WIRE_LENGTH_OUT_OF_BOUNDS", "event log: larger than 16 MiB");
  }
  const algorithms = specIdAlgorithms(bytes);
  const reader = new Reader(bytes, "event log");
  if (algorithms === undefined) {
    const events = readEvents(reader, readTcgPcrEvent);
    const sha1 = [{ alg: TPM_ALG_SHA1, digestBytes: SHA1_BYTES }];
    return { kind: "parsed-event-log", format: "sha1", algorithms: sha1, events };
  }
  readTcgPcrEvent(reader, 0);
  const events = readEvents(reader, (from, index) => readTcgPcrEvent2(from, index, algorithms));
  return { kind: "parsed-event-log", format: "crypto-agile", algorithms, events };
}

function readEvents(
  reader: Reader,
  readEvent: (reader: Reader, index: number) => TcgEvent,
): TcgEvent[] {
  const events: TcgEvent[] = [];
  while (reader.remaining > 0) {
    if (events.length >= MAX_EVENTS) {
      reader.fail("WIRE_LENGTH_OUT_OF_BOUNDS", "events", `expected at most ${MAX_EVENTS} events`);
    }
    events.push(readEvent(reader, events.length));
  }
  return events;
}

/** The banks of a crypto-agile log, or undefined for one that does not begin like it. */
function specIdAlgorithms(bytes: Uint8Array): readonly EventLogAlgorithm[] | undefined {
  const header = readTcgPcrEvent(new Reader(bytes, "event log"), 0);
  const signature = header.event.subarray(0, SPEC_ID_SIGNATURE_BYTES);
  if (header.eventType !== EV_NO_ACTION || !isText(signature, SPEC_ID_03)) return undefined;
  return parseSpecIdEvent(header.event);
}

/** TCG_EfiSpecIDEvent (§10.4.5.1): complete, without duplicates, sizes as the hash has them (E1). */
function parseSpecIdEvent(event: Uint8Array): readonly EventLogAlgorithm[] {
  const reader = new Reader(event, "TCG_EfiSpecIDEvent");
  reader.bytes("signature", SPEC_ID_SIGNATURE_BYTES);
  reader.u32le("platformClass");
  reader.bytes("specVersionMinor, specVersionMajor, specErrata, uintnSize", 4);
  const count = reader.count32le("numberOfAlgorithms", 1, MAX_ALGORITHMS);
  const algorithms: EventLogAlgorithm[] = [];
  for (let i = 0; i < count; i += 1) {
    const alg = reader.u16le("digestSizes.algorithmId");
    const digestBytes = reader.u16le("digestSizes.digestSize");
    const isKnownSize = (hashRow(alg)?.digestBytes ?? digestBytes) === digestBytes;
    if (!isKnownSize || digestBytes === 0 || digestBytes > MAX_DIGEST_BYTES) {
      reader.fail("ATTEST_EVENT_LOG_INVALID", "digestSizes", "a size is not that of its hash", -2);
    }
    if (algorithms.some((known) => known.alg === alg)) {
      reader.fail("ATTEST_EVENT_LOG_INVALID", "digestSizes", "an algorithm occurs twice", -4);
    }
    algorithms.push({ alg, digestBytes });
  }
  reader.vec8("vendorInfo", 0, 255);
  reader.end();
  return algorithms;
}

/** TCG_PCR_EVENT (§10.2.1). */
function readTcgPcrEvent(reader: Reader, index: number): TcgEvent {
  const { pcrIndex, eventType } = readHead(reader);
  const digest = reader.bytes("digest", SHA1_BYTES);
  const event = reader.vec32le("event", 0, MAX_EVENT_BYTES);
  return { index, pcrIndex, eventType, digests: new Map([[TPM_ALG_SHA1, digest]]), event };
}

/** TCG_PCR_EVENT2 (§10.2.2): one digest for each bank, in any order, none twice. */
function readTcgPcrEvent2(
  reader: Reader,
  index: number,
  algorithms: readonly EventLogAlgorithm[],
): TcgEvent {
  const { pcrIndex, eventType } = readHead(reader);
  const digests = new Map<number, Uint8Array>();
  const count = reader.count32le("digests.count", algorithms.length, algorithms.length);
  for (let i = 0; i < count; i += 1) {
    const alg = reader.u16le("digests.hashAlg");
    const known = algorithms.find((algorithm) => algorithm.alg === alg);
    if (known === undefined || digests.has(alg)) {
      reader.fail("ATTEST_EVENT_LOG_INVALID", "digests.hashAlg", "expected each bank once", -2);
    }
    digests.set(alg, reader.bytes("digests.digest", known.digestBytes));
  }
  const event = reader.vec32le("event", 0, MAX_EVENT_BYTES);
  return { index, pcrIndex, eventType, digests, event };
}

/** The index and the type of an event. */
function readHead(reader: Reader): { readonly pcrIndex: number; readonly eventType: number } {
  const pcrIndex = reader.u32le("pcrIndex");
  const eventType = reader.u32le("eventType");
  const isOfNone = eventType === EV_NO_ACTION && pcrIndex === NO_PCR;
  if (pcrIndex > MAX_PCR && !isOfNone) {
    reader.fail("WIRE_VALUE_NOT_ALLOWED", "pcrIndex", `expected at most ${MAX_PCR}`, -8);
  }
  return { pcrIndex, eventType };
}

/** True where the bytes are exactly this ASCII text. */
export function isText(bytes: Uint8Array, text: string): boolean {
  return (
    bytes.length === text.length && bytes.every((byte, index) => byte === text.charCodeAt(index))
  );
}
