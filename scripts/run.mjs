/**
 * Sets the machine up and runs one of the project's commands: the first code that `npm start` and
 * `npm test` meet. Plain JavaScript for Node 20, because nothing is installed yet when it starts.
 * Idempotent: a step whose result is there already costs a few milliseconds.
 */
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";

const root = join(import.meta.dirname, "..");
/**
 * The release that the lock file brings. With older ones that were tried (24.11, 26.0), floods of HTTP/2 frames go on
 * unseen and requests to upstreams stay under way for ever.
 */
const oldestNode = [26, 12];

/** What the commands need of Debian, and why. */
const debianPackages = {
  libatomic1: "the Node runtime that the lock file brings",
  openssl: "the development certificates and the tests",
  "libtss2-esys-3.0.2-0": "the device side of the attestation",
  "libtss2-mu0": "the device side of the attestation",
  "libtss2-rc0": "the device side of the attestation",
  "libtss2-tctildr0": "the device side of the attestation",
  "libtss2-tcti-swtpm0": "reaching the software TPM",
  "libtss2-tcti-device0": "reaching a hardware TPM",
  swtpm: "the software TPM of the demo and the tests",
};
const testPackages = {
  libsodium23: "token type 0x0005 on native code, as an issuer has it",
  "swtpm-tools": "EK certificates made by another issuer than ours",
  "tpm2-tools": "an independent device",
  curl: "an independent HTTP client",
};

/** Servers that tests start by themselves. Elsewhere those tests are skipped: packages bring services along. */
const ciPackages = {
  postgresql: "the spent store on PostgreSQL",
  "redis-server": "the spent store on Valkey or Redis",
  chromium: "the page, as a browser shows it",
  nginx: "the recipes of deploy/, as all of these",
  haproxy: "its recipe",
  caddy: "its recipe",
  "gnutls-bin": "a TLS client of its own",
  pebble: "an ACME server",
};

/** Each command: the arguments of the Node process that does it. */
const vitest = "node_modules/vitest/vitest.mjs";
const commands = {
  setup: null,
  start: ["service/cli/main.ts", "serve", "--dev"],
  stile: ["service/cli/main.ts"],
  demo: ["service/cli/main.ts", "demo"],
  screenshots: ["scripts/screenshots.ts"],
  testssl: ["scripts/testssl.ts"],
  swtpm: ["swtpm/main.ts"],
  bench: ["bench/main.ts"],
  test: [vitest, "run"],
  "test:unit": [vitest, "run", "test/wire", "test/attest", "test/tokens"],
  "test:nightly": [vitest, "run", "--config", "vitest.nightly.config.ts"],
  check: ["scripts/check.mjs"],
  "coverage:checklist": ["scripts/checklist-coverage.mjs"],
};

class SetupError extends Error {}

function main() {
  const [name = "", ...rest] = process.argv.slice(2);
  const command = commands[name];
  if (command === undefined) {
    throw new SetupError(`unknown command "${name}": expected ${Object.keys(commands).join(", ")}`);
  }
  if (process.env.STILE_SKIP_SETUP !== "1") {
    const isTest = /test|check|setup/.test(name);
    installDebianPackages(isTest ? { ...debianPackages, ...testPackages } : debianPackages);
    if (isTest && process.env.CI === "true") tryInstallServers();
    installNodePackages();
  }
  const node = nodePath();
  if (process.env.STILE_SKIP_SETUP !== "1") buildPage(node);
  if (command === null) return;
  const path = `${join(root, "node_modules", ".bin")}:${process.env.PATH ?? ""}`;
  const env = {
    // Each process would strip and compile hundreds of modules anew: the tests take a fifth less time with it.
    NODE_COMPILE_CACHE: join(root, "node_modules", ".cache", "node-compile"),
    TSS2_LOG: "all+NONE",
    ...process.env,
    PATH: path,
  };
  const child = spawn(node, [...command, ...rest], { stdio: "inherit", cwd: root, env });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
    process.on(signal, () => child.kill(signal));
  }
  child.on("exit", (code, signal) => {
    process.exitCode = code ?? 128 + (constants.signals[signal] ?? 0);
  });
}

