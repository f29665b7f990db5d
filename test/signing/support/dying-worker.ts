/**
 * The real worker, except that it dies over requests that start with 0x0000fe, and over 0x0000fd unless
 * the file named by STILE_TEST_DIED exists, which it makes first: so it dies over that one once.
 */
import { existsSync, writeFileSync } from "node:fs";
import { parentPort } from "node:worker_threads";
import type { WorkerRequest } from "../../../service/signing/messages.ts";

const mark = process.env["STILE_TEST_DIED"] ?? "";
parentPort?.on("message", (request: WorkerRequest) => {
  if (request.kind !== "work") return;
  for (const job of request.jobs) {
    if (job.op !== "sign") continue;
    const { blindedMessage } = job;
    if (blindedMessage[0] !== 0 || blindedMessage[1] !== 0) continue;
    if (blindedMessage[2] === 0xfe) process.exit(1);
    if (blindedMessage[2] === 0xfd && !existsSync(mark)) {
      writeFileSync(mark, "");
      process.exit(1);
    }
  }
});
await import("../../../service/signing/worker.ts");
