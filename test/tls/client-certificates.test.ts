/**
 * Client certificates by server name: openssl's certificates, lists and clients, curl and gnutls-cli. Who is asked,
 * who is let in, what is revoked, and what a connection counts for. It pins what of Node is not documented.
 */
import { execFile, spawnSync } from "node:child_process";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect, type TLSSocket } from "node:tls";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import {
  type ClientCertificateRule,
  type ClientCertificates,
  createClientCertificates,
  createListener,
  DEFAULT_LISTENER_LIMITS,
  fileCertificates,
} from "../../tls/index.ts";
import { isStileError } from "../../wire/index.ts";
import { type Issue, type IssuedFiles, opensslCa, type OpensslCa } from "../support/openssl-ca.ts";
import { codeOf } from "../support/reject.ts";
import { readAll, readUntil } from "../support/tls-edge.ts";

const ID = "spiffe://example.org/ns/prod/web";
const dir = mkdtempSync(join(tmpdir(), "stile-clients-"));
let server: OpensslCa;
let ca: OpensslCa;
let stranger: OpensslCa;
let serverFiles: IssuedFiles;
const closers: (() => Promise<void> | void)[] = [];

beforeAll(() => {
  server = opensslCa("server ca");
  const names = ["need", "may", "open", "other"].map((name) => `DNS:${name}.test`).join(",");
  serverFiles = server.issue({ name: "server", subjectAltName: names });
  ca = opensslCa("client ca");
  stranger = opensslCa("client ca");
});
afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});
afterAll(() => {
  for (const one of [server, ca, stranger]) one.remove();
  rmSync(dir, { recursive: true });
});

const svid = (fields: Partial<Issue> = {}, from: OpensslCa = ca): IssuedFiles =>
  from.issue({
    name: "workload",
    subjectAltName: `URI:${ID}`,
    extendedKeyUsage: "clientAuth",
    ...fields,
  });

interface Edge {
  readonly port: number;
  readonly clients: ClientCertificates;
  readonly events: string[];
  /** Requests that reached the handler and were not refused. */
  readonly served: string[];
}

/** `allow: undefined` is a rule without it. */
type Rule = Partial<Omit<ClientCertificateRule, "allow">> & {
  readonly allow?: ClientCertificateRule["allow"] | undefined;
};

function ruleOf({ allow, ...rule }: Rule): ClientCertificateRule {
  return {
    name: "workloads",
    hosts: ["need.test"],
    mode: "required",
    caFile: ca.caFile,
    ...rule,
    ...(allow === undefined ? {} : { allow }),
  };
}

const PROD: Rule = { allow: { spiffe: ["spiffe://example.org/ns/prod/*"] } };

async function start(rules: readonly Rule[] = [{}], clock: () => number = Date.now): Promise<Edge> {
  const events: string[] = [];
  const served: string[] = [];
  const clients = createClientCertificates({
    rules: rules.map((rule) => ruleOf({ ...PROD, ...rule })),
    pollMs: 60_000,
    clock,
    observe: (event, rule, reason) => events.push([event, rule, reason ?? ""].join(" ").trim()),
  });
  const certificates = fileCertificates({
    ...serverFiles,
    pollMs: 60_000,
    clock: Date.now,
    observe: () => undefined,
  });
  const listener = createListener({
    certificates,
    clients,
    unknownName: "refuse",
    limits: DEFAULT_LISTENER_LIMITS,
    handler: (request, response) => answer(clients, request, response, served),
    upgrade: (_request, socket) => socket.destroy(),
    observe: () => undefined,
  });
  const { port } = await listener.listen({ host: "127.0.0.1", port: 0 });
  closers.push(async () => {
    clients.close();
    certificates.close();
    await listener.drain(0);
  });
  return { port, clients, events, served };
}

function answer(
  clients: ClientCertificates,
  { headers, socket }: IncomingMessage,
  response: ServerResponse,
  served: string[],
): void {
  try {
    const client = clients.clientOf(headers.host ?? "", socket);
    served.push(client?.identity ?? "anonymous");
    response.end(`client=${client?.identity ?? "anonymous"}`);
  } catch (error) {
    response.statusCode = 421;
    response.end(isStileError(error) ? error.code : String(error));
  }
}

