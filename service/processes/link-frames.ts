/**
 * What a worker and the keeper say over their private socket: frames of `u32 length, u8 kind, body`, integers
 * big-endian. Spends are the frames that are many, so they are binary and come several in a frame; the rest is
 * JSON. Both ends are of one start of the service, so there is no version: another start has another key.
 */
import type { SpendOutcome, SpendRequest } from "../../tokens/index.ts";
import { decodeUtf8, encodeUtf8, Reader, StileError, Writer } from "../../wire/index.ts";
import type { SignatureUse } from "../edge/signatures/used-signatures.ts";

export const FRAME = {
  /** Worker: JSON {@link Hello}. */
  hello: 1,
  /** Keeper: JSON of `KeeperFacts`, first and after each change. */
  facts: 2,
  /** Worker: {@link SpendCall}, one or more. */
  spends: 3,
  /** Keeper: {@link SpendAnswer}, one or more. */
  spent: 4,
  /** Worker: one {@link VerifyCall}. */
  verify: 5,
  /** Keeper: one {@link YesNoAnswer}. */
  verified: 6,
  /** Keeper: nothing; asks for `metrics`. */
  askMetrics: 7,
  /** Worker: JSON, as prom-client gives a registry. */
  metrics: 8,
  /** Keeper: nothing. It ends: finish what is under way, send nothing new. */
  goAway: 9,
  /** Worker: one {@link UseCall}. */
  use: 10,
  /** Keeper: one {@link YesNoAnswer}. */
  used: 11,
  /** Worker: nothing; it goes by the facts that came last. */
  heard: 12,
} as const;

export interface Frame {
  readonly kind: number;
  readonly body: Uint8Array;
}

export interface Hello {
  /** The key of the service's start, hexadecimal. */
  readonly key: string;
  readonly worker: number;
}

export interface SpendCall {
  readonly id: number;
  readonly request: SpendRequest;
}

/** What may cross: any other error of the keeper is its own to log. */
export type LinkError = (typeof LINK_ERRORS)[number];

export interface SpendAnswer {
  readonly id: number;
  readonly result: SpendOutcome | LinkError;
}

export interface VerifyCall {
  readonly id: number;
  readonly tokenKeyId: Uint8Array;
  readonly input: Uint8Array;
  readonly authenticator: Uint8Array;
}

export interface UseCall {
  readonly id: number;
  readonly use: SignatureUse;
}

export interface YesNoAnswer {
  readonly id: number;
  readonly result: boolean | LinkError;
}

const HEADER_BYTES = 5;
/** The facts of eight keys of each type, and the metrics of a worker with a thousand rules, are far below. */
const MAX_FRAME_BYTES = 16 * 1_024 * 1_024;
const ID_BYTES = 32;
/** A token's authenticator input has 98 bytes, its authenticator up to 256. */
const MAX_PART_BYTES = 1_024;
/** Of an agent, as the configuration has it. */
const MAX_NAME_BYTES = 32;
const LINK_ERRORS = ["TOKEN_STORE_UNAVAILABLE", "TOKEN_KEY_UNKNOWN", "TOKEN_ISSUER_BUSY"] as const;
const FRESH = 0;
const REPEAT = 1;
const SPENT = 2;
const FALSE = 0;
const TRUE = 1;
/** From here on, the index of an error. */
const ERROR = 16;

export function encodeFrame(kind: number, body: Uint8Array): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32BE(body.length);
  header.writeUInt8(kind, HEADER_BYTES - 1);
  return Buffer.concat([header, body]);
}

export function encodeJsonFrame(kind: number, value: unknown): Buffer {
  return encodeFrame(kind, Buffer.from(JSON.stringify(value)));
}

/** @returns takes what was read and gives the frames that are whole. @throws `WIRE_LENGTH_OUT_OF_BOUNDS` */
export function createFrameReader(): (chunk: Uint8Array) => readonly Frame[] {
  let pending = Buffer.alloc(0);
  return (chunk) => {
    pending = pending.length === 0 ? Buffer.from(chunk) : Buffer.concat([pending, chunk]);
    const frames: Frame[] = [];
    while (pending.length >= HEADER_BYTES) {
      const length = pending.readUInt32BE();
      if (length > MAX_FRAME_BYTES) {
        throw new StileError("WIRE_LENGTH_OUT_OF_BOUNDS", "frame: expected 16 MiB or less");
      }
      if (pending.length < HEADER_BYTES + length) break;
      const body = pending.subarray(HEADER_BYTES, HEADER_BYTES + length);
      frames.push({ kind: pending.readUInt8(HEADER_BYTES - 1), body });
      pending = pending.subarray(HEADER_BYTES + length);
    }
    return frames;
  };
}

export function parseJsonFrame(frame: Frame): unknown {
  return JSON.parse(Buffer.from(frame.body).toString("utf8"));
}

