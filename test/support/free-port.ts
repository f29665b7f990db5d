/** Ports for servers that are told theirs: processes of others, and those that are started again at the same one. */
import { createServer, type Server } from "node:net";

/** Below the ports that systems give to whoever binds to 0 or connects: one of theirs may be another's by now. */
const [FIRST, END] = [10_000, 32_000];
/** Vitest runs a file in a process of its own; the number of its place is no other's meanwhile. */
const PLACES = 8;
const PER_PLACE = Math.floor((END - FIRST) / PLACES);
const place = Number(process.env["VITEST_POOL_ID"] ?? 0) % PLACES;
/** Where one file ended, servers of its own may not have ended yet. */
const start = (process.pid * 50) % PER_PLACE;
let given = 0;

/** A port at which nothing listens, and that no other test is given. */
export async function freePort(): Promise<number> {
  for (; given < PER_PLACE;) {
    const port = FIRST + place * PER_PLACE + ((start + given) % PER_PLACE);
    given += 1;
    if (await isFree(port)) return port;
  }
  throw new Error("expected a free port");
}

/** At any address: a server on one of them is enough. */
function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server: Server = createServer()
      .once("error", () => resolve(false))
      .listen(port, () => server.close(() => resolve(true)));
  });
}
