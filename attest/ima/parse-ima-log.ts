/**
 * Measurement lists of the Linux IMA (kernel documentation, "IMA Template Management Mechanism"): the
 * binary form (binary_runtime_measurements) and the ASCII form. An entry's template data is what the TPM
 * was extended with the hash of, so it is kept, or rebuilt from the ASCII fields, byte for byte.
 */
import { decodeHex, encodeUtf8, Reader, StileError, Writer } from "../../wire/index.ts";

/** A busy server measures some 100,000 files between two boots. */
const MAX_ENTRIES = 1_048_576;
export const MAX_IMA_LOG_BYTES = 268_435_456;
const MAX_TEMPLATE_BYTES = 65_536;
const MAX_NAME_BYTES = 32;
const MAX_PCR = 23;
const SHA1_BYTES = 20;
/** The old template pads its file name to this (IMA_EVENT_NAME_LEN_MAX and a zero). */
const IMA_NAME_BYTES = 256;
/** `d-ng`: the name of a hash, a colon and a zero. */
const MAX_HASH_NAME_CHARS = 32;

export interface ImaEntry {
  readonly index: number;
  readonly pcr: number;
  /** SHA-1 over the template data, or another hash in the lists of later kernels; zeros for a violation. */
  readonly templateHash: Uint8Array;
  readonly template: "ima" | "ima-ng" | "ima-sig" | "ima-buf";
  readonly templateData: Uint8Array;
  /** As the kernel names it: `sha256`. */
  readonly fileHash: string;
  readonly fileDigest: Uint8Array;
  readonly path: string;
  /** Of `ima-sig`, where the file has one. */
  readonly signature: Uint8Array | undefined;
  /** Of `ima-buf`: what was measured itself, such as a key or the command line of kexec. */
  readonly buffer: Uint8Array | undefined;
}

type NgTemplate = Exclude<ImaEntry["template"], "ima">;

/** Names that the kernel gives to hashes; another has a digest of unknown size, and is refused. */
const FILE_HASHES: ReadonlyMap<string, number> = new Map([
  ["md5", 16],
  ["sha1", 20],
  ["sha224", 28],
  ["sha256", 32],
  ["sha384", 48],
  ["sha512", 64],
  ["sm3_256", 32],
]);

const TEMPLATES: readonly ImaEntry["template"][] = ["ima", "ima-ng", "ima-sig", "ima-buf"];

type Fields = Pick<ImaEntry, "fileHash" | "fileDigest" | "path" | "signature" | "buffer">;

/** @throws `WIRE_*`, `ATTEST_EVENT_LOG_INVALID` */
export function parseImaLog(bytes: Uint8Array, form: "ascii" | "binary"): readonly ImaEntry[] {
  if (bytes.length > MAX_IMA_LOG_BYTES) {
    throw new StileError("WIRE_LENGTH_OUT_OF_BOUNDS", "IMA log: larger than 256 MiB");
  }
  return form === "binary" ? parseBinary(bytes) : parseAscii(bytes);
}

function parseBinary(bytes: Uint8Array): readonly ImaEntry[] {
  const reader = new Reader(bytes, "IMA log");
  const entries: ImaEntry[] = [];
  while (reader.remaining > 0) {
    if (entries.length >= MAX_ENTRIES) throw invalid("more entries than the limit");
    entries.push(readBinaryEntry(reader, entries.length));
  }
  return entries;
}

function readBinaryEntry(reader: Reader, index: number): ImaEntry {
  const pcr = checkedPcr(reader.u32le("pcr"));
  const templateHash = reader.bytes("templateHash", SHA1_BYTES);
  const template = templateOf(text(reader.vec32le("templateName", 1, MAX_NAME_BYTES)));
  if (template === "ima") {
    const fileDigest = reader.bytes("fileDigest", SHA1_BYTES);
    const path = text(reader.vec32le("path", 0, IMA_NAME_BYTES - 1));
    // The list holds the name's length, the measurement the name padded.
    const templateData = imaTemplateData(fileDigest, path);
    const none = { signature: undefined, buffer: undefined };
    const fields = { fileHash: "sha1", fileDigest, path, ...none };
    return { index, pcr, templateHash, template, templateData, ...fields };
  }
  const templateData = reader.vec32le("templateData", 1, MAX_TEMPLATE_BYTES);
  const fields = parseTemplateData(templateData, template);
  return { index, pcr, templateHash, template, templateData, ...fields };
}

/** `d-ng | n-ng`, for ima-sig `| sig`, for ima-buf `| buf`, each behind a little-endian length. */
function parseTemplateData(data: Uint8Array, template: NgTemplate): Fields {
  const reader = new Reader(data, "IMA template");
  const digest = reader.vec32le("d-ng", 2, MAX_TEMPLATE_BYTES);
  const colon = digest.indexOf(0x3a);
  if (colon < 1 || colon > MAX_HASH_NAME_CHARS || digest[colon + 1] !== 0) {
    throw invalid("d-ng: expected the name of a hash, a colon and a zero");
  }
  const name = reader.vec32le("n-ng", 1, MAX_TEMPLATE_BYTES);
  if (name.at(-1) !== 0) throw invalid("n-ng: expected a zero at its end");
  const signature =
    template === "ima-sig" ? reader.vec32le("sig", 0, MAX_TEMPLATE_BYTES) : undefined;
  const buffer = template === "ima-buf" ? reader.vec32le("buf", 0, MAX_TEMPLATE_BYTES) : undefined;
  reader.end();
  const fileHash = text(digest.subarray(0, colon));
  const fileDigest = digest.subarray(colon + 2);
  checkFileDigest(fileHash, fileDigest);
  return {
    fileHash,
    fileDigest,
    path: text(name.subarray(0, -1)),
    signature: signature?.length === 0 ? undefined : signature,
    buffer,
  };
}

