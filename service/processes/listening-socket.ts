/**
 * The public socket, bound once and held by the supervisor as a bare descriptor: it accepts nothing itself, and
 * workers that come and go take connections from the same queue, so that none is lost with a worker that leaves.
 * (With a socket of its own for each, SO_REUSEPORT, the kernel resets what waits in the queue of one that closes.)
 */
import { createServer, type Server } from "node:net";
import { StileError } from "../../wire/index.ts";
import { openLibc } from "./libc.ts";

const BACKLOG = 511;

/** @throws `SERVICE_CONFIG_INVALID` where the address cannot be had */
export async function bindPublicSocket(at: {
  readonly host: string;
  readonly port: number;
}): Promise<number> {
  const server = createServer();
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen({ ...at, backlog: BACKLOG }, () => resolve());
    });
    // In the same turn of the event loop: nothing has been accepted yet.
    const fd = openLibc().duplicate(descriptorOf(server));
    if (fd === undefined) throw new TypeError("no second descriptor of the socket");
    return fd;
  } catch (cause) {
    const message = `listen: cannot listen on ${at.host} port ${at.port}`;
    throw new StileError("SERVICE_CONFIG_INVALID", message, { cause });
  } finally {
    server.close();
  }
}

/** Node does not tell it; a test holds that it is still where it was. */
function descriptorOf(server: Server): number {
  const { _handle: handle } = server as unknown as { _handle?: { fd?: unknown } };
  if (typeof handle?.fd !== "number" || handle.fd < 0) {
    throw new TypeError("a listening socket has no descriptor");
  }
  return handle.fd;
}
