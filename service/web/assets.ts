/** The page's scripts as they were built (`web/dist`), in memory, compressed once. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, gzipSync } from "node:zlib";
import type { FastifyInstance } from "fastify";
import { StileError } from "../../wire/index.ts";

const ASSET_PREFIX = "/.stile/web/";
const CLIENT_PATH = "/.stile/client.js";

export interface PageAssets {
  /** Path of the page's script. */
  readonly mainUrl: string;
  readonly workerUrl: string;
  /** What `/.stile/client.js` leads to. */
  readonly clientUrl: string;
  readonly files: readonly PageAsset[];
}

export interface PageAsset {
  readonly name: string;
  readonly identity: Buffer;
  readonly br: Buffer;
  readonly gzip: Buffer;
}

const DIST = join(import.meta.dirname, "..", "..", "web", "dist");

/** @throws `SERVICE_CONFIG_INVALID` where they have not been built */
export function loadPageAssets(folder: string = DIST): PageAssets {
  return built(() => {
    const list = listIn(folder);
    const files = [list.main, list.worker, list.client].map((name) => {
      const identity = readFileSync(join(folder, name));
      return { name, identity, br: brotliCompressSync(identity), gzip: gzipSync(identity) };
    });
    return {
      mainUrl: ASSET_PREFIX + list.main,
      workerUrl: ASSET_PREFIX + list.worker,
      clientUrl: ASSET_PREFIX + list.client,
      files,
    };
  });
}

/** Of the operator's view. @throws `SERVICE_CONFIG_INVALID` where it has not been built */
export function loadOperatorScript(): Buffer {
  return built(() => readFileSync(join(DIST, listIn(DIST).operator)));
}

function listIn(
  folder: string,
): Readonly<Record<"main" | "worker" | "client" | "operator", string>> {
  return JSON.parse(readFileSync(join(folder, "list.json"), "utf8")) as ReturnType<typeof listIn>;
}

function built<T>(load: () => T): T {
  try {
    return load();
  } catch (cause) {
    const message = "the scripts of web/ are not built: run npm run setup";
    throw new StileError("SERVICE_CONFIG_INVALID", message, { cause });
  }
}

/** Their names carry their content's digest: they never change, and may be kept for ever. */
export function registerPageAssets(app: FastifyInstance, assets: PageAssets): void {
  const { clientUrl, files } = assets;
  app.get(
    CLIENT_PATH,
    { schema: { summary: "The client for single-page applications" } },
    (_request, reply) =>
      // A module that is redirected keeps its identity, and the name behind may be kept for ever.
      reply.header("cache-control", "public, max-age=300").redirect(clientUrl, 302),
  );
  for (const file of files) {
    app.get(`${ASSET_PREFIX}${file.name}`, { schema: { hide: true } }, (request, reply) => {
      const encoding = encodingFor(request.headers["accept-encoding"]);
      if (encoding !== "identity") void reply.header("content-encoding", encoding);
      return (
        reply
          .header("cache-control", "public, max-age=31536000, immutable")
          .header("vary", "accept-encoding")
          // Public, the same for everyone: pages of other origins may run them.
          .header("access-control-allow-origin", "*")
          .header("cross-origin-resource-policy", "cross-origin")
          .header("content-security-policy", "default-src 'none'; connect-src 'self'")
          .type("text/javascript; charset=utf-8")
          .send(file[encoding])
      );
    });
  }
}

function encodingFor(header: string | undefined): "br" | "gzip" | "identity" {
  const offered = (header ?? "").split(",").map((part) => part.trim().split(";")[0]);
  if (offered.includes("br")) return "br";
  return offered.includes("gzip") ? "gzip" : "identity";
}
