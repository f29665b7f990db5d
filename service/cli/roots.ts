/**
 * `stile roots`: the manufacturers' certificates as one reviewed, pinned file. `refresh` collects what vendors
 * publish (folders of PEM or DER, one folder for each manufacturer, as in the unpacked TrustedTpm.cab of
 * Microsoft), says what changed since the last version, and prints the pin for the configuration. It fetches
 * nothing: where the files come from is for the operator to decide, once, and with care.
 */
import { createHash } from "node:crypto";
import {
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";
import {
  type CollectedManufacturer,
  encodeManufacturerBundle,
  type ManufacturerBundle,
  parseManufacturerBundle,
} from "../../attest/index.ts";
import { CliUsageError } from "./usage.ts";
import { type Facts, needed, readBytes, report } from "./verify/report.ts";

const USAGE =
  "roots refresh SOURCE ... --out FILE --version V [--vendor NAME=id:XXXXXXXX ...] | roots show FILE [--json]";
const CERTIFICATE_FILE = /\.(?:pem|crt|cer|der)$/i;
const PEM_BLOCK = /-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----/g;
const MAX_FILES = 10_000;

export function rootsCommand(args: readonly string[]): Promise<number> {
  const { positionals, values } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      out: { type: "string" },
      version: { type: "string" },
      vendor: { type: "string", multiple: true },
      json: { type: "boolean" },
    },
  });
  const [verb, ...sources] = positionals;
  const json = values.json ?? false;
  if (verb === "show") return report(json, () => show(needed(sources[0], USAGE)));
  if (verb !== "refresh" || sources.length === 0) {
    throw new CliUsageError(`expected: stile ${USAGE}`);
  }
  const out = needed(values.out, USAGE);
  const version = needed(values.version, USAGE);
  const vendorIds = vendorsOf(values.vendor ?? []);
  return report(json, () => refresh(sources, out, version, vendorIds));
}

async function refresh(
  sources: readonly string[],
  out: string,
  version: string,
  vendorIds: ReadonlyMap<string, readonly string[]>,
): Promise<Facts> {
  const collected = sources
    .flatMap((source) => manufacturersIn(source))
    .map((row) => ({ ...row, vendorIds: vendorIds.get(row.name) ?? [] }));
  const bundle = await encodeManufacturerBundle(version, collected);
  const before = existsSync(out) ? await readBundle(out) : undefined;
  const after = await parseManufacturerBundle(Buffer.from(bundle.text), {
    version,
    sha256: bundle.sha256,
  });
  const changes = changesBetween(before, after);
  // A reader sees the old file or the new one.
  writeFileSync(`${out}.new`, bundle.text);
  renameSync(`${out}.new`, out);
  const { anchors, intermediates, skipped } = bundle;
  return {
    verdict: "written",
    manufacturerRootsPin: { version, sha256: bundle.sha256 },
    anchors,
    intermediates,
    ...changes,
    skipped,
  };
}

async function show(file: string): Promise<Facts> {
  const bundle = await readBundle(file);
  return {
    verdict: "readable",
    manufacturerRootsPin: { version: bundle.version, sha256: digestOf(readBytes(file)) },
    manufacturers: bundle.manufacturers.map(({ anchors, intermediates, name, vendorIds }) => ({
      name,
      vendorIds,
      anchors: anchors.length,
      intermediates: intermediates.length,
    })),
  };
}

/** Whatever it is: this command is what tells the pin. */
async function readBundle(file: string): Promise<ManufacturerBundle> {
  const bytes = readBytes(file);
  const version = /"version":\s*"([^"]*)"/.exec(Buffer.from(bytes).toString("utf8"))?.[1] ?? "";
  return parseManufacturerBundle(bytes, { version, sha256: digestOf(bytes) });
}

function digestOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function changesBetween(before: ManufacturerBundle | undefined, after: ManufacturerBundle): Facts {
  const names = (bundle: ManufacturerBundle | undefined): Map<string, string> =>
    new Map(
      (bundle?.manufacturers ?? []).flatMap(({ anchors, name }) =>
        anchors.map(({ der }) => [digestOf(der), name]),
      ),
    );
  const [old, now] = [names(before), names(after)];
  const missingIn = (
    other: ReadonlyMap<string, string>,
    of: ReadonlyMap<string, string>,
  ): object[] =>
    [...of]
      .filter(([digest]) => !other.has(digest))
      .map(([digest, manufacturer]) => ({ manufacturer, sha256: digest }));
  return {
    previousVersion: before?.version,
    addedAnchors: missingIn(old, now),
    removedAnchors: missingIn(now, old),
  };
}

/** A folder with folders is one of manufacturers; any other source is one manufacturer by its own name. */
function manufacturersIn(source: string): Omit<CollectedManufacturer, "vendorIds">[] {
  if (!existsSync(source)) throw new CliUsageError(`cannot read ${source}`);
  const folders = statSync(source).isDirectory()
    ? readdirSync(source, { withFileTypes: true }).filter((entry) => entry.isDirectory())
    : [];
  const roots = folders.length === 0 ? [source] : folders.map(({ name }) => join(source, name));
  return roots.map((root) => ({
    name: basename(root),
    certificates: filesIn(root).flatMap((file) => certificatesIn(file)),
  }));
}

function filesIn(root: string): string[] {
  if (!statSync(root).isDirectory()) return [root];
  const files = readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && CERTIFICATE_FILE.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name));
  if (files.length > MAX_FILES) throw new CliUsageError(`${root}: more than ${MAX_FILES} files`);
  return files.toSorted();
}

function certificatesIn(file: string): { file: string; der: Uint8Array }[] {
  const bytes = readFileSync(file);
  const blocks = [...bytes.toString("latin1").matchAll(PEM_BLOCK)];
  const ders = blocks.map(([, body = ""]) => Uint8Array.from(Buffer.from(body, "base64")));
  return (ders.length === 0 ? [Uint8Array.from(bytes)] : ders).map((der) => ({ file, der }));
}

function vendorsOf(words: readonly string[]): ReadonlyMap<string, readonly string[]> {
  const vendors = new Map<string, string[]>();
  for (const word of words) {
    const match = /^(?<name>[^=]+)=(?<id>id:[0-9A-F]{8})$/.exec(word)?.groups;
    if (match?.["name"] === undefined || match["id"] === undefined) {
      throw new CliUsageError("--vendor: expected NAME=id:XXXXXXXX");
    }
    vendors.set(match["name"], [...(vendors.get(match["name"]) ?? []), match["id"]]);
  }
  return vendors;
}
