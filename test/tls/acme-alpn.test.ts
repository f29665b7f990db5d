/** The TLS-ALPN challenge (RFC 8737) and certificates that are still awaited, against openssl and Node's client. */
import { execFile, execFileSync } from "node:child_process";
import { createHash, generateKeyPairSync, X509Certificate } from "node:crypto";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { createPendingChallenges, type PendingChallenges } from "../../service/acme/challenges.ts";
import { challengeCertificates, pendingFile, pendingFolder } from "../../service/acme/files.ts";
import type { AcmeConfig } from "../../service/config/index.ts";
import { replaceFileDurably } from "../../service/stores/durable-file.ts";
import { fileCertificates } from "../../tls/index.ts";
import {
  connectTls,
  readAll,
  startEdge,
  startUpstream,
  type TestCertificates,
  testCertificates,
  type TestEdge,
  type TestUpstream,
} from "../support/tls-edge.ts";
import { waitFor } from "../support/wait-for.ts";

const run = promisify(execFile);
const ACME = ["acme-tls/1"];
const KEY_AUTHORIZATION = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.thumbprint";
let acme: { readonly stateDir: string; readonly acme: AcmeConfig };
let pending: PendingChallenges;
let certificates: TestCertificates;
let upstream: TestUpstream;
let requests = 0;
const edges: TestEdge[] = [];

beforeAll(async () => {
  acme = {
    stateDir: mkdtempSync(join(tmpdir(), "stile-alpn-")),
    acme: {
      directoryUrl: "https://ca.example/",
      termsAgreed: true,
      contact: [],
      challenge: "tls-alpn-01",
      certificates: [{ names: ["shop.example", "localhost"], keyType: "ecdsa" }],
    },
  };
  pending = await createPendingChallenges(pendingFolder(acme), Date.now);
  certificates = await testCertificates();
  upstream = await startUpstream((_request, response) => {
    requests += 1;
    response.end("ok");
  });
});
afterEach(async () => {
  for (const edge of edges.splice(0)) await edge.close();
});
afterAll(async () => {
  await upstream.close();
  certificates.remove();
  rmSync(acme.stateDir, { recursive: true });
});

async function start(files: TestCertificates = certificates): Promise<TestEdge> {
  const target = `http://127.0.0.1:${upstream.port}`;
  const challenges = challengeCertificates(acme);
  const edge = await startEdge({ certificates: files, upstream: target, challenges });
  edges.push(edge);
  return edge;
}

const answer = (name: string): Promise<() => Promise<void>> =>
  pending.answer({
    type: "tls-alpn-01",
    name,
    token: KEY_AUTHORIZATION.split(".")[0] ?? "",
    keyAuthorization: KEY_AUTHORIZATION,
  });

/** Which certificate a client is shown, and what was agreed on; or the alert that it gets. */
async function shown(
  port: number,
  servername: string | undefined,
  ALPNProtocols?: string[],
): Promise<string> {
  const options = {
    rejectUnauthorized: false,
    ...(servername === undefined ? {} : { servername }),
    ...(ALPNProtocols === undefined ? {} : { ALPNProtocols }),
  };
  try {
    const socket = await connectTls(port, "", options);
    const { subject } = socket.getPeerCertificate();
    const { alpnProtocol } = socket;
    socket.destroy();
    return `${String(subject.CN)} ${String(alpnProtocol)}`;
  } catch (error) {
    return String((error as NodeJS.ErrnoException).code).replace("ERR_SSL_TLSV1_ALERT_", "");
  }
}

