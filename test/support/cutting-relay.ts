/** A TCP relay on loopback that cuts its connections at random bytes, in order or by a reset, for chaos tests. */
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import type { Random } from "./fuzz.ts";

export interface CuttingRelay {
  readonly port: number;
  /** From now on connections are left alone. */
  readonly calm: () => void;
  readonly close: () => Promise<void>;
}

/** @param meanBytes of both directions together, until a connection is cut; one in four is not */
export async function startCuttingRelay(
  to: number,
  random: Random,
  meanBytes: number,
): Promise<CuttingRelay> {
  const open = new Set<Socket>();
  let isCalm = false;
  const server = createServer({ allowHalfOpen: true }, (near) => {
    const far = connect({ port: to, host: "127.0.0.1", noDelay: true, allowHalfOpen: true });
    let left = isCalm || random(4) === 0 ? Infinity : random(2 * meanBytes);
    let isCut = false;
    const pass = (from: Socket, into: Socket): void => {
      from.on("data", (chunk: Buffer) => {
        // Nor does anything pass behind a gap once it is calm.
        if (isCut) return;
        const part = isCalm ? chunk : chunk.subarray(0, left);
        left -= part.length;
        if (!into.write(part)) from.pause();
        if (part.length === chunk.length) return;
        isCut = true;
        cut(near, far, random);
      });
      into.on("drain", () => from.resume());
      from.once("end", () => into.end());
    };
    for (const socket of [near, far]) {
      open.add(socket.on("error", () => undefined));
      socket.once("close", () => {
        open.delete(socket);
        near.destroy();
        far.destroy();
      });
    }
    pass(near, far);
    pass(far, near);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    calm: () => {
      isCalm = true;
    },
    close: async () => {
      for (const socket of open) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}

/** Both ends or one, with what was written before or without it. */
function cut(near: Socket, far: Socket, random: Random): void {
  const way = random(4);
  if (way === 0) near.resetAndDestroy();
  else if (way === 1) far.resetAndDestroy();
  else if (way === 2) far.end();
  else near.end();
  setTimeout(() => near.destroy(), 20).unref();
}
