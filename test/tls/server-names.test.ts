/** Several certificates behind one listener, chosen by server name, against openssl's own client and certificates. */
import { execFile, execFileSync } from "node:child_process";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { fileCertificates } from "../../tls/index.ts";
import { codeOf } from "../support/reject.ts";
import {
  connectPlain,
  connectTls,
  startEdge,
  type TestCertificates,
  type TestEdge,
} from "../support/tls-edge.ts";
import { waitFor } from "../support/wait-for.ts";

const EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
const RSA = ["-newkey", "rsa:2048"];
let dir: string;
const edges: TestEdge[] = [];

interface Files {
  readonly certificateFile: string;
  readonly keyFile: string;
}

/** A self-signed certificate by openssl. */
function make(name: string, sans: string, key = EC, days = "30"): Files {
  const files = { certificateFile: join(dir, `${name}.pem`), keyFile: join(dir, `${name}.key`) };
  const out = ["-keyout", files.keyFile, "-out", files.certificateFile];
  const subject = ["-subj", `/CN=${name}`, "-addext", `subjectAltName=${sans}`];
  execFileSync("openssl", ["req", "-x509", "-nodes", "-days", days, ...key, ...out, ...subject], {
    stdio: "ignore",
  });
  return files;
}

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "stile-names-"));
  make("first", "DNS:first.example");
  make("exact", "DNS:a.wild.example");
  make("wild", "DNS:*.wild.example,DNS:*.Upper.example");
  make("both-ec", "DNS:both.example");
  make("both-rsa", "DNS:both.example", RSA);
});
afterEach(async () => {
  for (const edge of edges.splice(0)) await edge.close();
});
afterAll(() => rmSync(dir, { recursive: true }));

const filesOf = (name: string): Files => ({
  certificateFile: join(dir, `${name}.pem`),
  keyFile: join(dir, `${name}.key`),
});

async function start(
  names: readonly string[],
  options: Partial<Parameters<typeof startEdge>[0]> = {},
): Promise<TestEdge> {
  const [first = "", ...rest] = names;
  const certificates: TestCertificates = {
    dir,
    ca: "",
    ...filesOf(first),
    further: rest.map(filesOf),
    remove: () => undefined,
  };
  const edge = await startEdge({ upstream: "http://127.0.0.1:9", ...options, certificates });
  edges.push(edge);
  return edge;
}

/** Common name of the certificate that a client is shown, or why it gets none. */
async function shown(port: number, servername: string, sigalgs?: string): Promise<string> {
  const options = { servername, rejectUnauthorized: false, ...(sigalgs ? { sigalgs } : {}) };
  try {
    const socket = await connectTls(port, "", options);
    const name = String(socket.getPeerCertificate().subject.CN);
    expect(socket.getProtocol()).toBe("TLSv1.3");
    socket.destroy();
    return name;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  }
}

const UNRECOGNIZED = "ERR_SSL_TLSV1_UNRECOGNIZED_NAME";

describe("a server name", () => {
  test("is matched exactly, then by a wildcard for one label, in any case", async () => {
    const { port } = await start(["first", "wild", "exact"]);
    expect(await shown(port, "first.example")).toBe("first");
    expect(await shown(port, "FIRST.example.")).toBe("first");
    expect(await shown(port, "a.wild.example")).toBe("exact");
    expect(await shown(port, "b.wild.example")).toBe("wild");
    expect(await shown(port, "b.upper.example")).toBe("wild");
    for (const name of ["wild.example", "b.a.wild.example", ".wild.example", "other.example"]) {
      expect(await shown(port, name), name).toBe(UNRECOGNIZED);
    }
  });

  test("that is unknown rejects with alert 112, as openssl and the bytes say it", async () => {
    const { port, events } = await start(["first", "wild"]);
    const args = ["s_client", "-connect", `127.0.0.1:${port}`, "-servername", "no.example"];
    const told = await new Promise<string>((resolve) => {
      const child = execFile("openssl", args, (_error, _out, stderr) => resolve(stderr));
      child.stdin?.end();
    });
    expect(told).toContain("SSL alert number 112");
    await waitFor(() => expect(events).toStrictEqual(["handshake-failed"]));
  });

  test("that is unknown or missing gets the first certificate where that is chosen", async () => {
    const chosen = await start(["first", "wild"], { unknownName: "first" });
    expect(await shown(chosen.port, "no.example")).toBe("first");
    const strict = await start(["first", "wild"]);
    expect(await shown(strict.port, "")).toBe("first");
  });

  test("with two key types gets the one that the client can verify", async () => {
    const { port } = await start(["first", "both-ec", "both-rsa"]);
    expect(await shown(port, "both.example", "ecdsa_secp256r1_sha256")).toBe("both-ec");
    expect(await shown(port, "both.example", "rsa_pss_rsae_sha256")).toBe("both-rsa");
    expect(await shown(port, "first.example", "rsa_pss_rsae_sha256")).toMatch(/HANDSHAKE_FAILURE/);
    const fallback = await start(["both-rsa", "both-ec"]);
    expect(await shown(fallback.port, "", "ecdsa_secp256r1_sha256")).toBe("both-ec");
    expect(await shown(fallback.port, "", "rsa_pss_rsae_sha256")).toBe("both-rsa");
  });

  test("does not loosen the version or the groups", async () => {
    const { port } = await start(["first", "wild"]);
    for (const weaker of [{ maxVersion: "TLSv1.2" }, { ecdhCurve: "P-384" }] as const) {
      const socket = connectTls(port, "", { ...weaker, servername: "b.wild.example" });
      await expect(socket).rejects.toThrow(/protocol version|handshake failure/i);
    }
  });

  test("in garbage does not hurt the listener", async () => {
    const { port } = await start(["first"]);
    const plain = await connectPlain(port);
    plain.end("GET / HTTP/1.1\r\n\r\n");
    expect(await shown(port, `${"a".repeat(63)}.${"b".repeat(63)}.example`)).toBe(UNRECOGNIZED);
    expect(await shown(port, "first.example")).toBe("first");
  });
});

