import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { configurationDocs } from "../../service/cli/config.ts";
import { configSchema, loadConfig } from "../../service/config/index.ts";
import { missingFixes } from "../../service/node-version.ts";
import { parseLocalListen } from "../../service/http/local-listen.ts";
import { codeOf } from "../support/reject.ts";

const dir = mkdtempSync(join(tmpdir(), "stile-config-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const GOOD = `
publicUrl: https://www.example.org
passphraseFile: /run/secrets/pass
tls: { certificateFile: /etc/tls.pem, keyFile: /etc/tls.key }
edge: { hosts: [www.example.org], issuerName: www.example.org, upstream: "http://127.0.0.1:8080" }
attester: { manufacturerRootsFile: /etc/roots.pem }
`;

function load(
  yaml: string,
  environment: Record<string, string> = {},
): ReturnType<typeof loadConfig> {
  const file = join(dir, "stile.yaml");
  writeFileSync(file, yaml);
  return loadConfig(file, environment);
}

function refusal(yaml: string, environment: Record<string, string> = {}): string {
  try {
    load(yaml, environment);
  } catch (error) {
    expect(error).toMatchObject({ code: "SERVICE_CONFIG_INVALID" });
    return (error as Error).message;
  }
  return "accepted";
}

describe("configuration", () => {
  it("fills in the documented defaults and is frozen", () => {
    const config = load(GOOD);
    expect(config.listen).toEqual({
      host: "::",
      port: 8443,
      trustedProxies: [],
      proxyProtocol: [],
      passthrough: [],
    });
    expect(config.edge?.clearanceSeconds).toBe(1800);
    expect(config.attester?.channelBinding).toBe("required");
    expect(() => Object.assign(config.edge ?? {}, { upstream: "x" })).toThrow(TypeError);
  });

  it("rejects unknown settings by their full path, also several at once", () => {
    const said = refusal(`${GOOD}\nsurprise: 1\nissuer: { maxBacth: 5 }`);
    expect(said).toContain("unknown setting surprise");
    expect(said).toContain("unknown setting issuer.maxBacth");
  });

  it("rejects missing settings, values out of range and of another type", () => {
    expect(refusal("publicUrl: https://x")).toContain("missing setting");
    expect(refusal(`${GOOD}\nissuer: { maxBatch: 0 }`)).toContain("issuer.maxBatch must be >= 1");
    expect(refusal(`${GOOD}\nlisten: { port: "8443" }`)).toContain("listen.port");
    expect(refusal(GOOD.replace("hosts: [www.example.org]", "hosts: []"))).toContain("edge.hosts");
    expect(refusal(GOOD.replace("attester: {", "attester: { channelBinding: off,"))).toContain(
      "channelBinding",
    );
  });

  it("serves type 2 alone unless told otherwise, and rejects types that are not known", () => {
    expect(load(GOOD).issuer).toMatchObject({ tokenTypes: [2], voprfEngine: "native" });
    const set = (types: string): string => `${GOOD}\nissuer: { tokenTypes: ${types} }`;
    expect(load(set("[5, 2, 1]")).issuer.tokenTypes).toEqual([5, 2, 1]);
    for (const wrong of ["[]", "[3]", "[2, 2]", "2", '["2"]']) {
      expect(refusal(set(wrong))).toContain("issuer.tokenTypes");
    }
    expect(refusal(`${GOOD}\nissuer: { voprfEngine: portable }`)).toContain("issuer.voprfEngine");
  });

  it("rejects YAML that is malformed, repeats a key, uses an alias or is no mapping", () => {
    expect(refusal("a: [")).toContain("stile.yaml");
    expect(refusal(`${GOOD}\npublicUrl: https://y`)).toMatch(/unique/i);
    expect(refusal(`x: &a 1\ny: *a\n`)).toMatch(/alias/i);
    expect(refusal("- 1")).toContain("expected settings by name");
    expect(codeOf(() => loadConfig(join(dir, "missing.yaml"), {}))).toBe("SERVICE_CONFIG_INVALID");
  });

  it("rejects settings of several processes that would have no effect", () => {
    const several = (more: string): string => `${GOOD}\nprocesses: { ${more} }`;
    expect(load(several("workers: 2")).processes).toMatchObject({ workers: 2, hangSeconds: 15 });
    expect(refusal(several("socketDir: /run/stile"))).toContain("processes.socketDir is for");
    expect(refusal(several("workers: -1"))).toContain("processes.workers");
  });

  it("takes settings of the environment over the file, and refuses unknown ones", () => {
    const config = load(GOOD, {
      STILE_EDGE__CLEARANCE_SECONDS: "60",
      STILE_LOG__LEVEL: "warn",
      HOME: "/x",
    });
    expect([config.edge?.clearanceSeconds, config.log.level]).toEqual([60, "warn"]);
    expect(refusal(GOOD, { STILE_EDGE__CLEARENCE: "60" })).toContain(
      "unknown setting edge.clearence",
    );
    expect(refusal(GOOD, { STILE_NOTHING: "1" })).toContain("unknown setting nothing");
  });

  const ACME =
    "acme: { directoryUrl: https://ca.example/dir, termsAgreed: true, certificates: [{ names: [www.example.org] }] }";
  const NO_FILES = GOOD.replace(/^tls:.*$/m, "");

  it("takes certificates from files, by ACME, or both", () => {
    expect(load(`${GOOD}\n${ACME}`).acme?.certificates[0]?.keyType).toBe("ecdsa");
    const { acme, tls } = load(`${NO_FILES}\n${ACME}`);
    expect([tls.certificateFile, tls.reloadSeconds, acme?.challenge]).toEqual([
      undefined,
      10,
      "tls-alpn-01",
    ]);
    const plain = "listen: { http: { port: 8080 } }";
    const http = ACME.replace("termsAgreed", "challenge: http-01, termsAgreed");
    expect(load(`${NO_FILES}\n${http}\n${plain}`).listen.http).toEqual({
      host: "::",
      port: 8080,
      maxConnections: 1_000,
      maxConnectionsPerAddress: 100,
    });
    expect(refusal(`${NO_FILES}\n${http}`)).toContain("acme.challenge http-01 needs listen.http");
    expect(refusal(NO_FILES)).toContain("missing setting tls.certificateFile");
    expect(refusal(GOOD.replace(", keyFile: /etc/tls.key", ""))).toContain(
      "missing setting tls.keyFile",
    );
    for (const alone of ["keyFile", "ocspFile"]) {
      const said = refusal(`${NO_FILES}\n${ACME}\ntls: { ${alone}: /x }`);
      expect(said).toContain(`tls.${alone} has no effect without tls.certificateFile`);
    }
  });

  it("rejects ACME without agreement, over plain HTTP, and for names that it cannot prove", () => {
    const set = (from: string, to: string): string =>
      refusal(`${NO_FILES}\n${ACME.replace(from, to)}`);
    expect(set("termsAgreed: true", "termsAgreed: false")).toContain("acme.termsAgreed");
    expect(set(" termsAgreed: true,", "")).toContain("missing setting acme.termsAgreed");
    expect(set("https://ca", "http://ca")).toContain("acme.directoryUrl");
    for (const name of ["'*.a.example'", "A.example", "1.2.3.4", "'a:1'", "../x", "''", "a_b.c"]) {
      expect(set("[www.example.org]", `[${name}]`), name).toContain("acme.certificates.0.names");
    }
    expect(set("[www.example.org]", "[a.b, a.b]")).toContain("acme.certificates.0.names");
  });

  it("rejects a time for a head that is longer than that for its request", () => {
    const limits = "limits: { headersSeconds: 30, requestSeconds: 20 }\n";
    expect(refusal(`${GOOD}${limits}`)).toContain("limits.headersSeconds");
  });

  it("says what every setting means, and the page in docs is current", () => {
    const check = (node: { properties?: object; description?: string }, path: string): void => {
      if (node.properties === undefined) {
        expect(node.description, path).toMatch(/\w{3}/);
        return;
      }
      for (const [name, inner] of Object.entries(node.properties))
        check(inner as object, `${path}.${name}`);
    };
    check(configSchema, "config");
    const page = readFileSync(join(import.meta.dirname, "../../docs/configuration.md"), "utf8");
    expect(page).toBe(configurationDocs());
  });
});

