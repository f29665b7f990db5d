/**
 * HAProxy that verifies clearances by itself, with the recipe of deploy/, against the same HAProxy without that:
 * in turns, by wrk, over TLS 1.3 to a small upstream. Every request is by a client with a clearance.
 */
import { spawnSync } from "node:child_process";
import { createPublicKey } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { JWK } from "jose";
import { exchange } from "../service/agent/exchange.ts";
import { freePort } from "../test/support/free-port.ts";
import { hasProxy, type RecipeProxy, startRecipe } from "../test/support/recipe-proxy.ts";
import { line, ratio } from "./format.ts";
import { clearanceHeader } from "./requests.ts";
import { type BenchServer, cpuSecondsOf } from "./servers.ts";

const TURNS = 4;
const SECONDS = 3;
/** Lines of the recipe that have to do with the clearance. */
const CLEARANCE =
  /^ *(?:acl clearance_|use_backend app|http-request (?:set-var|allow|track-sc0|sc-set-gpt0)).*\n/gm;

interface Measured {
  readonly perSecond: number;
  readonly cpuMicros: number;
}

export async function benchHaproxy(sidecar: BenchServer, upstream: BenchServer): Promise<void> {
  if (!hasProxy("haproxy") || spawnSync("wrk", ["-v"]).error !== undefined) {
    console.log(
      "HAProxy                                   skipped: haproxy or wrk is not installed",
    );
    return;
  }
  const dir = mkdtempSync(join(tmpdir(), "stile-bench-haproxy-"));
  const running: RecipeProxy[] = [];
  try {
    await writeFiles(dir, sidecar);
    const start = async (edit?: (recipe: string) => string): Promise<Target> => {
      const port = await freePort();
      const ports = { port, sidecarPort: sidecar.port, upstreamPort: upstream.port };
      const issuer = `https://${sidecar.host}`;
      const own = mkdtempSync(join(dir, "proxy-"));
      const options = { dir, folder: own, issuer, ...ports, ...(edit && { edit }) };
      const proxy = await startRecipe("haproxy", options);
      running.push(proxy);
      return { proxy, port };
    };
    const verifying = await start();
    const plain = await start((recipe) =>
      recipe.replaceAll(CLEARANCE, "").replace("default_backend stile", "default_backend app"),
    );
    const headers = ["-H", `Host: ${sidecar.host}`, "-H", await clearanceHeader(sidecar)];
    compare(verifying, plain, headers);
  } finally {
    for (const proxy of running) await proxy.stop();
    rmSync(dir, { recursive: true, force: true });
  }
}

interface Target {
  readonly proxy: RecipeProxy;
  readonly port: number;
}

function compare(verifying: Target, plain: Target, headers: readonly string[]): void {
  const figures: Record<"verifying" | "plain", Measured[]> = { verifying: [], plain: [] };
  measure(verifying, headers);
  measure(plain, headers);
  for (let turn = 0; turn < TURNS; turn += 1) {
    figures.plain.push(measure(plain, headers));
    figures.verifying.push(measure(verifying, headers));
  }
  const [without, with_] = [mean(figures.plain), mean(figures.verifying)];
  line("HAProxy, forwarding", without.perSecond, `${without.cpuMicros.toFixed(1)} us CPU`);
  line(
    "HAProxy, forwarding by clearance",
    with_.perSecond,
    `${with_.cpuMicros.toFixed(1)} us CPU`,
    `ratio ${ratio(with_.perSecond, without.perSecond)} of the rate, ` +
      `${ratio(with_.cpuMicros, without.cpuMicros)} times the CPU`,
  );
}

/** @throws Error where an answer was not the application's */
function measure({ port, proxy }: Target, headers: readonly string[]): Measured {
  const before = cpuSecondsOf(proxy.pid);
  const words = ["-t1", "-c32", `-d${SECONDS}s`, ...headers, `https://127.0.0.1:${port}/`];
  const { stdout } = spawnSync("wrk", words, { encoding: "utf8" });
  const cpuSeconds = cpuSecondsOf(proxy.pid) - before;
  const requests = Number(/^ *(\d+) requests in/m.exec(stdout)?.[1] ?? "0");
  const perSecond = Number(/^Requests\/sec: +([\d.]+)/m.exec(stdout)?.[1] ?? "0");
  if (requests === 0 || /Non-2xx|Socket errors/.test(stdout)) throw new Error(`wrk: ${stdout}`);
  return { perSecond, cpuMicros: (cpuSeconds * 1e6) / requests };
}

function mean(figures: readonly Measured[]): Measured {
  const of = (name: keyof Measured): number =>
    figures.reduce((sum, figure) => sum + figure[name], 0) / figures.length;
  return { perSecond: of("perSecond"), cpuMicros: of("cpuMicros") };
}

/** What the recipe looks for under /etc/stile. */
async function writeFiles(dir: string, { ca, dir: state, host }: BenchServer): Promise<void> {
  const pem = ["server.pem", "server.key"].map((name) =>
    readFileSync(join(state, "tls", name), "utf8"),
  );
  writeFileSync(join(dir, "haproxy.pem"), pem.join("\n"));
  writeFileSync(join(dir, "ca.pem"), ca);
  const url = `https://${host}/.well-known/jwks.json`;
  const { body } = await exchange({ url, method: "GET", headers: {}, ca });
  const { keys } = JSON.parse(Buffer.from(body).toString()) as { keys: readonly JWK[] };
  // The attester's comes first, then the edge's, which has but one yet.
  const key = createPublicKey({ key: { ...keys[1] }, format: "jwk" });
  for (const name of ["clearance.pem", "clearance-other.pem"]) {
    writeFileSync(join(dir, name), key.export({ format: "pem", type: "spki" }));
  }
}
