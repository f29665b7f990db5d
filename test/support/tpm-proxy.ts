/**
 * Stands between tpm2-tss and swtpm: a pair of Unix sockets like swtpm's whose commands can be
 * answered, dropped or passed on, to see what a TPM that misbehaves does to us.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** What happens to a TPM command: the bytes of an answer, or one of these. */
export type Verdict = Uint8Array | "pass" | "drop";

export interface TpmProxy {
  readonly tcti: string;
  /** Commands seen so far, by their TPM_CC. */
  readonly commands: number[];
  judge: (commandCode: number) => Verdict;
  /** Ends every connection that is open. */
  dropAll(): void;
  stop(): Promise<void>;
}

/** A response of ten bytes that carries nothing but a response code. */
export function responseOf(code: number): Uint8Array {
  const bytes = Buffer.alloc(10);
  bytes.writeUInt16BE(0x8001, 0);
  bytes.writeUInt32BE(10, 2);
  bytes.writeUInt32BE(code, 6);
  return bytes;
}

/** @param target the TCTI of an swtpm on Unix sockets. */
export async function startTpmProxy(target: string): Promise<TpmProxy> {
  const targetPath = target.replace("swtpm:path=", "");
  const folder = mkdtempSync(join(tmpdir(), "stile-proxy-"));
  const path = join(folder, "tpm");
  const sockets = new Set<Socket>();
  const proxy: TpmProxy = {
    tcti: `swtpm:path=${path}`,
    commands: [],
    judge: () => "pass",
    dropAll: () => {
      for (const socket of sockets) socket.destroy();
    },
    async stop() {
      proxy.dropAll();
      await Promise.all([data, control].map((server) => new Promise((r) => server.close(r))));
      rmSync(folder, { recursive: true, force: true });
    },
  };
  const track = (socket: Socket): Socket => {
    sockets.add(socket);
    return socket.on("error", () => undefined).on("close", () => sockets.delete(socket));
  };
  const control = createServer((client) => {
    const upstream = track(createConnection(`${targetPath}.ctrl`));
    track(client).pipe(upstream).pipe(client);
    client.on("close", () => upstream.destroy());
  });
  const data = createServer((client) => {
    track(client).on("data", (command: Buffer) => {
      const code = command.readUInt32BE(6);
      proxy.commands.push(code);
      const verdict = proxy.judge(code);
      if (verdict === "drop") client.destroy();
      else if (verdict !== "pass") client.write(verdict);
      else {
        const upstream = track(createConnection(targetPath));
        upstream.write(command);
        upstream.pipe(client);
        // swtpm serves one connection at a time.
        client.on("close", () => upstream.destroy());
      }
    });
  });
  await Promise.all([listen(data, path), listen(control, `${path}.ctrl`)]);
  return proxy;
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve) => server.listen(path, resolve));
}
