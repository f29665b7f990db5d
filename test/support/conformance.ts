/** The command `stile conformance` as a function, against the issuer and the edge of a split. */
import { conformanceCommand } from "../../service/cli/conformance.ts";
import type { Split } from "./split.ts";

export interface ConformanceRun {
  readonly exitCode: number;
  readonly out: string;
  /** Reason by id of the failed checks. */
  readonly failed: Readonly<Record<string, string>>;
  readonly skipped: Readonly<Record<string, string>>;
  readonly passed: readonly string[];
}

interface JsonReport {
  readonly checks: readonly { id: string; outcome: string; reason?: string }[];
}

/** What the command writes to standard output goes to `out`; tests of one file run one after the other. */
export async function captured(args: readonly string[]): Promise<{ code: number; out: string }> {
  const write = process.stdout.write.bind(process.stdout);
  let out = "";
  process.stdout.write = (text: string | Uint8Array): boolean => {
    out += typeof text === "string" ? text : Buffer.from(text).toString("utf8");
    return true;
  };
  try {
    return { code: await conformanceCommand(args), out };
  } finally {
    process.stdout.write = write;
  }
}

export async function runSuite(
  split: Split,
  urls: { readonly issuer?: string; readonly origin?: string },
  ...only: readonly string[]
): Promise<ConformanceRun> {
  const { certificateFile, keyFile } = split.certificate;
  const { code, out } = await captured([
    ...(urls.issuer === undefined ? [] : ["--issuer", urls.issuer]),
    ...(urls.origin === undefined ? [] : ["--origin", urls.origin]),
    "--ca",
    split.caFile,
    "--cert",
    certificateFile,
    "--key",
    keyFile,
    "--json",
    ...only.flatMap((id) => ["--only", id]),
  ]);
  const { checks } = JSON.parse(out) as JsonReport;
  const reasons = (outcome: string): Record<string, string> =>
    Object.fromEntries(
      checks.filter((one) => one.outcome === outcome).map(({ id, reason = "" }) => [id, reason]),
    );
  return {
    exitCode: code,
    out,
    failed: reasons("fail"),
    skipped: reasons("skipped"),
    passed: checks.filter(({ outcome }) => outcome === "pass").map(({ id }) => id),
  };
}
