/**
 * Builds the page's scripts into web/dist: names that carry a digest of their content, and a list of them.
 * Run by the set-up and by the image's build; quick, and idempotent.
 */
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";

const root = import.meta.dirname;
const dist = join(root, "dist");
const digestOf = (bytes) =>
  createHash("sha256").update(bytes).digest("hex").slice(0, 12).toUpperCase();

/** What the libraries bring for token types that the page does not speak may be left out. */
const onlyWhatIsUsed = {
  name: "only-what-is-used",
  setup({ onResolve, resolve }) {
    onResolve({ filter: /^(@cloudflare\/|\.)/ }, async ({ path, pluginData, ...args }) => {
      if (pluginData === "resolved") return undefined;
      const { errors, path: file } = await resolve(path, { ...args, pluginData: "resolved" });
      return { errors, path: file, sideEffects: !file.includes("@cloudflare") };
    });
  },
};

const common = {
  bundle: true,
  plugins: [onlyWhatIsUsed],
  minify: true,
  format: "esm",
  target: "es2022",
  platform: "browser",
  legalComments: "none",
  write: false,
  outdir: dist,
};

/** @returns the script under a name with its digest */
async function script(name, define = {}) {
  const entryPoints = { [name]: join(root, "src", `${name}.ts`) };
  const { outputFiles } = await build({ ...common, entryPoints, define });
  const [{ contents }] = outputFiles;
  return { name, file: `${name}-${digestOf(contents)}.js`, contents };
}

const worker = await script("worker");
const define = { STILE_WORKER_URL: JSON.stringify(`/.stile/web/${worker.file}`) };
const files = [
  await script("main"),
  worker,
  await script("client", define),
  await script("operator"),
];
mkdirSync(dist, { recursive: true });
for (const { contents, file } of files) writeFileSync(join(dist, file), contents);
const list = Object.fromEntries(files.map(({ file, name }) => [name, file]));
writeFileSync(join(dist, "list.json"), `${JSON.stringify(list)}\n`);
const kept = new Set([...Object.values(list), "list.json"]);
for (const file of readdirSync(dist)) if (!kept.has(file)) rmSync(join(dist, file));
