/**
 * What Node has no interface for, from the C library of this process: datagrams to a Unix socket, and a second
 * descriptor for a socket that is open. Linux, little-endian or not: `sa_family_t` is written as the host has it.
 */
import { endianness } from "node:os";
import koffi from "koffi";

export interface Libc {
  /** One datagram, without waiting. @returns false where it could not be sent */
  readonly sendDatagram: (address: string, content: Uint8Array) => boolean;
  /** A descriptor of the same open socket, closed at exec. @returns undefined where there is none to have */
  readonly duplicate: (fd: number) => number | undefined;
}

const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC = 0o2000002;
const MSG_DONTWAIT_NOSIGNAL = 0x4040;
const F_DUPFD_CLOEXEC = 1030;
/** sizeof sun_path, unix(7). */
const MAX_PATH_BYTES = 108;
/** Below it are the standard streams. */
const FIRST_FD = 3;

export function openLibc(): Libc {
  const process = koffi.load(null);
  const socket = process.func("int socket(int, int, int)");
  const sendto = process.func(
    "int64_t sendto(int, const void *, size_t, int, const void *, uint32_t)",
  );
  const close = process.func("int close(int)");
  const fcntl = process.func("int fcntl(int, int, ...)");
  return {
    sendDatagram: (address, content) => {
      const to = unixAddress(address);
      if (to === undefined) return false;
      const fd = socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0) as number;
      if (fd < 0) return false;
      const size = content.length;
      const sent = sendto(fd, content, size, MSG_DONTWAIT_NOSIGNAL, to, to.length) as number;
      close(fd);
      return sent === size;
    },
    duplicate: (fd) => {
      const other = fcntl(fd, F_DUPFD_CLOEXEC, "int", FIRST_FD) as number;
      return other < 0 ? undefined : other;
    },
  };
}

/** sockaddr_un; `@` at the beginning names the abstract namespace, as systemd writes it. */
function unixAddress(address: string): Uint8Array | undefined {
  const isAbstract = address.startsWith("@");
  if (!isAbstract && !address.startsWith("/")) return undefined;
  const path = Buffer.from(isAbstract ? `\0${address.slice(1)}` : `${address}\0`);
  if (path.length > MAX_PATH_BYTES) return undefined;
  const family = Buffer.alloc(2);
  if (endianness() === "LE") family.writeUInt16LE(AF_UNIX);
  else family.writeUInt16BE(AF_UNIX);
  return Buffer.concat([family, path]);
}
