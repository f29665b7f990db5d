/** When an upstream connection may be used again. */
import { Duplex } from "node:stream";
import type { Socket } from "node:net";
import { expect, test } from "vitest";
import { createReadBuffers } from "../../../tls/splice/read-buffers.ts";
import { UpstreamLink } from "../../../tls/splice/upstream-link.ts";
import type { Upstream } from "../../../tls/upstreams/upstream.ts";

const ANSWER = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const nothing = (): void => undefined;

test("not while bytes of the last request wait in it: its upstream has answered without them", () => {
  const waiting: (() => void)[] = [];
  const socket = Object.assign(
    new Duplex({
      read: nothing,
      write: (_chunk: Buffer, _encoding, done) => void waiting.push(done),
    }),
    { setTimeout: nothing },
  );
  const upstream = {
    tlsVersion: 0,
    dial: (
      _client: undefined,
      _halfOpen: boolean,
      done: (error: undefined, to: Socket) => void,
    ) => {
      process.nextTick(() => done(undefined, socket as unknown as Socket));
      return nothing;
    },
  };
  const times = { firstByteTimeoutMs: 1_000, idleTimeoutMs: 1_000, keepMs: 1_000 };
  const ends: boolean[] = [];
  return new Promise<void>((resolve) => {
    const link = new UpstreamLink(
      upstream as unknown as Upstream,
      undefined,
      { ...times, readBuffers: createReadBuffers() },
      {
        onPart: (_head, _content, isEnd) => ends.push(isEnd),
        onFailure: nothing,
        onGone: nothing,
        onDrain: nothing,
        onSilence: nothing,
        onConnect: () => {
          socket.emit("data", Buffer.from(ANSWER));
          expect(ends).toStrictEqual([true]);
          expect(link.isFree).toBe(false);
          for (const done of waiting.splice(0)) done();
          expect(link.isFree).toBe(true);
          resolve();
        },
      },
    );
    link.begin("POST", Buffer.from("POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx"));
  });
});
