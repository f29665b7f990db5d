/**
 * The header in which a worker tells the keeper whose request it passes on. It is believed with the key of this
 * start, and from nobody else; a client's own copy never leaves the worker.
 */
import { timingSafeEqual } from "node:crypto";
import { decodeBase64Url, encodeBase64Url, StileError } from "../../wire/index.ts";
import type { Peer } from "../http/peer.ts";

export const PEER_HEADER = "stile-peer";

interface PeerText {
  readonly key: string;
  readonly address?: string;
  readonly tlsExporter?: string;
  readonly certificateSha256?: string;
}

/** @param key hexadecimal */
export function encodePeer(key: string, peer: Peer): string {
  const { address, certificateSha256, tlsExporter } = peer;
  const text: PeerText = {
    key,
    ...(address === undefined ? {} : { address }),
    ...(tlsExporter === undefined ? {} : { tlsExporter: encodeBase64Url(tlsExporter) }),
    ...(certificateSha256 === undefined ? {} : { certificateSha256 }),
  };
  return Buffer.from(JSON.stringify(text)).toString("base64url");
}

/** @throws `SERVICE_PROXY_UNTRUSTED` for anything but what {@link encodePeer} made with this key */
export function parsePeer(key: string, header: string | string[] | undefined): Peer {
  try {
    const json = Buffer.from(String(header ?? ""), "base64url").toString("utf8");
    const text = JSON.parse(json) as PeerText;
    const shown = Buffer.from(text.key, "hex");
    const expected = Buffer.from(key, "hex");
    if (shown.length !== expected.length || !timingSafeEqual(shown, expected)) {
      throw new TypeError("another key");
    }
    const { address, certificateSha256, tlsExporter } = text;
    const exporter = tlsExporter && decodeBase64Url(tlsExporter, "tls exporter");
    return { address, certificateSha256, tlsExporter: exporter === "" ? undefined : exporter };
  } catch (cause) {
    const message = "expected a worker of this service";
    throw new StileError("SERVICE_PROXY_UNTRUSTED", message, { cause });
  }
}