describe("a reload", () => {
  const count = (edge: TestEdge, event: string): number =>
    edge.events.filter((seen) => seen === event).length;

  test("changes one certificate beside a broken one, and keeps the strictness", async () => {
    make("one", "DNS:one.example");
    make("two", "DNS:two.example");
    const edge = await start(["one", "two"]);
    const renewed = make("renewed", "DNS:two.example,DNS:new.example");
    writeFileSync(filesOf("one").certificateFile, "broken");
    copyFileSync(renewed.keyFile, filesOf("two").keyFile);
    copyFileSync(renewed.certificateFile, filesOf("two").certificateFile);
    await waitFor(() => expect(edge.events).toContain("certificate-reloaded"));
    await waitFor(() => expect(edge.events).toContain("certificate-reload-failed"));
    expect(await shown(edge.port, "one.example")).toBe("one");
    expect(await shown(edge.port, "two.example")).toBe("renewed");
    expect(await shown(edge.port, "new.example")).toBe("renewed");
    expect(await shown(edge.port, "other.example")).toBe(UNRECOGNIZED);
    const old = connectTls(edge.port, "", { servername: "two.example", maxVersion: "TLSv1.2" });
    await expect(old).rejects.toThrow(/protocol version/i);
  });

  test("rejects a certificate that has ended and goes on with the old one", async () => {
    make("old", "DNS:old.example");
    const in60Days = Date.now() + 60 * 86_400_000;
    const edge = await start(["old"], { nowMs: in60Days });
    const ended = make("ended", "DNS:old.example");
    copyFileSync(ended.keyFile, filesOf("old").keyFile);
    copyFileSync(ended.certificateFile, filesOf("old").certificateFile);
    await waitFor(() => expect(edge.events).toContain("certificate-reload-failed"));
    expect(await shown(edge.port, "old.example")).toBe("old");
    const longer = make("longer", "DNS:old.example", EC, "90");
    copyFileSync(longer.keyFile, filesOf("old").keyFile);
    copyFileSync(longer.certificateFile, filesOf("old").certificateFile);
    await waitFor(() => expect(count(edge, "certificate-reloaded")).toBe(1));
    expect(await shown(edge.port, "old.example")).toBe("longer");
  });

  test("that is asked for looks at once, and reports what is still broken", () => {
    const files = make("asked", "DNS:asked.example");
    const seen: string[] = [];
    const source = fileCertificates({
      ...files,
      pollMs: 3_600_000,
      clock: Date.now,
      observe: (event, file) => void seen.push(`${event} ${file === files.certificateFile}`),
    });
    const good = readFileSync(files.certificateFile, "utf8");
    writeFileSync(files.certificateFile, "broken");
    source.reload();
    source.reload();
    writeFileSync(files.certificateFile, good);
    source.reload();
    source.close();
    expect(seen).toStrictEqual([
      "certificate-reload-failed true",
      "certificate-reload-failed true",
    ]);
  });
});

test("rejects names at the start that the certificate does not cover", () => {
  const open = (names: readonly string[]): string =>
    codeOf(() => {
      const options = { pollMs: 1_000, clock: Date.now, observe: () => undefined };
      fileCertificates({ ...filesOf("wild"), names, ...options }).close();
    });
  for (const name of ["wild.example", "a.b.wild.example", "other.example", "*.example"]) {
    expect(open([name]), name).toBe("TLS_CERTIFICATE_INVALID");
  }
  expect(open(["a.wild.example", "*.wild.example"])).toBe("nothing was thrown");
});
