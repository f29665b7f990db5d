/** Memory that is read into again: no answer may ever show bytes of another, however slowly either is read. */
import { once } from "node:events";
import type { TLSSocket } from "node:tls";
import { setImmediate, setTimeout as sleep } from "node:timers/promises";
import { expect, it } from "vitest";
import { createReadBuffers, ReadPiece } from "../../../tls/splice/read-buffers.ts";
import { connectTls } from "../../support/tls-edge.ts";
import { edgeBefore, edgeCertificates } from "../../support/tls-edges.ts";

const CLIENTS = 24;
const ROUNDS = 4;
const SIZES = [1, 900, 16_384, 70_000, 300_000, 1_500_000];

/** Every eight bytes name the answer and where in it they are. */
function bodyOf(id: number, size: number): Buffer {
  const body = Buffer.alloc(Math.ceil(size / 8) * 8);
  for (let at = 0; at < body.length; at += 8) {
    body.writeUInt32BE(id, at);
    body.writeUInt32BE(at, at + 4);
  }
  return body.subarray(0, size);
}

/** Reads an answer of the size, now and then not at all. */
async function readSlowly(socket: TLSSocket, size: number, seed: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  let headEnd = -1;
  let whole: Buffer = Buffer.alloc(0);
  for (let turn = seed; headEnd < 0 || length < headEnd + 4 + size; turn += 1) {
    const chunk = socket.read() as Buffer | null;
    if (chunk === null) {
      await once(socket, "readable");
      continue;
    }
    chunks.push(chunk);
    length += chunk.length;
    if (headEnd < 0) {
      whole = Buffer.concat(chunks);
      headEnd = whole.indexOf("\r\n\r\n");
    }
    for (let pause = (turn * 7) % 5; pause > 0; pause -= 1) await setImmediate();
  }
  return Buffer.concat(chunks).subarray(headEnd + 4);
}

it("gives each client the bytes of its own answers, with many that read slowly at once", async () => {
  const edge = await edgeBefore((request, response) => {
    const [, id = "", size = ""] = (request.url ?? "").split("/");
    response.setHeader("content-length", size);
    response.end(bodyOf(Number(id), Number(size)));
  });
  await Promise.all(
    Array.from({ length: CLIENTS }, async (_, client) => {
      const socket = await connectTls(edge.port, edgeCertificates().ca);
      for (let round = 0; round < ROUNDS; round += 1) {
        const id = client * 1_000 + round;
        const size = SIZES[(client + round) % SIZES.length] ?? 1;
        socket.write(`GET /${id}/${size} HTTP/1.1\r\nHost: a.example\r\n\r\n`);
        const body = await readSlowly(socket, size, id);
        expect(body.equals(bodyOf(id, size)), `${client}, ${round}`).toBe(true);
      }
      socket.destroy();
    }),
  );
});

it("overwrites nothing that waits for a client which reads only when all else has stopped", async () => {
  const size = 16_000_000;
  const piece = 30_000;
  let sent = 0;
  const edge = await edgeBefore((request, response) => {
    const body = bodyOf(Number((request.url ?? "").slice(1)), size);
    response.setHeader("content-length", size);
    response.flushHeaders();
    // Pieces that are read one by one: two of them do not yet make the edge pause.
    const next = (at: number): void => {
      if (at >= size) {
        response.end();
        return;
      }
      sent += piece;
      const goOn = (): void => void setTimeout(next, 0, at + piece);
      if (response.write(body.subarray(at, at + piece))) goOn();
      else response.once("drain", goOn);
    };
    next(0);
  });
  const sockets = await Promise.all(
    [1, 2, 3].map(() => connectTls(edge.port, edgeCertificates().ca)),
  );
  for (const [id, socket] of sockets.entries()) {
    socket.write(`GET /${id} HTTP/1.1\r\nHost: a.example\r\n\r\n`);
  }
  for (let before = -1; before !== sent;) {
    before = sent;
    await sleep(150);
  }
  expect(sent).toBeLessThan(3 * size);
  for (const [id, socket] of sockets.entries()) {
    const body = await readSlowly(socket, size, id);
    expect(body.equals(bodyOf(id, size)), String(id)).toBe(true);
    socket.destroy();
  }
});

it("lends a buffer again once it was given back, and no piece gives it back twice", () => {
  const buffers = createReadBuffers();
  const [first, second] = [buffers.take(), buffers.take()];
  expect(first).not.toBe(second);
  const piece = new ReadPiece(first, () => buffers.giveBack(first));
  piece.done();
  piece.done();
  expect(buffers.take()).toBe(first);
  expect(buffers.take()).not.toBe(first);
});

it("keeps a bounded number for later", () => {
  const buffers = createReadBuffers();
  const taken = Array.from({ length: 100 }, () => buffers.take());
  for (const buffer of taken) buffers.giveBack(buffer);
  const again = Array.from({ length: 100 }, () => buffers.take());
  expect(again.filter((buffer) => taken.includes(buffer)).length).toBe(64);
});
