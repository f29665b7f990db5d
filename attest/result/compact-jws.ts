/**
 * The one spelling of a JWS (RFC 7515 §7.1, §2): three parts of base64url without padding, white space or
 * left-over bits. jose decodes the signature leniently, so that many texts would be one result or proof.
 */
import { decodeBase64Url, isStileError } from "../../wire/index.ts";

/** Whether the text has the form; nothing in it is verified. */
export function isCompactJws(text: string): boolean {
  const parts = text.split(".");
  return parts.length === 3 && parts.every(isCanonicalBase64Url);
}

function isCanonicalBase64Url(text: string): boolean {
  if (text === "" || text.endsWith("=")) return false;
  try {
    decodeBase64Url(text);
    return true;
  } catch (error) {
    if (isStileError(error)) return false;
    throw error;
  }
}