describe("acme-tls/1", () => {
  test("is answered with the certificate of RFC 8737 §3, as openssl reads it", async () => {
    const { port } = await start();
    const stop = await answer("shop.example");
    const client = `openssl s_client -connect 127.0.0.1:${port} -servername shop.example`;
    const { stdout } = await run("sh", ["-c", `${client} -alpn acme-tls/1 </dev/null`]);
    await stop();
    expect(stdout).toContain("ALPN protocol: acme-tls/1");
    const text = execFileSync("openssl", ["x509", "-noout", "-text"], { input: stdout }).toString();
    const digest = createHash("sha256").update(KEY_AUTHORIZATION).digest("hex").toUpperCase();
    const octets = digest.match(/../g)?.join("") ?? "";
    expect(text).toContain("DNS:shop.example");
    expect(text).toMatch(/1\.3\.6\.1\.5\.5\.7\.1\.31: critical/);
    const der = new X509Certificate(stdout).raw.toString("hex").toUpperCase();
    // Extension { OID, TRUE, OCTET STRING { OCTET STRING { 32 bytes } } }
    expect(der).toContain(`06082B0601050507011F0101FF04220420${octets}`);
  });

  test("is refused without a pending challenge for the name, and without a name", async () => {
    const { port } = await start();
    const stop = await answer("shop.example");
    expect(await shown(port, "SHOP.example", ACME)).toBe("ACME challenge acme-tls/1");
    // A file that lies there under a name that is not configured is not looked for.
    const folder = pendingFolder(acme);
    copyFileSync(pendingFile(folder, "shop.example"), pendingFile(folder, "other.example"));
    for (const name of ["other.example", "../pending/shop.example", "..", "shop.example."]) {
      expect(await shown(port, name, ACME), name).toBe("NO_APPLICATION_PROTOCOL");
    }
    expect(await shown(port, "localhost", ACME)).toBe("NO_APPLICATION_PROTOCOL");
    expect(await shown(port, undefined, ACME)).toBe("NO_APPLICATION_PROTOCOL");
    await stop();
    expect(await shown(port, "shop.example", ACME)).toBe("NO_APPLICATION_PROTOCOL");
    // One of a crash: pending no more once the service is there again.
    await answer("shop.example");
    expect(await shown(port, "shop.example", ACME)).toBe("ACME challenge acme-tls/1");
    await createPendingChallenges(pendingFolder(acme), Date.now);
    expect(await shown(port, "shop.example", ACME)).toBe("NO_APPLICATION_PROTOCOL");
  });

  test("is not agreed on with clients that offer anything else, who never see its certificate", async () => {
    const { port } = await start();
    const stop = await answer("localhost");
    expect(await shown(port, "localhost")).toBe("localhost false");
    expect(await shown(port, "localhost", ["http/1.1"])).toBe("localhost http/1.1");
    for (const offer of [
      ["acme-tls/1", "http/1.1"],
      ["http/1.1", "acme-tls/1"],
    ]) {
      expect(await shown(port, "localhost", offer)).toBe("localhost http/1.1");
    }
    expect(await shown(port, "localhost", ["acme-tls/1", "acme-tls/1"])).toBe(
      "NO_APPLICATION_PROTOCOL",
    );
    expect(await shown(port, "localhost", ["foo"])).toBe("NO_APPLICATION_PROTOCOL");
    await stop();
  });

  test("speaks no HTTP: the connection ends, and nothing reaches the upstream", async () => {
    const { port } = await start();
    const stop = await answer("localhost");
    const before = requests;
    const options = { servername: "localhost", ALPNProtocols: ACME, rejectUnauthorized: false };
    const socket = await connectTls(port, "", options);
    const all = readAll(socket);
    socket.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    expect(await all).toBe("");
    await stop();
    expect(requests).toBe(before);
    // The same listener serves HTTP to others meanwhile.
    const other = await connectTls(port, certificates.ca, { servername: "localhost" });
    const answered = readAll(other);
    other.write("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    expect(await answered).toContain("200 OK");
    expect(requests).toBe(before + 1);
  });
});

describe("an awaited certificate", () => {
  let dir: string;
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), "stile-awaited-"));
  });
  afterAll(() => rmSync(dir, { recursive: true }));

  const awaited = (file: string): TestCertificates => ({
    dir,
    ca: "",
    certificateFile: file,
    keyFile: file,
    isAwaited: true,
    remove: () => undefined,
  });
  const whole = (from: TestCertificates): string =>
    readFileSync(from.certificateFile, "utf8") + readFileSync(from.keyFile, "utf8");

  test("is refused by name until its file is there, and served then", async () => {
    const file = join(dir, "late.pem");
    const edge = await start(awaited(file));
    expect(await shown(edge.port, "localhost")).toMatch(/UNRECOGNIZED_NAME/);
    expect(await shown(edge.port, undefined)).toMatch(/HANDSHAKE_FAILURE/);
    writeFileSync(file, "half of a");
    await waitFor(() => expect(edge.events).toContain("certificate-reload-failed"));
    await replaceFileDurably(file, Buffer.from(whole(certificates)));
    await waitFor(() => expect(edge.events).toContain("certificate-reloaded"));
    expect(await shown(edge.port, "localhost")).toBe("localhost false");
    expect(await shown(edge.port, undefined)).toBe("localhost false");
  });

  test("never shows a key beside another key's certificate while its file is replaced", async () => {
    const file = join(dir, "one.pem");
    const next = await testCertificates();
    const contents = [whole(certificates), whole(next)].map((text) => Buffer.from(text));
    writeFileSync(file, contents[0] ?? "");
    const events: string[] = [];
    const source = fileCertificates({
      ...awaited(file),
      pollMs: 60_000,
      clock: Date.now,
      observe: (event) => events.push(event),
    });
    const seen = new Set<string>();
    for (let round = 1; round <= 20; round += 1) {
      const writing = replaceFileDurably(file, contents[round % 2] ?? Buffer.alloc(0));
      const looking = setInterval(() => {
        source.reload();
        seen.add(source.all()[0]?.cert ?? "");
      });
      await writing;
      clearInterval(looking);
      source.reload();
      seen.add(source.all()[0]?.cert ?? "");
    }
    source.close();
    next.remove();
    expect(seen.size).toBe(2);
    expect(events).not.toContain("certificate-reload-failed");
  });

  test("rejects a broken file of a certificate that is not awaited", () => {
    const file = join(dir, "missing.pem");
    const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const torn = readFileSync(certificates.certificateFile, "utf8");
    writeFileSync(file, torn + privateKey.export({ format: "pem", type: "pkcs8" }));
    const open = (isAwaited: boolean): unknown =>
      fileCertificates({
        ...awaited(file),
        isAwaited,
        pollMs: 60_000,
        clock: Date.now,
        observe: () => undefined,
      }).all();
    expect(() => open(false)).toThrow("cannot be used");
    expect(open(true)).toEqual([]);
  });
});
