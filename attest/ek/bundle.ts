/**
 * The manufacturers' certificates as one versioned file with a pinned digest (checklist A2, A12): what may
 * become trusted is reviewed once, and a file that was changed or swapped since is not read at all.
 * Two forms: PEM, whose self-signed certificates are anchors; and JSON, which names the manufacturers, says
 * which certificates are anchors, and may confine an anchor to the vendors that it is for.
 * It fetches nothing; where a new version comes from is the operator's business.
 */
import {
  constantTimeEqual,
  decodeHex,
  decodeUtf8,
  encodeHex,
  isStileError,
  StileError,
} from "../../wire/index.ts";
import { parseCertificate, type ParsedCertificate } from "./certificate.ts";
import { sha256 } from "./engine.ts";
import { createOddityRows } from "./oddities.ts";
import { decodeBase64, ISSUER_ODDITIES, parseTrustedRoots, type TrustedRoots } from "./roots.ts";

export interface BundlePin {
  /** As the file says it where it is JSON; for PEM, the operator's own name of it. */
  readonly version: string;
  /** SHA-256 of the file, 64 lower-case hexadecimal digits. */
  readonly sha256: string;
}

export interface ManufacturerBundle {
  readonly version: string;
  readonly roots: TrustedRoots;
  /** In the file's order; none for PEM. */
  readonly manufacturers: readonly BundledManufacturer[];
}

export interface BundledManufacturer {
  readonly name: string;
  /** `id:XXXXXXXX`; empty: any. */
  readonly vendorIds: readonly string[];
  readonly anchors: readonly ParsedCertificate[];
  readonly intermediates: readonly ParsedCertificate[];
}

const MAX_BUNDLE_BYTES = 16 * 1024 * 1024;
const MAX_MANUFACTURERS = 256;
const MAX_CERTIFICATES = 1024;
/** Of the JSON form. */
export const BUNDLE_FORMAT = "stile-manufacturers/1";
const VENDOR_ID = /^id:[0-9A-F]{8}$/;

/** @throws `ATTEST_ROOT_BUNDLE_INVALID`; RangeError for a pin that is no digest */
export async function parseManufacturerBundle(
  bytes: Uint8Array,
  pin: BundlePin,
): Promise<ManufacturerBundle> {
  if (!/^[0-9a-f]{64}$/.test(pin.sha256)) throw new RangeError("sha256: expected 64 hex digits");
  if (bytes.length > MAX_BUNDLE_BYTES) throw invalid("larger than the limit");
  // A copy: the digest is awaited, and the caller's memory may change meanwhile.
  const file = Uint8Array.from(bytes);
  if (!constantTimeEqual(await sha256(file), decodeHex(pin.sha256))) {
    throw invalid("is not the pinned one");
  }
  try {
    const text = decodeUtf8(file);
    if (!text.trimStart().startsWith("{")) {
      return { version: pin.version, roots: await parseTrustedRoots(text), manufacturers: [] };
    }
    return readBundle(parseJson(text), pin.version);
  } catch (cause) {
    const isOurs = isStileError(cause) && cause.code === "ATTEST_ROOT_BUNDLE_INVALID";
    if (isOurs || !isStileError(cause)) throw cause;
    throw invalid("a certificate cannot be read", cause);
  }
}

function readBundle(value: unknown, pinnedVersion: string): ManufacturerBundle {
  const { format, version, manufacturers, ...others } = objectOf(value);
  if (format !== BUNDLE_FORMAT || Object.keys(others).length > 0)
    throw invalid("is of another format");
  if (version !== pinnedVersion) throw invalid("is of another version than the pinned one");
  const rows = listOf(manufacturers, MAX_MANUFACTURERS).map(readManufacturer);
  const anchors = distinct(rows.flatMap((row) => row.anchors));
  if (anchors.length === 0) throw invalid("has no anchor");
  return {
    version: pinnedVersion,
    manufacturers: rows,
    roots: {
      anchors,
      intermediates: distinct(rows.flatMap((row) => row.intermediates)),
      isFor: (anchor, vendorId) => isFor(rows, anchor, vendorId),
    },
  };
}

function readManufacturer(value: unknown): BundledManufacturer {
  const { name, vendorIds = [], anchors, intermediates = [], ...others } = objectOf(value);
  if (typeof name !== "string" || name === "" || Object.keys(others).length > 0) throw malformed();
  return {
    name,
    vendorIds: listOf(vendorIds, MAX_MANUFACTURERS).map((id) => {
      if (typeof id !== "string" || !VENDOR_ID.test(id)) throw malformed();
      return id;
    }),
    anchors: listOf(anchors, MAX_CERTIFICATES).map(readCertificate),
    intermediates: listOf(intermediates, MAX_CERTIFICATES).map(readCertificate),
  };
}

function readCertificate(value: unknown): ParsedCertificate {
  if (typeof value !== "string") throw malformed();
  return parseCertificate(decodeBase64(value), createOddityRows(ISSUER_ODDITIES));
}

/** One certificate may be the anchor of several manufacturers, as GlobalSign's is. */
function isFor(
  rows: readonly BundledManufacturer[],
  anchor: ParsedCertificate,
  vendorId: string,
): boolean {
  return rows.some(
    ({ anchors, vendorIds }) =>
      anchors.some(({ der }) => constantTimeEqual(der, anchor.der)) &&
      (vendorIds.length === 0 || vendorIds.includes(vendorId)),
  );
}

function distinct(certificates: readonly ParsedCertificate[]): ParsedCertificate[] {
  return [...new Map(certificates.map((it) => [encodeHex(it.der), it])).values()];
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw invalid("expected PEM or JSON", cause);
  }
}

function objectOf(value: unknown): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw malformed();
  return { ...value };
}

function listOf(value: unknown, max: number): readonly unknown[] {
  if (!Array.isArray(value) || value.length > max) throw malformed();
  return value;
}

function malformed(): StileError {
  return invalid("a malformed member");
}

function invalid(what: string, cause?: unknown): StileError {
  return new StileError("ATTEST_ROOT_BUNDLE_INVALID", `manufacturers' bundle: ${what}`, { cause });
}
