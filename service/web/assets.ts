/** The page's scripts as they were built (`web/dist`), in memory, compressed once. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, gzipSync } from "node:zlib";
import type { FastifyInstance } from "fastify";
import { StileError } from "../../wire/index.ts";

export const ASSET_PREFIX = "/.stile/web/";

export interface PageAssets {
  /** Path of the page's script. */
  readonly mainUrl: string;
  readonly workerUrl: string;
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
  try {
    const list = JSON.parse(readFileSync(join(folder, "list.json"), "utf8")) as {
      main: string;
      worker: string;
    };
    const files = [list.main, list.worker].map((name) => {
      const identity = readFileSync(join(folder, name));
      return { name, identity, br: brotliCompressSync(identity), gzip: gzipSync(identity) };
    });
    return {
      mainUrl: ASSET_PREFIX + list.main,
      workerUrl: ASSET_PREFIX + list.worker,
      files,
    };
  } catch (cause) {
    const message = "the page's scripts are not built: run npm run setup";
    throw new StileError("SERVICE_CONFIG_INVALID", message, { cause });
  }
}

/** Their names carry their content's digest: they never change, and may be kept for ever. */
export function registerPageAssets(app: FastifyInstance, { files }: PageAssets): void {
  for (const file of files) {
    app.get(`${ASSET_PREFIX}${file.name}`, { schema: { hide: true } }, (request, reply) => {
      const encoding = encodingFor(request.headers["accept-encoding"]);
      if (encoding !== "identity") void reply.header("content-encoding", encoding);
      return reply
        .header("cache-control", "public, max-age=31536000, immutable")
        .header("vary", "accept-encoding")
        .header("content-security-policy", "default-src 'none'; connect-src 'self'")
        .type("text/javascript; charset=utf-8")
        .send(file[encoding]);
    });
  }
}

function encodingFor(header: string | undefined): "br" | "gzip" | "identity" {
  const offered = (header ?? "").split(",").map((part) => part.trim().split(";")[0]);
  if (offered.includes("br")) return "br";
  return offered.includes("gzip") ? "gzip" : "identity";
}
