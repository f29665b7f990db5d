/** Bytes, encodings and errors: the bottom layer. No crypto, no clock, no I/O. */
export { constantTimeEqual } from "./equal.ts";
export {
  type Base64UrlPadding,
  decodeBase64Url,
  decodeHex,
  decodeUtf8,
  encodeBase64Url,
  encodeHex,
  encodeUtf8,
} from "./encoding.ts";
export { ERROR_CODES, type ErrorCode } from "./error-codes.ts";
export {
  isStileError,
  StileError,
  type StileErrorOptions,
  type WireErrorDetail,
} from "./errors.ts";
export { Reader } from "./reader.ts";
export { concatBytes, Writer } from "./writer.ts";
