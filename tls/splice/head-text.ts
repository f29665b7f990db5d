/** Lines of a head as one string of latin1, without a string for each. */

/** Where the line that holds `at` ends: at its CRLF, or at the end of the text. */
export function lineEnd(text: string, at: number): number {
  const end = text.indexOf("\r\n", at);
  return end < 0 ? text.length : end;
}

/** Without the spaces and tabs around it (RFC 9110 §5.5), which are one space in nearly all heads. */
export function trimmed(text: string, from: number, to: number): string {
  let [begin, end] = [from, to];
  while (begin < end && isSpace(text.charCodeAt(begin))) begin += 1;
  while (end > begin && isSpace(text.charCodeAt(end - 1))) end -= 1;
  return text.slice(begin, end);
}

function isSpace(code: number): boolean {
  return code === 0x20 || code === 0x09;
}
