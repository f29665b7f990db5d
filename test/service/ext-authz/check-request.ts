/** A CheckRequest as Envoy writes one, by the wire format's rules and none of the service's code. */

export interface CheckFields {
  readonly address: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly host: string;
  readonly method: string;
}

export function checkRequest({ address, headers, host, method }: CheckFields): Uint8Array {
  const source = field(1, field(1, field(1, text(2, address))));
  const entries = Object.entries(headers).map(([name, value]) =>
    field(3, text(1, name), text(2, value)),
  );
  const http = field(2, text(2, method), ...entries, text(4, "/"), text(5, host));
  return field(1, source, field(4, http));
}

function field(number: number, ...parts: readonly Buffer[]): Buffer {
  const value = Buffer.concat(parts);
  return Buffer.concat([Buffer.from([number * 8 + 2, ...varint(value.length)]), value]);
}

function text(number: number, value: string): Buffer {
  return field(number, Buffer.from(value));
}

function varint(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...varint(value >> 7)];
}
