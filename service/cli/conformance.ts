/**
 * `stile conformance`: puts the requirements of RFC 9577 and RFC 9578 to a running issuer, origin or both,
 * whoever made them. Exit code 0: no MUST failed; 1: one did; 2: a wrong use, or nothing could be reached.
 */
import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import {
  type Check,
  CONFORMANCE_CHECKS,
  createConformanceHttp,
  jsonReport,
  junitReport,
  runConformance,
  summaryOf,
  textReport,
} from "../conformance/index.ts";
import { CliUsageError } from "./usage.ts";
import { readBytes } from "./verify/report.ts";

const USAGE =
  "conformance [--issuer URL] [--origin URL] [--ca FILE] [--issuance-header 'Name: value' ...] " +
  "[--cert FILE --key FILE] [--only ID,...] [--json] [--junit FILE]";
const HEADER = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e]+)$/;
const TIMEOUT_MS = 15_000;

export async function conformanceCommand(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      issuer: { type: "string" },
      origin: { type: "string" },
      ca: { type: "string" },
      "issuance-header": { type: "string", multiple: true },
      cert: { type: "string" },
      key: { type: "string" },
      only: { type: "string", multiple: true },
      json: { type: "boolean" },
      junit: { type: "string" },
    },
  });
  const issuer = urlOf("--issuer", values.issuer);
  const origin = urlOf("--origin", values.origin);
  if (issuer === undefined && origin === undefined) {
    throw new CliUsageError(`expected: stile ${USAGE}`);
  }
  const results = await runConformance({
    issuer,
    origin,
    http: createConformanceHttp({
      ca: values.ca === undefined ? undefined : pemOf(values.ca),
      issuanceHeaders: headersOf(values["issuance-header"] ?? []),
      certificate: certificateOf(values.cert, values.key),
      timeoutMs: TIMEOUT_MS,
    }),
    clock: Date.now,
    random: (length) => Uint8Array.from(randomBytes(length)),
    checks: checksOf(values.only),
  });
  if (results === undefined) {
    process.stderr.write("stile: neither the issuer nor the origin can be reached\n");
    return 2;
  }
  process.stdout.write(values.json === true ? jsonReport(results) : textReport(results));
  if (values.junit !== undefined) writeFileSync(values.junit, junitReport(results));
  return summaryOf(results).failedMust > 0 ? 1 : 0;
}

/** @throws CliUsageError for anything but an https URL without credentials */
function urlOf(option: string, text: string | undefined): URL | undefined {
  if (text === undefined) return undefined;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol !== "https:" || url.username !== "" || url.password !== "") {
    throw new CliUsageError(`${option}: expected an https URL`);
  }
  return url;
}

/** The value is secret, so a message never quotes it. @throws CliUsageError */
function headersOf(lines: readonly string[]): Readonly<Record<string, string>> {
  return Object.fromEntries(
    lines.map((line) => {
      const [, name, value] = HEADER.exec(line) ?? [];
      if (name === undefined || value === undefined) {
        throw new CliUsageError("--issuance-header: expected 'Name: value'");
      }
      return [name.toLowerCase(), value] as const;
    }),
  );
}

function certificateOf(
  cert: string | undefined,
  key: string | undefined,
): { readonly cert: string; readonly key: string } | undefined {
  if (cert === undefined && key === undefined) return undefined;
  if (cert === undefined || key === undefined) {
    throw new CliUsageError("expected --cert and --key together");
  }
  return { cert: pemOf(cert), key: pemOf(key) };
}

/** @throws CliUsageError for an id that no check has */
function checksOf(only: readonly string[] | undefined): readonly Check[] {
  if (only === undefined) return CONFORMANCE_CHECKS;
  const ids = only.flatMap((list) => list.split(","));
  for (const id of ids) {
    if (CONFORMANCE_CHECKS.some((check) => isNamedBy(check, id))) continue;
    throw new CliUsageError(`--only: no check ${JSON.stringify(id)}`);
  }
  return CONFORMANCE_CHECKS.filter((check) => ids.some((id) => isNamedBy(check, id)));
}

/** By its id or by its group. */
function isNamedBy({ id }: Check, name: string): boolean {
  return id === name || id.split(".")[0] === name;
}

function pemOf(file: string): string {
  return Buffer.from(readBytes(file)).toString("utf8");
}
