/**
 * Opens a connection to an upstream and hands it over when it is ready: connected, with the PROXY header sent
 * where there is one, and with its TLS verified. Until then nothing of a request was sent.
 */
import { connect, type OnReadOpts, type Socket } from "node:net";
import type { UpstreamAddress } from "./address.ts";
import { upstreamTimeout } from "./failure.ts";
import type { UpstreamTls } from "./tls-client.ts";

export interface DialOptions {
  readonly address: UpstreamAddress;
  /** Where the address is of kind `tls`. */
  readonly tls: UpstreamTls | undefined;
  /** For all of it. */
  readonly timeoutMs: number;
  /** The first bytes, before TLS. */
  readonly header: Uint8Array | undefined;
  /** The two directions end one by one, as a tunnel's do. */
  readonly halfOpen: boolean;
  /** Where reads go instead of 'data' events; not of a connection with TLS. */
  readonly onRead?: OnReadOpts | undefined;
}

/** Called once, at a later time. The socket has no listeners but one for errors, which end it in any case. */
export type Dialled = (error: Error | undefined, socket: Socket | undefined) => void;

/** @returns ends the attempt without a word */
export function dial(options: DialOptions, done: Dialled): () => void {
  const { address, halfOpen: allowHalfOpen, header, timeoutMs, tls } = options;
  const onread = tls === undefined ? options.onRead : undefined;
  const raw = connect({
    ...(address.kind === "unix"
      ? { path: address.path }
      : { host: address.host, port: address.port, noDelay: true }),
    allowHalfOpen,
    ...(onread === undefined ? {} : { onread }),
  });
  let socket = raw;
  const fail = (error: Error): void => settle(error);
  const closed = (): void => settle(new Error("the upstream closed the connection"));
  const timer = setTimeout(() => settle(upstreamTimeout()), timeoutMs);

  function settle(error: Error | undefined): void {
    clearTimeout(timer);
    for (const end of new Set([raw, socket])) end.off("error", fail).off("close", closed);
    socket.on("error", ignore);
    raw.on("error", ignore);
    if (error !== undefined) socket.destroy();
    done(error, error === undefined ? socket : undefined);
  }

  raw.once("error", fail).once("close", closed);
  raw.once("connect", () => {
    if (header !== undefined) raw.write(header);
    if (tls === undefined) {
      settle(undefined);
      return;
    }
    const secure = tls.wrap(raw);
    secure.allowHalfOpen = allowHalfOpen;
    secure.once("error", fail).once("close", closed);
    secure.once("secureConnect", () => settle(undefined));
    socket = secure;
  });
  return () => {
    clearTimeout(timer);
    for (const end of new Set([raw, socket])) {
      end.removeAllListeners().on("error", ignore);
      end.destroy();
    }
  };
}

/** Whoever uses the socket hears of its end by "close". */
function ignore(): void {}