function open(port: number, servername: string, files?: IssuedFiles): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const identity = files && {
      cert: readFileSync(files.certificateFile),
      key: readFileSync(files.keyFile),
    };
    const at = { host: "127.0.0.1", port, servername, ca: server.pem, ...identity };
    const socket = connect({ ...at, checkServerIdentity: () => undefined }, () => resolve(socket));
    socket.once("error", reject);
  });
}

const request = (host: string): string => `GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`;
const lastRequest = (host: string): string =>
  `GET / HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`;

/** What a client with a certificate gets; empty where the connection ends without an answer. */
async function ask(edge: Edge, servername: string, files?: IssuedFiles): Promise<string> {
  const socket = await open(edge.port, servername, files);
  socket.on("error", () => undefined);
  const all = readAll(socket);
  socket.write(lastRequest(servername));
  return (await all).split("\r\n\r\n")[1]?.replace(/^[0-9a-f]+\r\n|\r\n0$/g, "") ?? "";
}

/** Output of a client program, whatever it ends with. */
function run(program: string, args: readonly string[], input = ""): Promise<string> {
  return new Promise((resolve) => {
    const child = execFile(program, args, { timeout: 10_000 }, (_error, stdout, stderr) =>
      resolve(`${stdout}\n${stderr}`),
    );
    child.stdin?.on("error", () => undefined);
    // Its end is that of the connection.
    child.stdin?.write(input);
  });
}

const isMissing = (program: string): boolean => {
  const missing = spawnSync(program, ["--version"]).error !== undefined;
  if (missing) console.warn(`${program} is not installed: its test is left out`);
  return missing;
};

const sClient = (edge: Edge, name: string, more: readonly string[] = []): Promise<string> =>
  run(
    "openssl",
    ["s_client", "-connect", `127.0.0.1:${edge.port}`, "-servername", name, "-ign_eof", ...more],
    lastRequest(name),
  );

describe("who is asked for a certificate", () => {
  it("is who connects to a host that wants one, and nobody else, as openssl sees it", async () => {
    const edge = await start([{}, { name: "maybe", hosts: ["may.test"], mode: "optional" }]);
    const asked = "Acceptable client certificate CA names";
    const [need, may, other] = await Promise.all(
      ["need.test", "may.test", "open.test"].map((name) => sClient(edge, name)),
    );
    expect(need).toContain(`${asked}\nCN = client ca`);
    expect(may).toContain(`${asked}\nCN = client ca`);
    expect(may).toContain("client=anonymous");
    expect(other).toContain("No client certificate CA names sent");
    expect(other).not.toContain("Requested Signature Algorithms");
    expect(other).toContain("client=anonymous");
    expect(await sClient(edge, "need.test", ["-noservername"])).not.toContain(asked);
  });

  it("gets the alert certificate_required where it has none, and reaches nothing", async () => {
    const edge = await start();
    expect(await sClient(edge, "need.test")).toContain("alert certificate required");
    const url = `https://need.test:${edge.port}/`;
    const at = ["-sS", "--resolve", `need.test:${edge.port}:127.0.0.1`, "--cacert", server.caFile];
    expect(await run("curl", [...at, url])).toContain("certificate required");
    expect(edge.served).toEqual([]);
    const { certificateFile, keyFile } = svid();
    const with_ = ["--cert", certificateFile, "--key", keyFile];
    expect(await run("curl", [...at, ...with_, url])).toContain(`client=${ID}`);
    expect(edge.served).toEqual([ID]);
  });

  it.skipIf(isMissing("gnutls-cli"))("is let in by GnuTLS as by OpenSSL", async () => {
    const edge = await start();
    const { certificateFile, keyFile } = svid();
    const gnutls = ["--x509cafile", server.caFile, "--sni-hostname", "need.test"];
    gnutls.push("--verify-hostname", "need.test", "-p", String(edge.port), "127.0.0.1");
    gnutls.push("--x509certfile", certificateFile, "--x509keyfile", keyFile);
    expect(await run("gnutls-cli", gnutls, lastRequest("need.test"))).toContain(`client=${ID}`);
  });
});

