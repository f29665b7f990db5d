/**
 * Whether bytes are one value of DER's form (ITU-T X.690 §10.1): definite lengths in their shortest form, each
 * content filled exactly, bounded depth. asn1js reads BER and forgives lengths that clients do not, so what a
 * file holds passes here first. It does not look into OCTET STRINGs, and not at what values mean.
 */

/** OCSP responses nest to about 12, with the certificates in them; CRLs to less. */
const MAX_DEPTH = 32;
const CONSTRUCTED = 0x20;

export function isDer(bytes: Uint8Array): boolean {
  return endOf(bytes, 0, bytes.length, 0) === bytes.length;
}

/** Offset behind the value that begins at `start`; NaN, which equals no offset, where it is not DER. */
function endOf(bytes: Uint8Array, start: number, limit: number, depth: number): number {
  const tag = bytes[start] ?? 0;
  const first = bytes[start + 1] ?? 0x80;
  if (start + 2 > limit || depth > MAX_DEPTH || (tag & 0x1f) === 0x1f) return Number.NaN;
  const width = first < 0x80 ? 0 : first & 0x7f;
  // Three bytes of length are more than any size cap of this folder.
  if (first === 0x80 || width > 3) return Number.NaN;
  let length = first < 0x80 ? first : 0;
  for (let index = 0; index < width; index += 1) {
    length = length * 256 + (bytes[start + 2 + index] ?? 0);
  }
  const isShortest = width === 0 || length >= Math.max(0x80, 2 ** (8 * (width - 1)));
  let offset = start + 2 + width;
  const end = offset + length;
  if (!isShortest || end > limit) return Number.NaN;
  if ((tag & CONSTRUCTED) === 0) return end;
  while (offset < end) offset = endOf(bytes, offset, end, depth + 1);
  return offset === end ? end : Number.NaN;
}
