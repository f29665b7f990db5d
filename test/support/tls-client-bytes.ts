/**
 * Bytes that no client of the machine sends by itself: a ClientHello changed on its way, and a handshake message
 * under the keys of a connection that stands (RFC 8446 §5.2, §7.3).
 */
import { createCipheriv, createHmac } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, connect as connectTcp, createServer } from "node:net";
import { connect, type TLSSocket } from "node:tls";
import { readAll } from "./tls-edge.ts";

const HANDSHAKE = 22;
const APPLICATION_DATA = 23;

/** The whole first record of Node's client. */
export async function recordedClientHello(): Promise<Buffer> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const client = connect({
    port,
    host: "127.0.0.1",
    servername: "localhost",
    minVersion: "TLSv1.3",
  });
  client.on("error", () => undefined);
  const [socket] = await once(server, "connection");
  const [bytes] = await once(socket, "data");
  client.destroy();
  socket.destroy();
  server.close();
  return bytes;
}

/** Offers DEFLATE (RFC 3749) before the null method, with all lengths right. */
export function withCompression(record: Buffer): Buffer {
  // record header 5, handshake header 4, version 2, random 32, then the session id behind its length.
  const suitesAt = 44 + record.readUInt8(43);
  const methodsAt = suitesAt + 2 + record.readUInt16BE(suitesAt);
  const changed = Buffer.concat([
    record.subarray(0, methodsAt),
    Buffer.from([2, 1, 0]),
    record.subarray(methodsAt + 2),
  ]);
  changed.writeUInt16BE(changed.length - 5, 3);
  changed.writeUIntBE(changed.length - 9, 6, 3);
  return changed;
}

/** What a server answers to bytes on a TCP connection of their own, until it closes. */
export async function answerToBytes(port: number, bytes: Buffer): Promise<Buffer> {
  const socket = connectTcp(port, "127.0.0.1");
  socket.on("error", () => undefined);
  const answer = readAll(socket);
  socket.write(bytes);
  return Buffer.from(await answer, "latin1");
}

/** A TLS 1.3 connection that can send handshake messages of its own under its application traffic keys. */
export interface RawHandshaker {
  readonly tls: TLSSocket;
  /** Only before `tls` has written anything. */
  readonly sendHandshake: (message: Buffer) => void;
}

export async function openHandshaker(port: number, ca: string): Promise<RawHandshaker> {
  const tcp = connectTcp(port, "127.0.0.1");
  const tls = connect({
    socket: tcp,
    ca,
    servername: "localhost",
    ciphers: "TLS_AES_128_GCM_SHA256",
    minVersion: "TLSv1.3",
  });
  let secret = Buffer.alloc(0);
  tls.on("keylog", (line: Buffer) => {
    const [label, , value = ""] = line.toString().trim().split(" ");
    if (label === "CLIENT_TRAFFIC_SECRET_0") secret = Buffer.from(value, "hex");
  });
  // The server's first ticket: it has the client's Finished, behind which the next record belongs.
  await once(tls, "session");
  let sequence = 0;
  return {
    tls,
    sendHandshake: (message) => {
      tcp.write(sealed(secret, sequence, Buffer.concat([message, Buffer.from([HANDSHAKE])])));
      sequence += 1;
    },
  };
}

/** TLSCiphertext of RFC 8446 §5.2. @param inner with its content type behind it */
function sealed(secret: Buffer, sequence: number, inner: Buffer): Buffer {
  const header = Buffer.from([APPLICATION_DATA, 3, 3, 0, 0]);
  header.writeUInt16BE(inner.length + 16, 3);
  const nonce = expandLabel(secret, "iv", 12);
  nonce.writeUInt32BE((nonce.readUInt32BE(8) ^ sequence) >>> 0, 8);
  const cipher = createCipheriv("aes-128-gcm", expandLabel(secret, "key", 16), nonce);
  cipher.setAAD(header);
  return Buffer.concat([header, cipher.update(inner), cipher.final(), cipher.getAuthTag()]);
}

/** HKDF-Expand-Label of RFC 8446 §7.1 with an empty context, for up to 32 bytes. */
function expandLabel(secret: Buffer, label: string, length: number): Buffer {
  const name = Buffer.from(`tls13 ${label}`);
  const info = [Buffer.from([0, length, name.length]), name, Buffer.from([0, 1])];
  return createHmac("sha256", secret).update(Buffer.concat(info)).digest().subarray(0, length);
}
