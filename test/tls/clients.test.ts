/**
 * TLS clients that we did not write, against a whole sidecar: curl, GnuTLS, OpenSSL and Chromium are admitted with
 * a token, and whatever asks for less than TLS 1.3 with our groups is refused by an alert, the upstream untouched.
 */
import { execFile, spawn, spawnSync } from "node:child_process";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTestSidecar, type TestSidecar } from "../support/sidecar.ts";
import {
  answerToBytes,
  openHandshaker,
  recordedClientHello,
  withCompression,
} from "../support/tls-client-bytes.ts";
import { chromiumMissing, launchBrowser } from "../web/browser.ts";

let target: TestSidecar;
let caFile: string;
beforeAll(async () => {
  target = await startTestSidecar();
  caFile = join(target.dir, "tls", "ca.pem");
});
afterAll(() => target.stop());

const isMissing = (program: string): boolean => spawnSync("which", [program]).status !== 0;

/** Everything that a program says, when it has ended. */
function said(program: string, args: readonly string[], input = ""): Promise<string> {
  return new Promise((resolve) => {
    const child = spawn(program, args, { timeout: 10_000 });
    let text = "";
    for (const output of [child.stdout, child.stderr]) {
      output.on("data", (chunk: Buffer) => (text += chunk.toString("latin1")));
    }
    // Its end would be taken for the client's: these programs end with the connection.
    child.stdin.on("error", () => undefined).write(input);
    child.once("close", () => resolve(text));
  });
}

function getWith(authorization: string): string {
  const lines = [`Host: ${target.host}`, `Authorization: ${authorization}`, "Connection: close"];
  return `GET / HTTP/1.1\r\n${lines.join("\r\n")}\r\n\r\n`;
}

function gnutls(priority: string, input: string, ...more: readonly string[]): Promise<string> {
  const to = ["--x509cafile", caFile, "-p", String(target.port), "--priority", priority];
  return said("gnutls-cli", [...to, ...more, "localhost"], input);
}

function openssl(args: readonly string[], input: string): Promise<string> {
  const to = ["s_client", "-connect", `127.0.0.1:${target.port}`, "-servername", "localhost"];
  const verify = ["-CAfile", caFile, "-verify_return_error", "-ign_eof"];
  return said("openssl", [...to, ...verify, ...args], input);
}

describe("a client with a token", () => {
  it.skipIf(isMissing("curl")).each(["--http1.1", "--http2"])(
    "is admitted when it is curl %s",
    async (version) => {
      const authorization = await target.mint();
      const before = target.upstream.hits();
      const form = "%{http_code} %{http_version} %{ssl_verify_result}";
      const options = ["-sS", "--tlsv1.3", version, "--cacert", caFile, "-o", "-", "-w", form];
      const answer = await new Promise((resolve) =>
        execFile(
          "curl",
          [...options, "-H", `Authorization: ${authorization}`, `${target.url}/`],
          (error, stdout) => resolve(error ?? stdout),
        ),
      );
      expect(answer).toMatch(version === "--http1.1" ? /200 1\.1 0$/ : /200 2 0$/);
      expect(target.upstream.hits()).toBe(before + 1);
    },
  );

  it.skipIf(isMissing("nghttp"))("is admitted when it is nghttp", async () => {
    const header = `authorization: ${await target.mint()}`;
    const text = await said("nghttp", ["-v", "-y", "-H", header, "-d", caFile, `${target.url}/`]);
    expect(text).toContain("The negotiated protocol: h2");
    expect(text).toMatch(/:status: 200/);
    expect(text).toContain("SETTINGS_ENABLE_CONNECT_PROTOCOL(0x08):1");
    expect(text).toContain('"stile-admission": "token"');
  });

  it.skipIf(isMissing("h2load"))("is answered a thousand times when it is h2load", async () => {
    const answer = await target.get("/", { authorization: await target.mint() });
    const cookie = answer.headers["set-cookie"]?.[0]?.split(";")[0] ?? "";
    const load = ["-n", "1000", "-c", "4", "-m", "25", "-H", `cookie: ${cookie}`];
    const text = await said("h2load", [...load, `${target.url}/`]);
    expect(text).toContain("1000 succeeded, 0 failed, 0 errored");
    expect(text).toContain("status codes: 1000 2xx");
  });

  it.skipIf(isMissing("gnutls-cli"))("is admitted when it is GnuTLS", async () => {
    const text = await gnutls("NORMAL", getWith(await target.mint()));
    expect(text).toContain("The certificate is trusted");
    expect(text).toMatch(/Description: \(TLS1\.3-X\.509\)/);
    expect(text).toContain("HTTP/1.1 200 ");
  });

  it.skipIf(isMissing("gnutls-cli"))("resumes when it is GnuTLS, without early data", async () => {
    const text = await gnutls("NORMAL", getWith(await target.mint()), "--resume");
    expect(text).toContain("This is a resumed session");
    expect(text).toContain("HTTP/1.1 200 ");
  });

  it.each(["X25519", "P-256"])("is admitted when it is OpenSSL with %s", async (group) => {
    const text = await openssl(["-groups", group], getWith(await target.mint()));
    expect(text).toContain("New, TLSv1.3");
    expect(text).toContain("Compression: NONE");
    expect(text).toContain("Verify return code: 0 (ok)");
    expect(text).toContain("HTTP/1.1 200 ");
  });

  it.skipIf(chromiumMissing)("is admitted when it is Chromium, over TLS 1.3", async () => {
    const browser = await launchBrowser();
    try {
      const headers = { authorization: await target.mint() };
      const context = await browser.newContext({
        ignoreHTTPSErrors: true,
        extraHTTPHeaders: headers,
      });
      const page = await context.newPage();
      const answer = await page.goto(`${target.url}/`);
      expect(answer?.status()).toBe(200);
      const protocol = 'performance.getEntriesByType("navigation")[0].nextHopProtocol';
      expect(await page.evaluate(protocol)).toBe("h2");
      expect(await answer?.securityDetails()).toMatchObject({ protocol: "TLS 1.3" });
    } finally {
      await browser.close();
    }
  });
});

