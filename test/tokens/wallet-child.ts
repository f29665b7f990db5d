/**
 * A process that takes tokens from a wallet. It writes the id of each token that it was given, one a line,
 * synchronously: what is on the pipe was handed out.
 * Arguments: the directory; the challenge digest in hexadecimal; how many tokens it takes. Then it holds the wallet
 * open until its input ends, or, where a number follows, takes on and kills itself after so many turns of the event
 * loop: killed from outside, it could have taken all there are before a busy machine came to it.
 */
import { writeSync } from "node:fs";
import { openWallet } from "../../tokens/client/index.ts";
import { decodeHex, encodeHex } from "../../wire/index.ts";

const [dir = "", hex = "", takes = "0", turns] = process.argv.slice(2);
const digest = decodeHex(hex);
// Small, so that compaction is hit by the kill as well.
const wallet = await openWallet({ dir, clock: () => 0, compactAtBytes: 10_000 });
writeSync(1, "open\n");
await take(Number(takes));
if (turns === undefined) {
  process.stdin.resume();
} else {
  killAfter(Number(turns));
  await take(Infinity);
  // The last kill is not to come once there was nothing left to take.
  process.exit(0);
}

/** As many as there are, where there are fewer. */
async function take(count: number): Promise<void> {
  for (let taken = 0; taken < count && wallet.count(digest) > 0; taken += 1) {
    const { token } = await wallet.take(digest);
    writeSync(1, `${encodeHex(token.subarray(2, 34))}\n`);
  }
}

function killAfter(left: number): void {
  setImmediate(() => (left > 0 ? killAfter(left - 1) : process.kill(process.pid, "SIGKILL")));
}