describe("the operator listener's address", () => {
  it("is loopback or a Unix socket", () => {
    expect(parseLocalListen("unix:/run/x.sock", "operator.listen")).toEqual({
      kind: "unix",
      path: "/run/x.sock",
    });
    expect(parseLocalListen("127.0.0.1:9443", "operator.listen")).toMatchObject({
      host: "127.0.0.1",
      port: 9443,
    });
    expect(parseLocalListen("[::1]:1", "operator.listen")).toMatchObject({ host: "::1" });
    expect(parseLocalListen("localhost:0", "operator.listen")).toMatchObject({ host: "localhost" });
    for (const bad of [
      "0.0.0.0:9443",
      "[::]:1",
      "192.168.1.1:1",
      "example.org:1",
      "127.0.0.1",
      "127.0.0.1:99999",
      "unix:x",
      "",
    ]) {
      expect(
        codeOf(() => parseLocalListen(bad, "operator.listen")),
        bad,
      ).toBe("SERVICE_CONFIG_INVALID");
    }
  });
});

describe("the running Node", () => {
  it("is warned about below the releases with the fixes", () => {
    expect(missingFixes(process.versions.node)).toBeUndefined();
    expect(missingFixes("26.12.1")).toBeUndefined();
    expect(missingFixes("26.13.0")).toBeUndefined();
    expect(missingFixes("28.0.0")).toBeUndefined();
    expect(missingFixes("26.12.0")).toContain("use 26.12.1");
    expect(missingFixes("26.10.0")).toContain("lacks security fixes");
    expect(missingFixes("24.22.3")).toContain("use 26.12.1");
  });
});