export function encodeSpendCalls(calls: readonly SpendCall[]): Uint8Array {
  const writer = new Writer();
  for (const { id, request } of calls) {
    writer.u32(id).bytes(request.tokenKeyId).bytes(request.nonce);
    writeTime(writer, request.atMs);
    writer.vec8(request.binding ?? new Uint8Array(0));
  }
  return writer.finish();
}

/** @throws `WIRE_*` */
export function parseSpendCalls(body: Uint8Array): SpendCall[] {
  const reader = new Reader(body, "spend calls");
  const calls: SpendCall[] = [];
  while (reader.remaining > 0) {
    const id = reader.u32("id");
    const tokenKeyId = Uint8Array.from(reader.bytes("token_key_id", ID_BYTES));
    const nonce = Uint8Array.from(reader.bytes("nonce", ID_BYTES));
    const atMs = readTime(reader);
    const binding = Uint8Array.from(reader.vec8("binding", 0, ID_BYTES));
    const bound = binding.length === 0 ? {} : { binding };
    calls.push({ id, request: { tokenKeyId, nonce, atMs, ...bound } });
  }
  return calls;
}

export function encodeSpendAnswers(answers: readonly SpendAnswer[]): Uint8Array {
  const writer = new Writer();
  for (const { id, result } of answers) {
    writer.u32(id);
    if (typeof result === "string") writer.u8(ERROR + LINK_ERRORS.indexOf(result));
    else if (result.outcome === "fresh") writer.u8(FRESH);
    else if (result.outcome === "spent") writer.u8(SPENT);
    else writeTime(writer.u8(REPEAT), result.firstAtMs);
  }
  return writer.finish();
}

/** @throws `WIRE_*` */
export function parseSpendAnswers(body: Uint8Array): SpendAnswer[] {
  const reader = new Reader(body, "spend answers");
  const answers: SpendAnswer[] = [];
  while (reader.remaining > 0) {
    answers.push({ id: reader.u32("id"), result: readSpendResult(reader) });
  }
  return answers;
}

function readSpendResult(reader: Reader): SpendOutcome | LinkError {
  const tag = reader.u8("result");
  if (tag === FRESH) return { outcome: "fresh" };
  if (tag === SPENT) return { outcome: "spent" };
  if (tag === REPEAT) return { outcome: "repeat", firstAtMs: readTime(reader) };
  return errorOf(reader, tag);
}

export function encodeVerifyCall({ authenticator, id, input, tokenKeyId }: VerifyCall): Uint8Array {
  return new Writer().u32(id).bytes(tokenKeyId).vec16(input).vec16(authenticator).finish();
}

/** @throws `WIRE_*` */
export function parseVerifyCall(body: Uint8Array): VerifyCall {
  const reader = new Reader(body, "verify call");
  const call = {
    id: reader.u32("id"),
    tokenKeyId: Uint8Array.from(reader.bytes("token_key_id", ID_BYTES)),
    input: Uint8Array.from(reader.vec16("input", 0, MAX_PART_BYTES)),
    authenticator: Uint8Array.from(reader.vec16("authenticator", 0, MAX_PART_BYTES)),
  };
  reader.end();
  return call;
}

export function encodeUseCall({ id, use }: UseCall): Uint8Array {
  return new Writer().u32(id).vec8(encodeUtf8(use.agent)).bytes(use.key).finish();
}

/** @throws `WIRE_*` */
export function parseUseCall(body: Uint8Array): UseCall {
  const reader = new Reader(body, "use call");
  const id = reader.u32("id");
  const agent = decodeUtf8(reader.vec8("agent", 1, MAX_NAME_BYTES), "agent");
  const key = Uint8Array.from(reader.bytes("key", ID_BYTES));
  reader.end();
  return { id, use: { agent, key } };
}

export function encodeYesNo({ id, result }: YesNoAnswer): Uint8Array {
  const tag = typeof result === "string" ? ERROR + LINK_ERRORS.indexOf(result) : Number(result);
  return new Writer().u32(id).u8(tag).finish();
}

/** @throws `WIRE_*` */
export function parseYesNo(body: Uint8Array): YesNoAnswer {
  const reader = new Reader(body, "answer");
  const id = reader.u32("id");
  const tag = reader.u8("result");
  const result = tag === TRUE || (tag === FALSE ? false : errorOf(reader, tag));
  reader.end();
  return { id, result };
}

function errorOf(reader: Reader, tag: number): LinkError {
  const code = LINK_ERRORS[tag - ERROR];
  if (code === undefined) reader.fail("WIRE_VALUE_NOT_ALLOWED", "result", "expected a known one");
  return code;
}

export function isLinkError(code: string): code is LinkError {
  return LINK_ERRORS.some((known) => known === code);
}

/** Unix milliseconds in 48 bits. */
function writeTime(writer: Writer, ms: number): void {
  writer.u16(Math.floor(ms / 2 ** 32)).u32(ms % 2 ** 32);
}

function readTime(reader: Reader): number {
  return reader.u16("time") * 2 ** 32 + reader.u32("time");
}
