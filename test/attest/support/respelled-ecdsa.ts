/**
 * A certificate or CRL with the other spelling of its ECDSA signature that pkijs takes: it writes the first
 * byte of an s that is too long over the last byte of r, so a copy of that byte changes nothing.
 */
import {
  children,
  parseDer,
  readBitString,
  readPositiveInteger,
  TAG,
} from "../../../attest/ek/der.ts";
import { concatBytes } from "../../../wire/index.ts";
import { der, seq } from "./der-certificate.ts";

/** Undefined where the last byte of r would make s negative or have a needless zero: half of them. */
export function respelledEcdsa(signed: Uint8Array): Uint8Array | undefined {
  const [tbs, algorithm, value] = children(parseDer(signed, TAG.SEQUENCE));
  if (tbs === undefined || algorithm === undefined || value === undefined) return undefined;
  const [r, s] = children(parseDer(readBitString(value).bytes, TAG.SEQUENCE));
  if (r === undefined || s === undefined) return undefined;
  const last = r.content.at(-1) ?? 0;
  if (last === 0 || last > 0x7f) return undefined;
  const width = 32;
  const bytes = readPositiveInteger(s);
  const zeros = new Uint8Array(width - bytes.length);
  const longer = der(TAG.INTEGER, Uint8Array.of(last), zeros, bytes);
  const signature = concatBytes([Uint8Array.of(0), seq(r.raw, longer)]);
  return seq(tbs.raw, algorithm.raw, der(TAG.BIT_STRING, signature));
}