describe("a certificate", () => {
  const past = { from: "20200101000000Z", to: "20200201000000Z" };
  const ahead = { from: "20900101000000Z", to: "20910101000000Z" };

  it("is let in by its SPIFFE ID, URI or DNS name, or as any of its CA's by its fingerprint", async () => {
    const one = svid({ subjectAltName: `URI:https://x.test/a,URI:urn:b,DNS:W1.jobs.test` });
    const asked = async (rule: Rule, files: IssuedFiles): Promise<string> =>
      ask(await start([rule]), "need.test", files);
    expect(await asked({}, svid())).toBe(`client=${ID}`);
    expect(await asked({ allow: { spiffe: [ID] } }, svid())).toBe(`client=${ID}`);
    expect(await asked({ allow: { uris: ["urn:b"] } }, one)).toBe("client=urn:b");
    expect(await asked({ allow: { dnsNames: ["*.jobs.test"] } }, one)).toBe("client=w1.jobs.test");
    const socket = await open((await start([{ allow: undefined }])).port, "need.test", one);
    socket.write(request("need.test"));
    expect(await readUntil(socket, "client=")).toMatch(/client=sha256:[0-9a-f]{64}/);
    socket.destroy();
  });

  it("counts for none where it is refused, or ends the connection, and says why to the operator alone", async () => {
    const certificates: Readonly<Record<string, IssuedFiles>> = {
      "not allowed": svid({ subjectAltName: "URI:spiffe://example.org/ns/production/web" }),
      "of another domain": svid({ subjectAltName: "URI:spiffe://example.com/ns/prod/web" }),
      "of the prefix alone": svid({ subjectAltName: "URI:spiffe://example.org/ns/prod" }),
      "with a dot segment": svid({ subjectAltName: "URI:spiffe://example.org/ns/prod/../x" }),
      "with an empty segment": svid({ subjectAltName: "URI:spiffe://example.org/ns/prod/" }),
      "with a query": svid({ subjectAltName: "URI:spiffe://example.org/ns/prod/web?x" }),
      "in capitals": svid({ subjectAltName: "URI:SPIFFE://example.org/ns/prod/web" }),
      "with two URIs": svid({ subjectAltName: `URI:${ID},URI:https://example.org/` }),
      "with its ID as a DNS name": svid({ subjectAltName: "DNS:example.org" }),
      "without names": ca.issue({ name: "web.example.org", extendedKeyUsage: "clientAuth" }),
      "that signs certificates": svid({ keyUsage: "digitalSignature, keyCertSign" }),
      "of a CA": svid({ isCa: true, keyUsage: "digitalSignature, keyCertSign" }),
      "for servers": svid({ extendedKeyUsage: "serverAuth" }),
      "for any use that it does not name": ca.issue({ name: "x", subjectAltName: `URI:${ID}` }),
      "that has ended": svid(past),
      "that has not begun": svid(ahead),
      "of another CA with the same name": svid({}, stranger),
    };
    const edge = await start([{}, { name: "maybe", hosts: ["may.test"], mode: "optional" }]);
    for (const [what, files] of Object.entries(certificates)) {
      edge.events.length = 0;
      expect(await ask(edge, "need.test", files).catch(() => ""), what).toBe("");
      expect(await ask(edge, "may.test", files), what).toBe("client=anonymous");
      expect(edge.events.length, what).toBe(2);
      for (const event of edge.events) {
        expect(event, what).toMatch(/^client-certificate-refused (?:workloads|maybe) [A-Za-z_ ]+$/);
      }
    }
    expect(edge.served.filter((client) => client !== "anonymous")).toEqual([]);
    expect(await ask(edge, "may.test", svid())).toBe(`client=${ID}`);
  });

  it("is let in over an intermediate that the client sends, and not without it", async () => {
    const intermediate = opensslCa("intermediate", ca);
    closers.push(() => intermediate.remove());
    const leaf = svid({}, intermediate);
    const chain = join(dir, "chain.pem");
    writeFileSync(chain, readFileSync(leaf.certificateFile, "utf8") + intermediate.pem);
    const edge = await start();
    expect(await ask(edge, "need.test", leaf).catch(() => "")).toBe("");
    expect(await ask(edge, "need.test", { ...leaf, certificateFile: chain })).toBe(`client=${ID}`);
  });
});