/** What a client offers, and the alert that it must get (RFC 8446 §6.2). */
const OFFERS: readonly (readonly [what: string, args: readonly string[], alert: number])[] = [
  ["TLS 1.2", ["-tls1_2"], 70],
  ["TLS 1.1", ["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"], 70],
  ["TLS 1.0", ["-tls1", "-cipher", "DEFAULT@SECLEVEL=0"], 70],
  // RFC 7507 §3 says inappropriate_fallback (86) where the lower version would do. Here it does not.
  ["a downgrade, with TLS_FALLBACK_SCSV", ["-tls1_2", "-fallback_scsv"], 70],
  ["P-384 alone", ["-groups", "P-384"], 40],
  ["P-521 alone", ["-groups", "P-521"], 40],
  ["X448 alone", ["-groups", "X448"], 40],
  ["finite fields alone", ["-groups", "ffdhe2048:ffdhe3072"], 40],
  ["RSA signatures alone", ["-sigalgs", "RSA-PSS+SHA256:RSA-PSS+SHA512"], 40],
  ["CCM with short tags alone", ["-ciphersuites", "TLS_AES_128_CCM_8_SHA256"], 40],
  ["a protocol that is not spoken", ["-alpn", "http/0.9"], 120],
];

const PRIORITIES: readonly (readonly [what: string, priority: string, alert: number])[] = [
  ["TLS 1.2", "NORMAL:-VERS-ALL:+VERS-TLS1.2", 70],
  ["TLS 1.1", "LEGACY:-VERS-ALL:+VERS-TLS1.1", 70],
  ["finite fields alone", "NORMAL:-GROUP-ALL:+GROUP-FFDHE2048", 40],
  ["P-384 alone", "NORMAL:-GROUP-ALL:+GROUP-SECP384R1", 40],
];

/** Of the whole: a request with a token that is good all the same, since no such client may spend it. */
async function refused(connect: (input: string) => Promise<string>): Promise<string> {
  const authorization = await target.mint();
  const before = target.upstream.hits();
  const text = await connect(getWith(authorization));
  expect(text).not.toContain("HTTP/1.1");
  expect(target.upstream.hits()).toBe(before);
  expect((await target.get("/", { authorization })).status).toBe(200);
  return text;
}

describe("rejects", () => {
  it.each(OFFERS)("OpenSSL that offers %s", async (_what, args, alert) => {
    expect(await refused((input) => openssl(args, input))).toContain(`SSL alert number ${alert}`);
  });

  it.skipIf(isMissing("gnutls-cli")).each(PRIORITIES)(
    "GnuTLS that offers %s",
    async (_what, priority, alert) => {
      const text = await refused((input) => gnutls(priority, input));
      expect(text).toContain(`Received alert [${alert}]`);
    },
  );

  it("a ClientHello that offers compression, and not the same without", async () => {
    const hello = await recordedClientHello();
    // Alert, version, length 2, fatal, illegal_parameter (RFC 8446 §4.1.2).
    const answer = await answerToBytes(target.port, withCompression(hello));
    expect(answer.toString("hex")).toMatch(/^1503030002022f$/);
    // A record in the clear behind it, so that the server need not wait for the rest of the handshake.
    const clear = Buffer.from([23, 3, 3, 0, 1, 0]);
    const plain = await answerToBytes(target.port, Buffer.concat([hello, clear]));
    expect(plain.subarray(0, 1).toString("hex")).toBe("16");
  });

  it("renegotiation: a ClientHello, or a request for one, on a connection that stands", async () => {
    const hello = (await recordedClientHello()).subarray(5);
    for (const message of [hello, Buffer.from([0, 0, 0, 0])]) {
      const { sendHandshake, tls } = await openHandshaker(target.port, target.ca);
      const failure = new Promise<Error>((resolve) => tls.once("error", resolve));
      sendHandshake(message);
      // unexpected_message (RFC 8446 §4.1.2), which also shows that the server could decrypt it.
      expect(await failure).toMatchObject({ code: "ERR_SSL_SSL/TLS_ALERT_UNEXPECTED_MESSAGE" });
    }
  });
});
