/** Bodies through the edge: streamed with back-pressure, capped, and asked for only when they are wanted. */
import { createHash } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { request as httpsRequest } from "node:https";
import { Readable, Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { describe, expect, test } from "vitest";
import { connectTls, readAll, readUntil } from "../support/tls-edge.ts";
import { edgeBefore, edgeBeforeRaw, edgeCertificates, talk } from "../support/tls-edges.ts";
import { waitFor } from "../support/wait-for.ts";

const MIB = 2 ** 20;
const HOST = "Host: a.example\r\n";
const GET = `GET / HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`;

describe("bodies", () => {
  const chunk = Buffer.alloc(64 * 1_024, "s");
  const TOTAL = 64 * MIB;

  test.each([
    ["chunked", {}],
    ["sized", { "content-length": String(TOTAL) }],
  ])("streams 64 MiB (%s) there and back, little of it at a time", async (_name, headers) => {
    const edge = await edgeBefore((request, response) => void request.pipe(response));
    let produced = 0;
    let peak = 0;
    const sent = createHash("sha256");
    const received = createHash("sha256");
    let bytes = 0;
    const { port } = edge;
    const request = httpsRequest({ port, ca: edgeCertificates().ca, method: "POST", headers });
    const answered = new Promise<IncomingMessage>((resolve) => request.once("response", resolve));
    function* source(): Generator<Buffer> {
      for (let i = 0; i < TOTAL / chunk.length; i += 1) {
        produced += chunk.length;
        chunk.writeUInt32BE(i);
        sent.update(chunk);
        yield Buffer.from(chunk);
      }
    }
    const sink = new Writable({
      write: (part: Buffer, _encoding, done) => {
        received.update(part);
        bytes += part.length;
        peak = Math.max(peak, produced - bytes);
        done();
      },
    });
    await Promise.all([
      pipeline(Readable.from(source()), request),
      answered.then((response) => pipeline(response, sink)),
    ]);
    expect(bytes).toBe(TOTAL);
    expect(received.digest("hex")).toBe(sent.digest("hex"));
    // Everything that is on its way anywhere: in the client, the edge, the upstream and the kernel.
    expect(peak / MIB).toBeLessThan(24);
  });

  test("lets a client that does not read hold the upstream back", async () => {
    let written = 0;
    const edge = await edgeBefore((_request, response) => {
      const push = (): void => {
        while (written < TOTAL) {
          written += chunk.length;
          if (!response.write(chunk)) return;
        }
      };
      response.on("drain", push);
      push();
    });
    const socket = await connectTls(edge.port, edgeCertificates().ca);
    socket.write(GET);
    socket.pause();
    let last = -1;
    await waitFor(
      () => {
        const same = written === last;
        last = written;
        expect(same).toBe(true);
      },
      { interval: 150, timeout: 3_000 },
    );
    expect(written).toBeLessThan(TOTAL / 2);
    socket.destroy();
  });

  test("lets an upstream that does not read hold the client back", async () => {
    const edge = await edgeBeforeRaw((socket) => void socket.pause());
    const socket = await connectTls(edge.port, edgeCertificates().ca);
    const before = process.memoryUsage().rss;
    socket.write(`POST / HTTP/1.1\r\n${HOST}Content-Length: ${TOTAL}\r\n\r\n`);
    let last = -1;
    let taken = 0;
    const write = (): void => {
      taken += chunk.length;
      if (taken < TOTAL) socket.write(chunk, write);
    };
    write();
    await waitFor(
      () => {
        const same = taken === last;
        last = taken;
        expect(same).toBe(true);
      },
      { interval: 150, timeout: 3_000 },
    );
    expect(taken).toBeLessThan(TOTAL / 2);
    expect((process.memoryUsage().rss - before) / MIB).toBeLessThan(32);
    socket.destroy();
  });

  test("rejects a body that says it is too large, before anything is sent", async () => {
    let connections = 0;
    const edge = await edgeBeforeRaw(() => (connections += 1), { forwarder: { maxBodyBytes: 10 } });
    const text = `POST / HTTP/1.1\r\n${HOST}Expect: 100-continue\r\nContent-Length: 11\r\n\r\n`;
    expect(await talk(edge, text)).toMatch(/^HTTP\/1.1 413 /);
    expect(edge.codes).toStrictEqual(["TLS_BODY_TOO_LARGE"]);
    expect(connections).toBe(0);
  });

  test("rejects a chunked body that grows too large, and ends it at the upstream", async () => {
    const ends: string[] = [];
    const edge = await edgeBefore(
      (request) => {
        request.once("error", () => ends.push("aborted"));
        request.resume().once("end", () => ends.push("whole"));
      },
      { forwarder: { maxBodyBytes: 10 } },
    );
    const start = `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n`;
    const answer = await talk(edge, `${start}8\r\n12345678\r\n3\r\n123\r\n0\r\n\r\n`);
    expect(answer).toMatch(/^HTTP\/1.1 413 /);
    expect(edge.codes).toStrictEqual(["TLS_BODY_TOO_LARGE"]);
    await waitFor(() => expect(ends).not.toContain("whole"));
  });

  test("writes 100 Continue only when it forwards, and no Expect to the upstream", async () => {
    const edge = await edgeBefore((request, response) => {
      const expectation = String(request.headers.expect);
      request.pipe(response.setHeader("x-expect", expectation));
    });
    const socket = await connectTls(edge.port, edgeCertificates().ca);
    const continued = readUntil(socket, "\r\n\r\n");
    const all = readAll(socket);
    socket.write(
      `POST / HTTP/1.1\r\n${HOST}Connection: close\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n`,
    );
    expect(await continued).toBe("HTTP/1.1 100 Continue\r\n\r\n");
    socket.write("body");
    expect(await all).toMatch(/200 OK\r\nx-expect: undefined\r\n[^]*body/);
  });
});