describe("a connection", () => {
  it("counts for the name of its handshake: other hosts' requests get 421 and no client", async () => {
    const edge = await start([
      {},
      {
        name: "maybe",
        hosts: ["may.test", "other.test"],
        mode: "optional",
        caFile: stranger.caFile,
      },
    ]);
    const files = svid();
    for (const [servername, host, status] of [
      ["open.test", "need.test", 421],
      ["open.test", "may.test", 421],
      ["need.test", "may.test", 421],
      ["need.test", "open.test", 421],
      ["may.test", "need.test", 421],
      // Of one rule.
      ["may.test", "other.test", 200],
      ["need.test", "need.test:8443", 200],
      ["NEED.test.", "need.test", 200],
    ] as const) {
      const socket = await open(edge.port, servername, files);
      socket.write(request(host));
      const all = await readUntil(socket, status === 421 ? "TLS_CLIENT_MISDIRECTED" : "client=");
      expect(all, `${servername} ${host}`).toContain(`HTTP/1.1 ${status} `);
      socket.destroy();
    }
  });

  it("is never resumed, so that nothing is taken over from another one", async () => {
    const edge = await start();
    const { certificateFile, keyFile } = svid();
    const session = join(dir, "session.pem");
    const first = ["-cert", certificateFile, "-key", keyFile, "-sess_out", session];
    expect(await sClient(edge, "need.test", first)).toContain(`client=${ID}`);
    const again = await sClient(edge, "need.test", ["-sess_in", session]);
    expect(again).not.toContain("Reused");
    expect(again).toContain("alert certificate required");
    expect(await sClient(edge, "open.test", ["-sess_out", session])).toContain("client=anonymous");
    const other = await sClient(edge, "open.test", ["-sess_in", session]);
    expect(other).toContain("New, TLSv1.3");
  });
});

