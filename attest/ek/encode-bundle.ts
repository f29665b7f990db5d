/**
 * Makes the manufacturers' bundle that `bundle.ts` reads, from certificates as vendors publish them. The same
 * certificates give the same bytes, in whatever order they come, so that a digest can be reviewed and pinned.
 */
import { encodeHex, isStileError, StileError } from "../../wire/index.ts";
import { BUNDLE_FORMAT } from "./bundle.ts";
import { parseCertificate, type ParsedCertificate } from "./certificate.ts";
import { sha256 } from "./engine.ts";
import { createOddityRows } from "./oddities.ts";
import { ISSUER_ODDITIES, isSelfSigned } from "./roots.ts";

export interface CollectedManufacturer {
  readonly name: string;
  /** `id:XXXXXXXX` of the TPMs that its anchors are for; empty: any. */
  readonly vendorIds: readonly string[];
  /** DER each, from files of that name. */
  readonly certificates: readonly { readonly file: string; readonly der: Uint8Array }[];
}

export interface EncodedBundle {
  /** The file, in UTF-8. */
  readonly text: string;
  /** Lower-case hexadecimal. */
  readonly sha256: string;
  readonly anchors: number;
  readonly intermediates: number;
  /** Files that hold no certificate which could be read, and why. */
  readonly skipped: readonly { readonly file: string; readonly reason: string }[];
}

/** A member of the file; certificates in base64, in the order of their digests. */
interface Row {
  readonly name: string;
  readonly vendorIds: readonly string[];
  readonly anchors: readonly string[];
  readonly intermediates: readonly string[];
}

/** @throws `ATTEST_ROOT_BUNDLE_INVALID` where nothing is self-signed */
export async function encodeManufacturerBundle(
  version: string,
  collected: readonly CollectedManufacturer[],
): Promise<EncodedBundle> {
  const skipped: { file: string; reason: string }[] = [];
  const manufacturers: Row[] = [];
  for (const { certificates, name, vendorIds } of byName(collected)) {
    const anchors = new Map<string, string>();
    const intermediates = new Map<string, string>();
    for (const { der, file } of certificates) {
      const certificate = tryParse(der, (reason) => skipped.push({ file, reason }));
      if (certificate === undefined) continue;
      const list = (await isSelfSigned(certificate)) ? anchors : intermediates;
      list.set(encodeHex(await sha256(certificate.der)), toBase64(certificate.der));
    }
    if (anchors.size + intermediates.size === 0) continue;
    manufacturers.push({
      name,
      vendorIds: vendorIds.toSorted(),
      anchors: sortedValues(anchors),
      intermediates: sortedValues(intermediates),
    });
  }
  const total = (of: "anchors" | "intermediates"): number =>
    manufacturers.reduce((sum, row) => sum + row[of].length, 0);
  if (total("anchors") === 0) {
    throw new StileError(
      "ATTEST_ROOT_BUNDLE_INVALID",
      "manufacturers' bundle: no anchor was found",
    );
  }
  const text = `${JSON.stringify({ format: BUNDLE_FORMAT, version, manufacturers }, null, 1)}\n`;
  return {
    text,
    sha256: encodeHex(await sha256(new TextEncoder().encode(text))),
    anchors: total("anchors"),
    intermediates: total("intermediates"),
    skipped,
  };
}

function byName(collected: readonly CollectedManufacturer[]): readonly CollectedManufacturer[] {
  return collected.toSorted((a, b) => (a.name < b.name ? -1 : Number(a.name > b.name)));
}

function sortedValues(byDigest: ReadonlyMap<string, string>): string[] {
  return [...byDigest].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, der]) => der);
}

function tryParse(der: Uint8Array, skip: (reason: string) => void): ParsedCertificate | undefined {
  try {
    return parseCertificate(der, createOddityRows(ISSUER_ODDITIES));
  } catch (error) {
    if (!isStileError(error)) throw error;
    skip(error.message);
    return undefined;
  }
}

function toBase64(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes));
}
