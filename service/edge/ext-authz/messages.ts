/**
 * CheckRequest and CheckResponse of Envoy's envoy.service.auth.v3.Authorization (api/envoy/service/auth/v3/
 * external_auth.proto and attribute_context.proto, api/envoy/config/core/v3/base.proto and address.proto,
 * google/rpc/status.proto; field numbers as of Envoy 1.40). Of a request only what admission looks at is read.
 */
import { concatBytes, decodeUtf8 } from "../../../wire/index.ts";
import { delimited, readMessage, textField, uintField } from "./protobuf.ts";

/** Envoy lets 100 through by default; a map entry for each. */
const MAX_HEADERS = 1_000;

/** Hostile but for what Envoy itself says: the host was matched, the address is that of a connection. */
export interface CheckRequest {
  /** HttpRequest.method */
  readonly method: string;
  /** HttpRequest.host: the Host header, or `:authority`. */
  readonly host: string;
  /** By their names in lower case; several of one name are joined (RFC 9110 §5.3, RFC 9113 §8.2.3). */
  readonly headers: ReadonlyMap<string, string>;
  /** Of the client, as Envoy's own settings tell it (use_remote_address, xff_num_trusted_hops). */
  readonly sourceAddress: string | undefined;
}

/** @throws `WIRE_…` */
export function readCheckRequest(bytes: Uint8Array): CheckRequest {
  // AttributeContext attributes = 1;
  const check = readMessage(bytes, "CheckRequest", { 1: "attributes" });
  // Peer source = 1; Request request = 4;
  const context = readMessage(check.one(1) ?? NONE, "AttributeContext", {
    1: "source",
    4: "request",
  });
  // HttpRequest http = 2;
  const request = readMessage(context.one(4) ?? NONE, "Request", { 2: "http" });
  // string method = 2; map<string, string> headers = 3; string host = 5; HeaderMap header_map = 13;
  const fields = { 2: "method", 3: "headers", 5: "host", 13: "header_map" };
  const http = readMessage(request.one(2) ?? NONE, "HttpRequest", fields, MAX_HEADERS);
  const headers = new Map<string, string>();
  for (const entry of http.all(3)) addHeader(headers, ...readMapEntry(entry));
  // repeated HeaderValue headers = 1;
  const raw = readMessage(http.one(13) ?? NONE, "HeaderMap", { 1: "headers" }, MAX_HEADERS);
  for (const value of raw.all(1)) addHeader(headers, ...readHeaderValue(value));
  return {
    method: decodeUtf8(http.one(2) ?? NONE, "method"),
    host: decodeUtf8(http.one(5) ?? NONE, "host"),
    headers,
    sourceAddress: readPeerAddress(context.one(1) ?? NONE),
  };
}

const NONE = new Uint8Array();

function readMapEntry(bytes: Uint8Array): [name: string, value: string] {
  const entry = readMessage(bytes, "headers", { 1: "key", 2: "value" });
  return [decodeUtf8(entry.one(1) ?? NONE, "key"), decodeUtf8(entry.one(2) ?? NONE, "value")];
}

/** string key = 1; string value = 2; bytes raw_value = 3; — of the last two, one is set. */
function readHeaderValue(bytes: Uint8Array): [name: string, value: string] {
  const header = readMessage(bytes, "HeaderValue", { 1: "key", 2: "value", 3: "raw_value" });
  const raw = header.one(3);
  // As node:http reads the octets of a header.
  const value =
    raw === undefined
      ? decodeUtf8(header.one(2) ?? NONE, "value")
      : Buffer.from(raw).toString("latin1");
  return [decodeUtf8(header.one(1) ?? NONE, "key"), value];
}

function addHeader(headers: Map<string, string>, spelling: string, value: string): void {
  const name = spelling.toLowerCase();
  const before = headers.get(name);
  const separator = name === "cookie" ? "; " : ", ";
  headers.set(name, before === undefined ? value : before + separator + value);
}

/** Peer: Address address = 1. Address: SocketAddress socket_address = 1. SocketAddress: string address = 2. */
function readPeerAddress(bytes: Uint8Array): string | undefined {
  const address = readMessage(bytes, "Peer", { 1: "address" }).one(1) ?? NONE;
  const socket = readMessage(address, "Address", { 1: "socket_address" }).one(1);
  if (socket === undefined) return undefined;
  const text = readMessage(socket, "SocketAddress", { 2: "address" }).one(2);
  return text === undefined ? undefined : decodeUtf8(text, "address");
}

/** google.rpc.Code, as far as it is said. */
export const RPC_CODE: {
  readonly ok: 0;
  readonly permissionDenied: 7;
  readonly unavailable: 14;
  readonly unauthenticated: 16;
} = { ok: 0, permissionDenied: 7, unavailable: 14, unauthenticated: 16 };

export type HeaderList = readonly (readonly [name: string, value: string])[];

/** What Envoy is to do with a request that passes. */
export interface OkResponse {
  /** Set in the request, in the place of any of the same name. */
  readonly headers: HeaderList;
  /** Taken out of the request. */
  readonly headersToRemove: readonly string[];
  /** Added to the application's answer, beside any of the same name. */
  readonly responseHeadersToAdd: HeaderList;
}

/** What the client is answered. */
export interface DeniedResponse {
  readonly status: number;
  readonly headers: HeaderList;
  readonly body: string;
}

/** HeaderValueOption.HeaderAppendAction */
const APPEND_IF_EXISTS_OR_ADD = 0;
const OVERWRITE_IF_EXISTS_OR_ADD = 2;

export function encodeOk({
  headers,
  headersToRemove,
  responseHeadersToAdd,
}: OkResponse): Uint8Array {
  // repeated HeaderValueOption headers = 2; repeated string headers_to_remove = 5;
  // repeated HeaderValueOption response_headers_to_add = 6;
  const ok = concatBytes([
    ...headers.map((header) => delimited(2, headerOption(header, OVERWRITE_IF_EXISTS_OR_ADD))),
    ...headersToRemove.map((name) => textField(5, name)),
    ...responseHeadersToAdd.map((header) =>
      delimited(6, headerOption(header, APPEND_IF_EXISTS_OR_ADD)),
    ),
  ]);
  // Status status = 1; OkHttpResponse ok_response = 3;
  return concatBytes([delimited(1, rpcStatus(RPC_CODE.ok)), delimited(3, ok)]);
}

export function encodeDenied(code: number, { body, headers, status }: DeniedResponse): Uint8Array {
  // HttpStatus status = 1 (StatusCode code = 1); repeated HeaderValueOption headers = 2; string body = 3;
  const denied = concatBytes([
    delimited(1, uintField(1, status)),
    ...headers.map((header) => delimited(2, headerOption(header, OVERWRITE_IF_EXISTS_OR_ADD))),
    textField(3, body),
  ]);
  // Status status = 1; DeniedHttpResponse denied_response = 2;
  return concatBytes([delimited(1, rpcStatus(code)), delimited(2, denied)]);
}

/** google.rpc.Status: int32 code = 1. */
function rpcStatus(code: number): Uint8Array {
  return uintField(1, code);
}

/** HeaderValue header = 1 (string key = 1; string value = 2); HeaderAppendAction append_action = 3. */
function headerOption([name, value]: HeaderList[number], action: number): Uint8Array {
  const header = concatBytes([textField(1, name), textField(2, value)]);
  return concatBytes([delimited(1, header), uintField(3, action)]);
}
