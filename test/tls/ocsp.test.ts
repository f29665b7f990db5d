/** OCSP responses by openssl's responder, stapled and refused; openssl's client says what arrived. */
import { execFile, execFileSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { fileCertificates, type FileCertificatesOptions } from "../../tls/index.ts";
import { type IssuedFiles, type OpensslCa, opensslCa } from "../support/openssl-ca.ts";
import { startEdge, type TestEdge } from "../support/tls-edge.ts";
import { waitFor } from "../support/wait-for.ts";

const DAY_MS = 86_400_000;
let ca: OpensslCa;
let other: OpensslCa;
let delegate: IssuedFiles;
const edges: TestEdge[] = [];

/** A certificate with its CA behind it, as a server sends it. */
function serverFiles(name: string): IssuedFiles {
  const files = ca.issue({ name, subjectAltName: `DNS:${name}.example` });
  writeFileSync(files.certificateFile, readFileSync(files.certificateFile, "utf8") + ca.pem);
  return files;
}

beforeAll(() => {
  ca = opensslCa();
  other = opensslCa("another root");
  delegate = ca.issue({ name: "responder", extendedKeyUsage: "OCSPSigning" });
});
afterEach(async () => {
  for (const edge of edges.splice(0)) await edge.close();
});
afterAll(() => {
  ca.remove();
  other.remove();
});

async function start(first: IssuedFiles, further: readonly IssuedFiles[] = []): Promise<TestEdge> {
  const certificates = { dir: ca.dir, ca: ca.pem, ...first, further, remove: () => undefined };
  const edge = await startEdge({ upstream: "http://127.0.0.1:9", certificates });
  edges.push(edge);
  return edge;
}

/** What `openssl s_client -status` tells of a handshake. */
function status(port: number, servername?: string, args: readonly string[] = []): Promise<string> {
  const name = servername === undefined ? ["-noservername"] : ["-servername", servername];
  const to = ["s_client", "-connect", `127.0.0.1:${port}`, "-status", "-CAfile", ca.caFile];
  return new Promise((resolve) => {
    const child = execFile("openssl", [...to, ...name, ...args], (_error, stdout) =>
      resolve(stdout),
    );
    child.stdin?.end();
  });
}
/** Its RSA counterpart: the same names, self-signed. */
function rsaTwin(files: IssuedFiles): IssuedFiles {
  const twin = { certificateFile: `${files.certificateFile}.rsa`, keyFile: `${files.keyFile}.rsa` };
  const out = ["-keyout", twin.keyFile, "-out", twin.certificateFile];
  const names = ["-subj", "/CN=alike", "-addext", "subjectAltName=DNS:alike.example"];
  const args = ["req", "-x509", "-nodes", "-newkey", "rsa:2048", ...out, ...names];
  execFileSync("openssl", args, { stdio: "ignore" });
  return twin;
}

const NONE = "OCSP response: no response sent";

describe("a staple", () => {
  test("goes with its certificate, by server name, by the CA or whom it lets sign", async () => {
    const [one, two, three] = [serverFiles("one"), serverFiles("two"), serverFiles("three")];
    writeFileSync(`${one.certificateFile}.ocsp`, ca.ocsp(one.certificateFile));
    const byKey = { signer: delegate, extra: ["-resp_key_id"] };
    writeFileSync(`${two.certificateFile}.ocsp`, ca.ocsp(two.certificateFile, byKey));
    const { events, port } = await start(one, [two, three]);
    expect(events).toStrictEqual(["ocsp-loaded", "ocsp-loaded"]);
    for (const name of ["one.example", "two.example", undefined]) {
      const told = await status(port, name);
      expect(told, name).toContain("OCSP Response Status: successful");
      expect(told, name).toContain("Cert Status: good");
      expect(told, name).toContain("Verify return code: 0 (ok)");
      // Its serial is that of the certificate that was shown.
      const [, serial = ""] = /Serial Number: ([0-9A-F]+)/.exec(told) ?? [];
      const shown = name === "two.example" ? two : one;
      expect(certificateSerial(shown)).toBe(serial);
    }
    expect(await status(port, "three.example")).toContain(NONE);
  });

  test("is not sent where OpenSSL picks the certificate by itself", async () => {
    const one = serverFiles("alike");
    const rsa = rsaTwin(one);
    writeFileSync(`${one.certificateFile}.ocsp`, ca.ocsp(one.certificateFile));
    const { port } = await start(one, [rsa]);
    expect(await status(port)).toContain(NONE);
    const ecdsa = ["-sigalgs", "ecdsa_secp256r1_sha256"];
    expect(await status(port, "alike.example", ecdsa)).toContain("Cert Status: good");
    const pss = ["-sigalgs", "rsa_pss_rsae_sha256:ecdsa_secp384r1_sha384"];
    expect(await status(port, "alike.example", pss)).toContain(NONE);
  });

  test("is taken up, kept through a broken one, and taken away with its file", async () => {
    const one = serverFiles("renewed");
    const file = `${one.certificateFile}.ocsp`;
    const { events, port } = await start(one);
    expect(await status(port, "renewed.example")).toContain(NONE);
    writeFileSync(file, ca.ocsp(one.certificateFile));
    await waitFor(() => expect(events).toContain("ocsp-loaded"));
    writeFileSync(file, "broken");
    await waitFor(() => expect(events).toContain("ocsp-failed"));
    expect(await status(port, "renewed.example")).toContain("Cert Status: good");
    rmSync(file);
    await waitFor(async () => expect(await status(port, "renewed.example")).toContain(NONE));
    expect(events.filter((event) => event.startsWith("ocsp-"))).toStrictEqual([
      "ocsp-loaded",
      "ocsp-failed",
    ]);
  });
});

function certificateSerial({ certificateFile }: IssuedFiles): string {
  return new X509Certificate(readFileSync(certificateFile)).serialNumber;
}

interface Watched {
  readonly source: ReturnType<typeof fileCertificates>;
  /** Events with their reasons. */
  readonly seen: string[];
  readonly clock: { ms: number };
}

const sources: { close: () => void }[] = [];
afterEach(() => {
  for (const source of sources.splice(0)) source.close();
});

function watch(
  files: IssuedFiles,
  more: Partial<FileCertificatesOptions> = {},
  aheadMs = 0,
): Watched {
  const seen: string[] = [];
  const clock = { ms: Date.now() + aheadMs };
  const source = fileCertificates({
    ...files,
    ...more,
    pollMs: 3_600_000,
    clock: () => clock.ms,
    observe: (event, _file, reason) => void seen.push([event, reason].filter(Boolean).join(" ")),
  });
  sources.push(source);
  return { source, seen, clock };
}

const stapled = ({ source }: Watched): number | undefined =>
  source.staple(source.current().fallback[0]!)?.length;

describe("a response is dropped", () => {
  test("at the end of its window, at once, and reported at the next look", () => {
    const files = serverFiles("ends");
    writeFileSync(`${files.certificateFile}.ocsp`, ca.ocsp(files.certificateFile));
    const watched = watch(files);
    expect(stapled(watched)).toBeGreaterThan(200);
    watched.clock.ms += 7 * DAY_MS - 60_000;
    expect(stapled(watched)).toBeGreaterThan(200);
    watched.clock.ms += 60_000;
    expect(stapled(watched)).toBeUndefined();
    watched.source.reload();
    watched.source.reload();
    expect(watched.seen).toStrictEqual([
      "ocsp-loaded",
      "ocsp-expired",
      "ocsp-failed OCSP response: out of date",
      "ocsp-failed OCSP response: out of date",
    ]);
  });

  test("with its certificate", () => {
    const files = serverFiles("replaced");
    writeFileSync(`${files.certificateFile}.ocsp`, ca.ocsp(files.certificateFile));
    const watched = watch(files);
    const next = serverFiles("replaced");
    writeFileSync(files.keyFile, readFileSync(next.keyFile));
    writeFileSync(files.certificateFile, readFileSync(next.certificateFile));
    watched.source.reload();
    expect(stapled(watched)).toBeUndefined();
    expect(watched.seen).toContain("ocsp-failed OCSP response: about another certificate");
    writeFileSync(`${files.certificateFile}.ocsp`, ca.ocsp(files.certificateFile));
    // Openssl's clock, by which the response begins, has gone on.
    watched.clock.ms = Date.now();
    watched.source.reload();
    expect(stapled(watched)).toBeGreaterThan(200);
  });
});

describe("rejects as TLS_OCSP_INVALID, without stopping the start, a response", () => {
  /** Why a response is not used; `undefined` where it is. */
  function refusal(
    response: (files: IssuedFiles) => Uint8Array,
    files = serverFiles("refused"),
    aheadMs = 0,
  ): string | undefined {
    writeFileSync(`${files.certificateFile}.ocsp`, response(files));
    const watched = watch(files, {}, aheadMs);
    const used = stapled(watched) !== undefined;
    expect(used).toBe(watched.seen[0] === "ocsp-loaded");
    return used ? undefined : watched.seen[0]?.replace("ocsp-failed OCSP response: ", "");
  }
  const good = ({ certificateFile }: IssuedFiles): Uint8Array => ca.ocsp(certificateFile);

  test("of which one byte was changed", () => {
    const files = serverFiles("changed");
    // Without the responder's certificate, which the signature does not cover.
    const response = ca.ocsp(files.certificateFile, { extra: ["-resp_no_certs"] });
    const reasons = new Set<string | undefined>();
    for (let index = 0; index < response.length; index += 1) {
      const changed = Uint8Array.from(response);
      changed[index] = (changed[index] ?? 0) ^ 0x01;
      const reason = refusal(() => changed, files);
      expect(reason, `byte ${index}`).toBeDefined();
      reasons.add(reason);
    }
    expect(reasons).toContain("signed by neither the issuer nor whom it lets sign");
    expect(reasons).toContain("not one value of DER");
  });

  test("with bytes after its end, too large, an error, or none", () => {
    expect(refusal((files) => Buffer.concat([good(files), Buffer.of(0)]))).toBe(
      "not one value of DER",
    );
    expect(refusal(() => Buffer.alloc(16_385, 0x30))).toBe("larger than the limit");
    expect(refusal(() => Buffer.of())).toBe("not one value of DER");
    expect(refusal(() => Buffer.of(0x30, 0x00))).toBe("not an OCSPResponse");
    // OCSPResponse of RFC 6960 §4.2.1 with the status tryLater.
    expect(refusal(() => Buffer.from("30030a0103", "hex"))).toBe("an error of a responder");
  });

  test("about another certificate, or by another CA", () => {
    const stranger = serverFiles("stranger");
    expect(refusal(() => good(stranger))).toBe("about another certificate");
    const same = other.issue({ name: "same" });
    expect(refusal(() => other.ocsp(same.certificateFile))).toMatch(/^signed by neither/);
  });

  test("by a certificate of the CA that may not sign, has ended, or is of another CA", () => {
    const by = (signer: IssuedFiles): string | undefined =>
      refusal(({ certificateFile }) => ca.ocsp(certificateFile, { signer }));
    expect(by(delegate)).toBeUndefined();
    expect(by(ca.issue({ name: "web", extendedKeyUsage: "serverAuth" }))).toMatch(/^signed by/);
    const usage = { extendedKeyUsage: "OCSPSigning" };
    const past = { from: "20200101000000Z", to: "20200201000000Z" };
    expect(by(ca.issue({ name: "ended", ...usage, ...past }))).toMatch(/^signed by/);
    expect(by(other.issue({ name: "other", ...usage }))).toMatch(/^signed by/);
  });

  test("with SHA-1, without nextUpdate, from the future, out of date, or about a revoked one", () => {
    const made = (options: Parameters<OpensslCa["ocsp"]>[1]): string | undefined =>
      refusal(({ certificateFile }) => ca.ocsp(certificateFile, options));
    expect(made({ extra: ["-rmd", "sha1"] })).toMatch(/^signed by neither/);
    expect(made({ ends: false })).toBe("without nextUpdate");
    expect(refusal(good, serverFiles("early"), -DAY_MS)).toBe("not valid yet");
    expect(refusal(good, serverFiles("late"), 8 * DAY_MS)).toBe("out of date");
    const revoked = serverFiles("revoked");
    ca.revoke(revoked.certificateFile);
    expect(refusal(good, revoked)).toBe("about a certificate that is not good");
  });

  test("whose certificate's file does not hold the issuer, and a missing file that is named", () => {
    const files = ca.issue({ name: "alone", subjectAltName: "DNS:alone.example" });
    expect(refusal(good, files)).toBe("its certificate's file does not hold the issuer");
    const { seen } = watch(serverFiles("named"), { ocspFile: `${files.keyFile}.none` });
    expect(seen).toStrictEqual(["ocsp-failed the file is missing"]);
  });
});
