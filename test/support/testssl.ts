/**
 * Debian's testssl against a sidecar with the default settings of its TLS, and what of its findings may stand.
 * The certificate is by an authority as public ones are: with an OCSP responder named, and a response stapled.
 */
import { execFile, spawnSync } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { opensslCa } from "./openssl-ca.ts";
import { startTestSidecar } from "./sidecar.ts";

export interface Finding {
  readonly id: string;
  readonly severity: string;
  readonly finding: string;
}

/**
 * What is above INFO and stands, by testssl's name of it, with the words that it must be found in: anything else
 * under the same name is a finding again. Why each is none of the server's: docs/tls.md.
 */
const ALLOWED: Readonly<Record<string, RegExp>> = {
  engine_problem: /^No engine or GOST support via engine with your /,
  DNS_CAArecord: /^--$/,
  sessionresumption_ticket: /^check failed because of connect problem$/,
};

/** What a report has to say, or it was of another server, or of none. */
const REQUIRED: Readonly<Record<string, RegExp>> = {
  SSLv2: /^not offered/,
  SSLv3: /^not offered/,
  TLS1: /^not offered/,
  TLS1_1: /^not offered/,
  TLS1_2: /^not offered/,
  TLS1_3: /^offered/,
};

/** For the parts that a run of everything has. */
const REQUIRED_OF_ALL: Readonly<Record<string, RegExp>> = {
  ...REQUIRED,
  OCSP_stapling: /^offered/,
  cert_chain_of_trust: /^passed/,
  HSTS_time: /31536000/,
  cipherlist_NULL: /^not offered/,
  heartbleed: /^not vulnerable/,
  secure_client_renego: /^not vulnerable/,
  fallback_SCSV: /^only TLS 1.3/,
  BREACH: /^not vulnerable/,
};

export function hasTestssl(): boolean {
  return spawnSync("which", ["testssl"]).status === 0;
}

export interface TestsslReport {
  readonly findings: readonly Finding[];
  /** What may not stand, in words. Empty: the report is clean. */
  readonly faults: readonly string[];
}

/**
 * @param folder where testssl.json and testssl.txt are left
 * @param parts what is looked at, as testssl's options; nothing: everything
 */
export async function runTestssl(folder: string, parts: readonly string[]): Promise<TestsslReport> {
  const ca = opensslCa("testssl root");
  const end = new Date(Date.now() + 90 * 86_400_000);
  const to = end.toISOString().replaceAll(/[-:T]|\.\d+/g, "");
  const files = ca.issue({
    name: "localhost",
    subjectAltName: "DNS:localhost",
    extendedKeyUsage: "serverAuth",
    to,
    extra: ["authorityInfoAccess = OCSP;URI:http://ocsp.example/"],
  });
  writeFileSync(`${files.certificateFile}.ocsp`, ca.ocsp(files.certificateFile));
  const chain = [readFileSync(files.certificateFile, "utf8"), ca.pem].join("");
  writeFileSync(files.certificateFile, chain);
  const sidecar = await startTestSidecar({ tls: files, edge: { hosts: ["localhost"] } });
  try {
    const json = join(folder, "testssl.json");
    // It does not write over a report of before.
    rmSync(json, { force: true });
    const options = ["--quiet", "--color", "0", "--warnings", "batch"];
    const output = ["--jsonfile", json, "--add-ca", ca.caFile];
    const text = await run("testssl", [
      ...options,
      ...output,
      ...parts,
      `localhost:${sidecar.port}`,
    ]);
    writeFileSync(join(folder, "testssl.txt"), text);
    const findings = JSON.parse(readFileSync(json, "utf8")) as Finding[];
    return { findings, faults: faultsIn(findings, parts.length === 0) };
  } finally {
    await sidecar.stop();
    ca.remove();
  }
}

/** @param isWhole whether testssl looked at everything */
export function faultsIn(findings: readonly Finding[], isWhole: boolean): string[] {
  const above = findings.filter(
    ({ finding, id, severity }) =>
      severity !== "OK" && severity !== "INFO" && ALLOWED[id]?.test(finding) !== true,
  );
  const required = Object.entries(isWhole ? REQUIRED_OF_ALL : REQUIRED);
  const unsaid = required.filter(
    ([id, words]) => !findings.some((one) => one.id === id && words.test(one.finding)),
  );
  return [
    ...above.map(({ finding, id, severity }) => `${severity} ${id}: ${finding}`),
    ...unsaid.map(([id, words]) => `not said: ${id} ${words.source}`),
  ];
}

/** In another process, and not waited for as a whole: the sidecar that it asks is in this one. */
function run(program: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(program, args, { timeout: 540_000, maxBuffer: 2 ** 26 }, (error, stdout) => {
      // Its exit code counts findings; only a run that was cut short is an error.
      if (error?.killed === true) reject(error);
      else resolve(stdout);
    });
  });
}