describe("revocation", () => {
  const copy = (file: string, name: string): string => {
    copyFileSync(file, join(dir, name));
    return join(dir, name);
  };

  it("ends what a certificate is good for, in open connections too, as soon as the list is read", async () => {
    const own = opensslCa("own ca");
    closers.push(() => own.remove());
    const [good, bad] = [svid({ name: "good" }, own), svid({ name: "bad" }, own)];
    const crlFile = copy(own.crl("a.crl"), "list.pem");
    const edge = await start([{ caFile: own.caFile, crlFile }]);
    expect(await ask(edge, "need.test", bad)).toBe(`client=${ID}`);
    const held = await open(edge.port, "need.test", bad);
    held.write(request("need.test"));
    await readUntil(held, `client=${ID}`);
    own.revoke(bad.certificateFile);
    copy(own.crl("b.crl"), "list.pem");
    edge.clients.reload();
    held.write(request("need.test"));
    expect(await readUntil(held, "TLS_CLIENT")).toContain("TLS_CLIENT_MISDIRECTED");
    held.destroy();
    expect(await ask(edge, "need.test", bad).catch(() => "")).toBe("");
    expect(await ask(edge, "need.test", good)).toBe(`client=${ID}`);
    expect(edge.events).toContain("client-ca-reloaded workloads");
    expect(edge.events).toContain("client-certificate-refused workloads CERT_REVOKED");
  });

  it("keeps the list that it has where a new one is broken, foreign, out of date or incomplete", async () => {
    const own = opensslCa("own ca");
    closers.push(() => own.remove());
    const [good, bad] = [svid({ name: "good" }, own), svid({ name: "bad" }, own)];
    own.revoke(bad.certificateFile);
    const crlFile = copy(own.crl("a.crl"), "kept.pem");
    const edge = await start([{ caFile: own.caFile, crlFile }]);
    const sound = readFileSync(crlFile, "utf8");
    const forged = Buffer.from(sound.replaceAll(/-----[^-]+-----/g, ""), "base64");
    forged[forged.length - 3] = (forged[forged.length - 3] ?? 0) ^ 1;
    const old = ["-crl_lastupdate", "20200101000000Z", "-crl_nextupdate", "20200201000000Z"];
    const ahead = ["-crl_lastupdate", "20900101000000Z", "-crl_nextupdate", "20910201000000Z"];
    const pem = (der: Uint8Array): string =>
      `-----BEGIN X509 CRL-----\n${Buffer.from(der).toString("base64")}\n-----END X509 CRL-----\n`;
    const lists: Readonly<Record<string, string>> = {
      "no CRL, or too many": "nothing",
      "a CRL that is not DER": pem(Buffer.concat([forged, Buffer.of(0)])),
      "a CRL that cannot be read": pem(Buffer.of(0x30, 0x00)),
      "a CRL that none of the CAs has signed": pem(forged),
      "a CRL that is out of date": readFileSync(own.crl("c.crl", old), "utf8"),
      "a CRL that is not valid yet": readFileSync(own.crl("d.crl", ahead), "utf8"),
    };
    for (const [reason, list] of Object.entries(lists)) {
      edge.events.length = 0;
      writeFileSync(crlFile, list);
      edge.clients.reload();
      expect(edge.events).toEqual([`client-ca-failed workloads ${reason}`]);
    }
    writeFileSync(crlFile, readFileSync(stranger.crl("e.crl"), "utf8"));
    edge.clients.reload();
    expect(edge.events.at(-1)).toContain("none of the CAs has signed");
    rmSync(crlFile);
    edge.clients.reload();
    expect(edge.events.at(-1)).toBe("client-ca-failed workloads a file cannot be read");
    expect(await ask(edge, "need.test", bad).catch(() => "")).toBe("");
    expect(await ask(edge, "need.test", good)).toBe(`client=${ID}`);
  });

  it("refuses everybody once its list has ended, by OpenSSL's clock and, in open connections, by ours", async () => {
    const own = opensslCa("own ca");
    closers.push(() => own.remove());
    const ended = ["-crl_lastupdate", "20200101000000Z", "-crl_nextupdate", "20200201000000Z"];
    const then = Date.UTC(2020, 0, 15);
    const crlFile = own.crl("a.crl", ended);
    const edge = await start([{ caFile: own.caFile, crlFile }], () => then);
    expect(await ask(edge, "need.test", svid({}, own)).catch(() => "")).toBe("");
    expect(edge.events).toEqual(["client-certificate-refused workloads CRL_HAS_EXPIRED"]);
    let now = Date.now();
    const current = own.crl("b.crl");
    const next = await start([{ caFile: own.caFile, crlFile: current }], () => now);
    const held = await open(next.port, "need.test", svid({}, own));
    held.write(request("need.test"));
    await readUntil(held, `client=${ID}`);
    now += 8 * 86_400_000;
    held.write(request("need.test"));
    expect(await readUntil(held, "TLS_CLIENT")).toContain("421");
    held.destroy();
  });

  it("wants a list of each CA of a path", async () => {
    const intermediate = opensslCa("intermediate", ca);
    closers.push(() => intermediate.remove());
    const leaf = svid({}, intermediate);
    const caFile = join(dir, "cas.pem");
    const crlFile = join(dir, "crls.pem");
    writeFileSync(caFile, ca.pem + intermediate.pem);
    const [first, second] = [ca.crl("r.crl"), intermediate.crl("i.crl")].map((file) =>
      readFileSync(file, "utf8"),
    );
    writeFileSync(crlFile, String(first));
    await expect(start([{ caFile, crlFile }])).rejects.toMatchObject({
      code: "TLS_CLIENT_CA_INVALID",
      message: expect.stringContaining("no CRL of one of the CAs") as string,
    });
    writeFileSync(crlFile, `${first}${second}`);
    expect(await ask(await start([{ caFile, crlFile }]), "need.test", leaf)).toBe(`client=${ID}`);
    intermediate.revoke(leaf.certificateFile);
    writeFileSync(crlFile, `${first}${readFileSync(intermediate.crl("j.crl"), "utf8")}`);
    const edge = await start([{ caFile, crlFile }]);
    expect(await ask(edge, "need.test", leaf).catch(() => "")).toBe("");
  });
});

describe("files of client CAs", () => {
  it("rejects what cannot be used at the start with TLS_CLIENT_CA_INVALID", () => {
    const leaf = svid().certificateFile;
    const intermediate = opensslCa("intermediate", ca);
    closers.push(() => intermediate.remove());
    for (const caFile of [join(dir, "missing"), leaf, intermediate.caFile, serverFiles.keyFile]) {
      expect(
        codeOf(() =>
          createClientCertificates({
            rules: [{ name: "r", hosts: ["need.test"], mode: "required", caFile }],
            pollMs: 60_000,
            clock: Date.now,
            observe: () => undefined,
          }),
        ),
        caFile,
      ).toBe("TLS_CLIENT_CA_INVALID");
    }
  });
});
