/** No 0-RTT: a token in replayable data would be a token spent twice (RFC 9577 §5.2), shown by openssl's client. */
import { execFile } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  startEdge,
  startUpstream,
  type TestCertificates,
  testCertificates,
  type TestEdge,
  type TestUpstream,
} from "../support/tls-edge.ts";

const REQUEST = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
const run = promisify(execFile);
let certificates: TestCertificates;
let upstream: TestUpstream;
let edge: TestEdge;
let reached = 0;
beforeAll(async () => {
  certificates = await testCertificates();
  upstream = await startUpstream((_request, response) => {
    reached += 1;
    response.end("ok");
  });
  edge = await startEdge({ certificates, upstream: `http://127.0.0.1:${upstream.port}` });
});
afterAll(async () => {
  await edge.close();
  await upstream.close();
  certificates.remove();
});

/** What openssl's client says of a connection on which it sends a request. */
async function client(...words: readonly string[]): Promise<string> {
  const at = ["s_client", "-connect", `127.0.0.1:${edge.port}`, "-servername", "localhost"];
  const command = `printf '${REQUEST.replaceAll("\r", "\\r").replaceAll("\n", "\\n")}' | openssl ${[...at, "-ign_eof", ...words].join(" ")}`;
  const { stdout } = await run("sh", ["-c", command], { timeout: 10_000 });
  return stdout;
}

describe("early data", () => {
  test("is not offered with a ticket, and not taken from a client that sends it", async () => {
    const session = join(certificates.dir, "session");
    const early = join(certificates.dir, "early");
    const first = await client("-sess_out", session);
    expect(first).toContain("New, TLSv1.3");
    expect(first).toMatch(/Max Early Data: 0\b/);
    expect(first).toContain("HTTP/1.1 200");
    writeFileSync(early, REQUEST);
    const before = reached;
    const second = await client("-sess_in", session, "-early_data", early);
    expect(second).toContain("Reused, TLSv1.3");
    expect(second).toMatch(/Early data was (?:not sent|rejected)/);
    expect(reached).toBe(before + 1);
  });
});
