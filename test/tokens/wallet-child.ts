/**
 * A process that takes tokens from a wallet until it is killed. It writes the id of each token that it
 * was given, one a line, synchronously: what is on the pipe was handed out.
 * Arguments: the directory, the challenge digest in hexadecimal.
 */
import { writeSync } from "node:fs";
import { openWallet } from "../../tokens/client/index.ts";
import { decodeHex, encodeHex } from "../../wire/index.ts";

const [dir = "", digest = ""] = process.argv.slice(2);
// Small, so that compaction is hit by the kill as well.
const wallet = await openWallet({ dir, clock: () => 0, compactAtBytes: 20_000 });
writeSync(1, "open\n");
for (;;) {
  const token = await wallet.take(decodeHex(digest));
  writeSync(1, `${encodeHex(token.subarray(2, 34))}\n`);
}
