/** Who a certificate names, for certificates that a CA has signed and that are rubbish all the same. */
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { afterAll, describe, expect, it } from "vitest";
import { identityOf, isSpiffePattern } from "../../tls/clients/identity.ts";
import { opensslCa } from "../support/openssl-ca.ts";

const ca = opensslCa();
afterAll(() => ca.remove());

describe("an identity", () => {
  it("is the certificate's own or none, and never an exception, whatever its bytes are", () => {
    const { certificateFile } = ca.issue({
      name: "a",
      subjectAltName: "URI:spiffe://example.org/a,DNS:a.test,email:a@b.test,IP:192.0.2.1",
      extendedKeyUsage: "clientAuth",
    });
    const der = new X509Certificate(readFileSync(certificateFile)).raw;
    const allowed = { spiffe: ["spiffe://example.org/*"], dnsNames: ["a.test"] };
    expect(identityOf(new X509Certificate(der), allowed)).toBe("spiffe://example.org/a");
    let seed = 9_440;
    const next = (below: number): number => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
      return (seed >>> 8) % below;
    };
    let read = 0;
    for (let i = 0; i < 1_200; i += 1) {
      const bytes = Buffer.from(der);
      for (let n = next(3); n >= 0; n -= 1) bytes[next(bytes.length)] = next(256);
      let certificate: X509Certificate;
      try {
        certificate = new X509Certificate(bytes);
      } catch {
        continue;
      }
      read += 1;
      const identity = identityOf(certificate, allowed);
      expect(identity ?? "a.test").toMatch(
        /^(?:spiffe:\/\/example\.org\/[A-Za-z0-9._-]+|a\.test)$/,
      );
    }
    expect(read).toBeGreaterThan(300);
  });

  it.each([
    ["spiffe://example.org/*", true],
    ["spiffe://example.org", true],
    ["spiffe://example.org/a.b/c_d-e", true],
    ["spiffe://Example.org/a", false],
    ["spiffe:///a", false],
    ["spiffe://example.org/", false],
    ["spiffe://example.org/a/", false],
    ["spiffe://example.org//a", false],
    ["spiffe://example.org/./a", false],
    ["spiffe://example.org/../a", false],
    ["spiffe://example.org/..a", true],
    ["spiffe://example.org/a*", false],
    ["spiffe://example.org/*/a", false],
    ["spiffe://example.org:443/a", false],
    ["spiffe://user@example.org/a", false],
    ["spiffe://example.org/a?b", false],
    ["spiffe://example.org/a#b", false],
    ["spiffe://example.org/%61", false],
    ["https://example.org/a", false],
  ])("is wanted as %s: %s", (pattern, isOne) => {
    expect(isSpiffePattern(pattern)).toBe(isOne);
  });
});