function installDebianPackages(packages) {
  if (spawnSync("dpkg-query", ["--version"]).error) {
    console.error(
      "This is not Debian: make sure that tpm2-tss 3.2 or newer and swtpm are installed.",
    );
    return;
  }
  const missing = Object.keys(packages).filter((name) => !isInstalled(name));
  if (missing.length === 0) return;
  console.error("Installing Debian packages:");
  for (const name of missing) console.error(`  ${name.padEnd(24)} for ${packages[name]}`);
  const asRoot = process.getuid?.() === 0 ? [] : ["sudo"];
  if (asRoot.length > 0 && spawnSync("sudo", ["--version"]).error) {
    throw new SetupError(
      `run this as root, as sudo is not here: apt-get install ${missing.join(" ")}`,
    );
  }
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  const apt = (...args) => {
    const [file, ...words] = [...asRoot, "apt-get", "-q", ...args];
    return spawnSync(file, words, { stdio: ["inherit", "ignore", "inherit"], env }).status === 0;
  };
  const install = ["install", "-y", "--no-install-recommends", ...missing];
  if (apt(...install) || (apt("update") && apt(...install))) return;
  throw new SetupError(`apt-get could not install ${missing.join(" ")}; its message is above`);
}

function tryInstallServers() {
  try {
    installDebianPackages(ciPackages);
  } catch (error) {
    console.error(`${error.message}: the tests that need one of them are skipped`);
  }
}

function isInstalled(name) {
  const query = spawnSync("dpkg-query", ["-W", "-f=${db:Status-Status}", name], {
    encoding: "utf8",
  });
  return query.stdout === "installed";
}

function installNodePackages() {
  const lock = createHash("sha256")
    .update(readFileSync(join(root, "package-lock.json")))
    .digest("hex");
  const stamp = join(root, "node_modules", ".stile-lock");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === lock) return;
  console.error("Installing npm packages from the lock file (about half a minute) ...");
  const npm = process.env.npm_execpath;
  const args = ["ci", "--no-audit", "--no-fund", "--loglevel=error"];
  const run =
    npm === undefined
      ? spawnSync("npm", args, { cwd: root, stdio: ["ignore", "ignore", "inherit"] })
      : spawnSync(process.execPath, [npm, ...args], {
          cwd: root,
          stdio: ["ignore", "ignore", "inherit"],
        });
  if (run.status !== 0) {
    throw new SetupError("npm could not install the packages of package-lock.json; see above");
  }
  writeFileSync(stamp, lock);
}

/** The scripts of the page for browsers: a fifth of a second. An image brings them built, without esbuild. */
function buildPage(node) {
  if (!existsSync(join(root, "node_modules", "esbuild"))) return;
  const run = spawnSync(node, ["web/build.mjs"], {
    cwd: root,
    stdio: ["ignore", "ignore", "inherit"],
  });
  if (run.status !== 0) throw new SetupError("the page's scripts could not be built; see above");
}

/** The Node that runs the project: the machine's own where it is new enough, else the locked one. */
function nodePath() {
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major > oldestNode[0] || (major === oldestNode[0] && minor >= oldestNode[1])) {
    return process.execPath;
  }
  const locked = join(root, "node_modules", `node-linux-${process.arch}`, "bin", "node");
  if (!existsSync(locked)) {
    const have = process.versions.node;
    throw new SetupError(
      `Node ${oldestNode.join(".")} or newer is needed, this is ${have}, and no Node is packaged for ${process.platform}-${process.arch}`,
    );
  }
  const probe = spawnSync(locked, ["--version"], { encoding: "utf8" });
  if (probe.status !== 0) throw new SetupError(`the locked Node does not start: ${probe.stderr}`);
  return locked;
}

try {
  main();
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  console.error(`stile: ${error.message}`);
  process.exitCode = 1;
}