function parseAscii(bytes: Uint8Array): readonly ImaEntry[] {
  const lines = text(bytes).split("\n");
  if (lines.pop() !== "") throw invalid("the last line does not end");
  if (lines.length > MAX_ENTRIES) throw invalid("more entries than the limit");
  return lines.map(parseLine);
}

const LINE =
  /^ *(?<pcr>\d{1,2}) (?<hash>[0-9a-f]{40}|[0-9a-f]{64}|[0-9a-f]{96}|[0-9a-f]{128}) (?<template>[a-z-]+) (?:(?<alg>[a-z0-9_-]{1,32}):)?(?<digest>(?:[0-9a-f]{2})+) (?<path>.+)$/;

function parseLine(line: string, index: number): ImaEntry {
  const fields = line.length <= MAX_TEMPLATE_BYTES ? LINE.exec(line)?.groups : undefined;
  if (fields === undefined) throw invalid(`line ${index + 1} has another form`);
  const template = templateOf(fields["template"] ?? "");
  const fileDigest = decodeHex(fields["digest"] ?? "");
  const fileHash = fields["alg"] ?? "sha1";
  checkFileDigest(fileHash, fileDigest);
  const { path, signature, buffer } = splitPath(fields["path"] ?? "", template);
  const templateData =
    template === "ima"
      ? imaTemplateData(fileDigest, path)
      : ngTemplateData({ fileHash, fileDigest, path, signature, buffer }, template);
  return {
    index,
    pcr: checkedPcr(Number(fields["pcr"])),
    templateHash: decodeHex(fields["hash"] ?? ""),
    template,
    templateData,
    fileHash,
    fileDigest,
    path,
    signature,
    buffer,
  };
}

/** A path may hold spaces. A signature is the last word and begins with its type, 03 (security.ima). */
function splitPath(
  rest: string,
  template: ImaEntry["template"],
): Pick<ImaEntry, "path" | "signature" | "buffer"> {
  if (template === "ima-buf") return splitBuffer(rest);
  if (template !== "ima-sig") return { path: rest, signature: undefined, buffer: undefined };
  const match = /^(?<path>.*) (?<signature>(?:[0-9a-f]{2}){2,})?$/.exec(rest);
  const signature = match?.groups?.["signature"];
  const path = match?.groups?.["path"] ?? rest;
  return {
    path,
    signature: signature === undefined ? undefined : decodeHex(signature),
    buffer: undefined,
  };
}

/** The buffer is the last word, which is never left out. */
function splitBuffer(rest: string): Pick<ImaEntry, "path" | "signature" | "buffer"> {
  const space = rest.lastIndexOf(" ");
  const buffer = rest.slice(space + 1);
  if (space < 1 || !/^(?:[0-9a-f]{2})*$/.test(buffer)) throw invalid("buf: expected hexadecimal");
  return { path: rest.slice(0, space), signature: undefined, buffer: decodeHex(buffer) };
}

function imaTemplateData(fileDigest: Uint8Array, path: string): Uint8Array {
  const data = new Uint8Array(SHA1_BYTES + IMA_NAME_BYTES);
  const name = encodeUtf8(path);
  if (fileDigest.length !== SHA1_BYTES || name.length >= IMA_NAME_BYTES) {
    throw invalid("expected a SHA-1 digest and a short name in the template ima");
  }
  data.set(fileDigest);
  data.set(name, SHA1_BYTES);
  return data;
}

function ngTemplateData(fields: Fields, template: NgTemplate): Uint8Array {
  const digest = new Writer()
    .bytes(encodeUtf8(`${fields.fileHash}:\0`))
    .bytes(fields.fileDigest)
    .finish();
  const writer = new Writer().vec32le(digest).vec32le(encodeUtf8(`${fields.path}\0`));
  if (template === "ima-sig") writer.vec32le(fields.signature ?? new Uint8Array());
  if (template === "ima-buf") writer.vec32le(fields.buffer ?? new Uint8Array());
  return writer.finish();
}

function checkFileDigest(fileHash: string, fileDigest: Uint8Array): void {
  const digestBytes = FILE_HASHES.get(fileHash);
  if (digestBytes === undefined) throw invalid("a file hash that this verifier does not know");
  if (fileDigest.length !== digestBytes) throw invalid("a digest that is not of its hash's size");
}

function templateOf(name: string): ImaEntry["template"] {
  const known = TEMPLATES.find((template) => template === name);
  if (known === undefined) throw invalid("a template that is not ima, ima-ng, ima-sig or ima-buf");
  return known;
}

function checkedPcr(pcr: number): number {
  if (pcr > MAX_PCR) throw invalid("a PCR that does not exist");
  return pcr;
}

/** Strict: what is not UTF-8 could not be written back. */
function text(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw invalid("expected UTF-8");
  }
}

function invalid(message: string): StileError {
  return new StileError("ATTEST_EVENT_LOG_INVALID", `IMA log: ${message}`);
}
