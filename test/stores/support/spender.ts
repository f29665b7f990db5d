/**
 * A process that spends nonces `first`, `first + 1`, … without end, 256 in flight, and prints the
 * number of each that was answered "fresh" and "-" and the number where the store was unavailable.
 * Arguments: folder, first. It is killed, or its file size limit makes its writes fail.
 */
import { writeSync } from "node:fs";
// Not by the index: clients of other databases make standard output a stream that may answer EAGAIN.
import { openSpentLevelStore } from "../../../service/stores/spent-level.ts";
import { isStileError } from "../../../wire/index.ts";
import { identifier } from "./nonces.ts";

const [folder = "", first = "0"] = process.argv.slice(2);
const tokenKeyId = identifier("epoch");
let next = Number(first);

async function spendOn(store: Awaited<ReturnType<typeof openSpentLevelStore>>): Promise<never> {
  for (;;) {
    const index = next;
    next += 1;
    try {
      const nonce = identifier("nonce", index);
      const { outcome } = await store.spend({ tokenKeyId, nonce, atMs: index });
      if (outcome === "fresh") writeSync(1, `${index}\n`);
    } catch (error) {
      if (!isStileError(error, "TOKEN_STORE_UNAVAILABLE")) throw error;
      writeSync(1, `-${index}\n`);
      await new Promise((resolve) => {
        setTimeout(resolve, 20);
      });
    }
  }
}

try {
  const store = await openSpentLevelStore({ folder });
  await Promise.all(Array.from({ length: 256 }, () => spendOn(store)));
} catch (error) {
  writeSync(1, isStileError(error) ? `${error.code}: ${error.message}\n` : `${String(error)}\n`);
  process.exitCode = 3;
}
