/** A socket in a folder that is ours: what an earlier process has left of it is in the way. */
import { chmodSync, rmSync } from "node:fs";
import type { Server } from "node:net";

export async function listenOnUnix(server: Server, path: string): Promise<void> {
  rmSync(path, { force: true });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(path, () => {
      server.off("error", reject);
      resolve();
    });
  });
  chmodSync(path, 0o600);
}
