/** The floors of `openssl speed`, on all cores. */
import { spawnSync } from "node:child_process";
import { availableParallelism } from "node:os";

const SECONDS = "1";

/** RSA-2048 signatures (with CRT and blinding, as an issuer must). */
export function opensslRsaSigns(): number {
  return speed("rsa2048", /^rsa +2048 bits +[\d.]+s +[\d.]+s +(?<rate>[\d.]+)/m);
}

/** Multiplications of a point of P-384 by a secret scalar. */
export function opensslP384(): number {
  return speed("ecdhp384", /^ *384 bits ecdh \(nistp384\) +[\d.]+s +(?<rate>[\d.]+)/m);
}

function speed(algorithm: string, figure: RegExp): number {
  const args = ["speed", "-seconds", SECONDS, "-multi", String(availableParallelism()), algorithm];
  const run = spawnSync("openssl", args, { encoding: "utf8" });
  const rate = figure.exec(run.stdout)?.groups?.["rate"];
  if (rate === undefined) throw new Error(`openssl speed gave no figure for ${algorithm}`);
  return Number(rate);
}
