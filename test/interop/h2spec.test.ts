/**
 * h2spec (github.com/summerwind/h2spec), the conformance suite for HTTP/2 and HPACK, against the listener over TLS.
 * It asks for what RFC 7540 says; where RFC 9113 or nghttp2 has it otherwise, the deviation is named below, and any
 * other fails. It runs with the nightly profile, since it is built for it; without Go it is passed over.
 */
import { execFile, execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { startEdge, startUpstream, testCertificates } from "../support/tls-edge.ts";

const GO = process.env["STILE_GO"] ?? "/usr/local/go/bin/go";
const BUILD_MS = 180_000;
const RUN_MS = 120_000;

/** RFC 9113 §5.1: what comes on a stream that was closed may be ignored, and nghttp2 keeps no closed streams. */
const CLOSED = "RFC 9113 §5.1 lets frames on closed streams be ignored";
const PRIORITY = "RFC 9113 §5.3 has no priorities of this kind any more; nghttp2 ignores them";
const DEVIATIONS: Readonly<Record<string, string>> = {
  "closed: Sends a DATA frame after sending RST_STREAM frame": CLOSED,
  "closed: Sends a HEADERS frame after sending RST_STREAM frame": CLOSED,
  "closed: Sends a DATA frame": CLOSED,
  "closed: Sends a HEADERS frame": CLOSED,
  "Sends stream identifier that is numerically smaller than previous": CLOSED,
  "Sends PRIORITY frame that depend on itself": PRIORITY,
  "Sends a PRIORITY frame with 0x0 stream identifier": PRIORITY,
  "Sends a PING frame with ACK": "Node ends the connection: an acknowledgement of nothing",
  "Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 on a stream":
    "Node ends the connection, not the stream alone",
};

const folder = mkdtempSync(join(tmpdir(), "stile-h2spec-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const program = buildProgram();

function buildProgram(): string | undefined {
  if (process.env["STILE_GO_INTEROP"] === undefined) return undefined;
  try {
    const out = join(folder, "h2spec");
    const source = "github.com/summerwind/h2spec/cmd/h2spec";
    const cwd = join(import.meta.dirname, "h2spec");
    execFileSync(GO, ["build", "-o", out, source], { cwd, timeout: BUILD_MS, stdio: "pipe" });
    return out;
  } catch (error) {
    console.log(`h2spec is passed over: ${String(error).slice(0, 200)}`);
    return undefined;
  }
}

interface Case {
  readonly name: string;
  readonly failed: boolean;
}

async function runSuite(file: string, port: number): Promise<Case[]> {
  const report = join(folder, "report.xml");
  const args = ["--host", "localhost", "--port", String(port), "--tls", "--insecure"];
  // It ends with 1 where something failed.
  await new Promise<void>((resolve) => {
    execFile(file, [...args, "--timeout", "1", "--junit-report", report], { timeout: RUN_MS }, () =>
      resolve(),
    );
  });
  const cases = readFileSync(report, "utf8").matchAll(
    /<testcase [^>]*classname="(?<name>[^"]*)"[^>]*>(?<body>.*?)<\/testcase>/gs,
  );
  return [...cases].map(({ groups }) => ({
    name: groups?.["name"] ?? "",
    failed: /<(?:failure|error)\b/.test(groups?.["body"] ?? ""),
  }));
}

test.skipIf(program === undefined)(
  "the listener passes h2spec but for what is named",
  async () => {
    const certificates = await testCertificates();
    const upstream = await startUpstream((request, response) => {
      request.resume().once("end", () => response.end("hello"));
    });
    const target = `http://127.0.0.1:${upstream.port}`;
    const edge = await startEdge({ certificates, upstream: target });
    const cases = await runSuite(program ?? "", edge.port);
    expect(cases.length).toBeGreaterThan(140);
    const failed = cases.filter((one) => one.failed).map(({ name }) => name);
    expect(failed.filter((name) => DEVIATIONS[name] === undefined)).toStrictEqual([]);
    await edge.close();
    await upstream.close();
    certificates.remove();
  },
  RUN_MS + 30_000,
);
