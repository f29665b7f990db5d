/**
 * Looks at what a connection sends first, before anybody else reads it, and puts back what is not taken. In
 * bounded time; how many bytes it holds is bounded by `look`, which refuses rather than ask for ever more.
 */
import type { Socket } from "node:net";

export type Looked<T> =
  | {
      readonly kind: "found";
      readonly value: T;
      /** Bytes that nobody is to see again. */ readonly taken: number;
    }
  /** Not to be asked again before there are so many bytes. */
  | { readonly kind: "more"; readonly atLeast: number };

export type FirstBytes<T> =
  | { readonly kind: "found"; readonly value: T }
  /** By `look`, or because the bytes did not come in time. */
  | { readonly kind: "refused"; readonly error?: unknown }
  /** The other end has closed or cut the connection. */
  | { readonly kind: "gone" };

/**
 * By 'readable' alone: a socket that was once flowing loses bytes to whoever reads next.
 * @param look gets all bytes so far, hostile; what it throws refuses the connection
 */
export function readFirstBytes<T>(
  socket: Socket,
  look: (bytes: Uint8Array) => Looked<T>,
  timeoutMs: number,
): Promise<FirstBytes<T>> {
  return new Promise((resolve) => {
    const pieces: Buffer[] = [];
    let length = 0;
    let atLeast = 1;
    const timer = setTimeout(() => settle({ kind: "refused" }), timeoutMs);

    function settle(result: FirstBytes<T>): void {
      clearTimeout(timer);
      socket.off("readable", onReadable).off("end", onGone).off("close", onGone);
      resolve(result);
    }
    const onGone = (): void => settle({ kind: "gone" });
    function onReadable(): void {
      for (let piece = read(socket); piece !== null; piece = read(socket)) {
        pieces.push(piece);
        length += piece.length;
      }
      if (length < atLeast) return;
      const bytes = Buffer.concat(pieces);
      try {
        const looked = look(bytes);
        if (looked.kind === "more") {
          ({ atLeast } = looked);
          return;
        }
        const rest = bytes.subarray(looked.taken);
        if (rest.length > 0) socket.unshift(rest);
        settle({ kind: "found", value: looked.value });
      } catch (error) {
        settle({ kind: "refused", error });
      }
    }
    socket.on("readable", onReadable).once("end", onGone).once("close", onGone);
  });
}

const read = (socket: Socket): Buffer | null => socket.read() as Buffer | null;
