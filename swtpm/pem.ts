/** One PEM block (RFC 7468), for the files of the manufacturer CA. */
import { StileError } from "../wire/index.ts";

export function encodePem(der: Uint8Array, label: string): string {
  const lines =
    Buffer.from(der)
      .toString("base64")
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}

/** @throws `WIRE_BAD_ENCODING` unless the text is exactly one block with this label */
export function decodePem(text: string, label: string): Uint8Array {
  const match = /^-----BEGIN ([A-Z ]+)-----\n([A-Za-z0-9+/=\n]+)-----END \1-----\n?$/.exec(text);
  if (match === null || match[1] !== label) {
    throw new StileError("WIRE_BAD_ENCODING", `pem: expected one ${label} block`);
  }
  return new Uint8Array(Buffer.from(match[2] ?? "", "base64"));
}
