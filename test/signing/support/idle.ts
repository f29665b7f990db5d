/** Signs once and ends without closing the pool: an idle pool must not keep the process alive. */
import { writeSync } from "node:fs";
import { SigningPool } from "../../../service/signing/index.ts";
import { generateBlindRsaKey } from "../../../tokens/node/index.ts";

const { tokenKeyId, privateKey } = await generateBlindRsaKey();
const pool = new SigningPool({ threads: 2 });
pool.addKey(tokenKeyId, privateKey);
const message = new Uint8Array(256).fill(1);
writeSync(1, `${(await pool.blindSign(tokenKeyId, message)).length}`);
