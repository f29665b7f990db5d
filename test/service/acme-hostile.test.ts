/** An ACME server that is hostile, broken or out of reach: each answer is bounded, and nobody else is asked. */
import { execFileSync } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openAccount } from "../../service/acme/account.ts";
import { createPendingChallenges } from "../../service/acme/challenges.ts";
import { type IssuedCertificate, verifyIssued } from "../../service/acme/issued.ts";
import { orderCertificate } from "../../service/acme/order.ts";
import { certificateId, fetchRenewalInfo } from "../../service/acme/renewal-info.ts";
import { type AcmeSession, createAcmeSession } from "../../service/acme/session.ts";
import { isStileError } from "../../wire/index.ts";
import {
  type AcmeServer,
  type Script,
  type ScriptedAnswer,
  startAcmeServer,
} from "../support/acme-server.ts";
import { codeOf } from "../support/reject.ts";
import { type TestCertificates, testCertificates } from "../support/tls-edge.ts";

const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const accountKey = { privateKey, publicKey, keyId: "" };
const TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";
let files: TestCertificates;
let server: AcmeServer;
/** Of somebody else: nothing may reach it. */
let victim: AcmeServer;
let waits = 0;
const pendingDir = mkdtempSync(join(tmpdir(), "stile-pending-"));
afterAll(() => rmSync(pendingDir, { recursive: true }));

beforeAll(async () => {
  files = await testCertificates();
  server = await startAcmeServer(files);
  victim = await startAcmeServer(files);
});
afterAll(async () => {
  await server.close();
  await victim.close();
  files.remove();
});

interface Asked {
  readonly directoryUrl?: string;
  readonly ca?: string;
  readonly replaces?: string;
}

function newSession({ directoryUrl, ca }: Asked = {}): AcmeSession {
  return createAcmeSession({
    directoryUrl: directoryUrl ?? `${server.origin}/directory`,
    ca: ca ?? files.ca,
    accountKey,
    clock: Date.now,
    signal: new AbortController().signal,
  });
}

async function order(script: Script, asked: Asked = {}): Promise<IssuedCertificate> {
  server.script(script);
  victim.script({});
  waits = 0;
  const session = newSession(asked);
  try {
    return await orderCertificate({
      account: await openAccount({ session, key: accountKey, contact: [] }),
      names: ["localhost"],
      keyType: "ecdsa",
      replaces: asked.replaces,
      challengeType: "http-01",
      pending: await createPendingChallenges(pendingDir, Date.now),
      clock: Date.now,
      wait: () => Promise.resolve(void (waits += 1)),
    });
  } finally {
    session.close();
    expect(victim.asked).toEqual([]);
  }
}

/** Code and reason. */
async function refusal(...args: Parameters<typeof order>): Promise<string> {
  const error: unknown = await order(...args).catch((cause: unknown) => cause);
  return isStileError(error) ? `${error.code}: ${error.message}` : `not refused: ${String(error)}`;
}

const problem = (word: string, headers: Record<string, string> = {}, status = 403): object => ({
  status,
  headers,
  body: { type: `urn:ietf:params:acme:error:${word}`, detail: "SECRET", status },
});
const challenge = (changes: object = {}, name = "localhost"): Script => ({
  "/authorization": {
    body: {
      status: "pending",
      identifier: { type: "dns", value: name },
      challenges: [
        { type: "http-01", url: `${server.origin}/challenge`, token: TOKEN, ...changes },
      ],
    },
  },
});

describe("an ACME server", () => {
  it("is asked only where its own name is verified", async () => {
    const other = await testCertificates();
    expect(await refusal({}, { ca: other.ca })).toMatch(/^SERVICE_ACME_UNAVAILABLE/);
    other.remove();
    expect(server.asked).toEqual([]);
    const closed = { directoryUrl: "https://localhost:1/directory" };
    expect(await refusal({}, closed)).toMatch(/^SERVICE_ACME_UNAVAILABLE: .*cannot be reached/);
  });

  it("sends nobody elsewhere: not by redirects, and not by any URL that it names", async () => {
    const location = { location: `${victim.origin}/directory` };
    expect(await refusal({ "/directory": { status: 302, headers: location } })).toMatch(
      /^SERVICE_ACME_REFUSED/,
    );
    const good = (path: string): string => `${server.origin}${path}`;
    const directory = {
      newNonce: good("/nonce"),
      newAccount: good("/account"),
      newOrder: good("/new-order"),
    };
    const bodyOf = (changes: object): object => ({
      status: "ready",
      authorizations: [],
      finalize: good("/finalize"),
      ...changes,
    });
    const at = { location: good("/order") };
    const scripts = (elsewhere: string): Script[] => [
      { "/directory": { body: { ...directory, newNonce: elsewhere } } },
      { "/directory": { body: { ...directory, newAccount: elsewhere } } },
      { "/directory": { body: { ...directory, newOrder: elsewhere } } },
      { "/account": { status: 201, headers: { location: elsewhere } } },
      { "/new-order": { status: 201, headers: { location: elsewhere }, body: bodyOf({}) } },
      {
        "/new-order": { status: 201, headers: at, body: bodyOf({ authorizations: [elsewhere] }) },
      },
      challenge({ url: elsewhere }),
      { "/order": { body: bodyOf({ finalize: elsewhere }) } },
      { "/order": { body: bodyOf({ status: "valid", certificate: elsewhere }) } },
    ];
    const { host } = new URL(server.origin);
    for (const elsewhere of [
      `${victim.origin}/x`,
      `http://${host}/x`,
      `https://${host}@${new URL(victim.origin).host}/x`,
      "file:///etc/passwd",
      "/relative",
    ]) {
      for (const script of scripts(elsewhere)) {
        expect(await refusal(script), JSON.stringify(script)).toMatch(/^SERVICE_ACME_/);
      }
    }
  });

  it("cannot keep the client busy: nonces, polls, and answers that are none", async () => {
    const badNonce = problem("badNonce", {}, 400);
    expect(await refusal({ "/account": badNonce })).toBe(
      "SERVICE_ACME_REFUSED: the ACME server refuses: badNonce",
    );
    expect(server.asked.filter((path) => path === "/account")).toHaveLength(10);
    const endless = { "/order": { body: { status: "pending" } } };
    expect(await refusal(endless)).toMatch(/^SERVICE_ACME_UNAVAILABLE.*come to an end/);
    expect(waits).toBe(30);
    for (const body of ["", "[]", "null", "<html>", '{"newNonce":1}']) {
      expect(await refusal({ "/directory": { body } })).toMatch(/^SERVICE_ACME_UNAVAILABLE/);
    }
    expect(await refusal({ "/nonce": { headers: { "replay-nonce": "a b" } } })).toMatch(
      /^SERVICE_ACME_UNAVAILABLE.*no nonce/,
    );
    expect(await refusal({ "/new-order": { status: 503 } })).toMatch(/^SERVICE_ACME_UNAVAILABLE/);
  });

  it("takes a badNonce once and goes on", async () => {
    const script: Script = {
      "/new-order": (asked) =>
        asked === 0
          ? problem("badNonce", {}, 400)
          : {
              status: 201,
              headers: { location: `${server.origin}/order` },
              body: { authorizations: [] },
            },
    };
    // As far as the certificate, which is for another key.
    expect(await refusal(script)).toMatch(/^SERVICE_ACME_CERTIFICATE_INVALID/);
    expect(server.asked.filter((path) => path === "/new-order")).toHaveLength(2);
  });

  it("is quoted in registered words only", async () => {
    expect(await refusal({ "/new-order": problem("rejectedIdentifier") })).toBe(
      "SERVICE_ACME_REFUSED: the ACME server refuses: rejectedIdentifier",
    );
    for (const hostile of ["x\n{}", "", "a".repeat(100), "a b"]) {
      expect(await refusal({ "/new-order": problem(hostile) })).toMatch(/refuses: unknown$/);
    }
    const failed = {
      "/order": { body: { status: "invalid", error: { type: "urn:ietf:params:acme:error:caa" } } },
    };
    expect(await refusal(failed)).toBe(
      "SERVICE_ACME_REFUSED: the ACME server gives up an order: caa",
    );
  });

  it("gets no proof of other names, of odd tokens, or by other challenges", async () => {
    expect(await refusal(challenge({}, "other.example"))).toMatch(/name that was not ordered/);
    for (const token of ["", "../../x", "short", `${TOKEN}.x`, 7, "a".repeat(300)]) {
      expect(await refusal(challenge({ token }))).toMatch(/^SERVICE_ACME_UNAVAILABLE.*token/);
    }
    expect(await refusal(challenge({ type: "dns-01" }))).toBe(
      "SERVICE_ACME_CHALLENGE_FAILED: the ACME server could not validate localhost: no http-01 is offered",
    );
    expect(server.asked).not.toContain("/challenge");
    const many = Array.from({ length: 2 }, () => `${server.origin}/authorization`);
    const body = { status: "pending", authorizations: many };
    const headers = { location: `${server.origin}/order` };
    expect(await refusal({ "/new-order": { status: 201, headers, body } })).toMatch(/malformed/);
  });
});

describe("Retry-After of an ACME server", () => {
  it("is read in both forms, bounded, and supposed where a limit is said without it", async () => {
    const limited = async (headers: Record<string, string>): Promise<number> => {
      const script = { "/new-order": problem("rateLimited", headers, 429) };
      const refused: unknown = await order(script).catch((cause: unknown) => cause);
      return isStileError(refused, "SERVICE_ACME_REFUSED") ? (refused.retryAfterSeconds ?? 0) : -1;
    };
    expect(await limited({ "retry-after": "7200" })).toBe(7_200);
    expect(await limited({})).toBe(3_600);
    expect(await limited({ "retry-after": "soon" })).toBe(3_600);
    expect(await limited({ "retry-after": "999999999" })).toBe(7 * 86_400);
    const date = new Date(Date.now() + 5_000_000).toUTCString();
    expect(Math.abs((await limited({ "retry-after": date })) - 5_000)).toBeLessThan(10);
  });
});

describe("renewal information (RFC 9773)", () => {
  const withInfo = (): Script => ({
    "/directory": {
      body: Object.fromEntries(
        [
          ["newNonce", "/nonce"],
          ["newAccount", "/account"],
          ["newOrder", "/new-order"],
          ["renewalInfo", "/renewal-info"],
        ].map(([name, path]) => [name, `${server.origin}${path}`]),
      ),
    },
  });
  const replaces = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE";
  const ordered = (): unknown => server.payloads["/new-order"];

  it("has the order say what it replaces, at servers that ask for it and at no other", async () => {
    await order(withInfo(), { replaces }).catch(() => undefined);
    expect(ordered()).toEqual({ identifiers: [{ type: "dns", value: "localhost" }], replaces });
    await order(withInfo()).catch(() => undefined);
    expect(ordered()).not.toHaveProperty("replaces");
    await order({}, { replaces }).catch(() => undefined);
    expect(ordered()).not.toHaveProperty("replaces");
  });

  it("is asked for by the identifier that the RFC gives, and believed only where it makes sense", async () => {
    const authority = "DER:3016801469885B6B87464041E1B37B847BA0AE2CDE01C8D4";
    const extension = ["-addext", `authorityKeyIdentifier=${authority}`];
    const serial = ["-set_serial", "0x87654321", "-subj", "/CN=a", "-keyout", "/dev/null"];
    const made = ["req", "-x509", "-nodes", "-newkey", "rsa:2048", ...serial, ...extension];
    const pem = execFileSync("openssl", made, { stdio: ["ignore", "pipe", "ignore"] }).toString();
    expect(certificateId(pem)).toBe(replaces);
    const path = `/renewal-info/${replaces}`;
    const ask = async (answer: ScriptedAnswer): Promise<unknown> => {
      server.script({ ...withInfo(), [path]: answer });
      const session = newSession();
      try {
        return await fetchRenewalInfo(session, pem, Date.now());
      } catch (error) {
        return isStileError(error) ? error.code : error;
      } finally {
        session.close();
      }
    };
    const suggestedWindow = { start: "2026-01-02T04:00:00Z", end: "2026-01-03T04:00:00Z" };
    const headers = { "retry-after": "21600" };
    expect(await ask({ headers, body: { suggestedWindow } })).toEqual({
      startMs: Date.parse(suggestedWindow.start),
      endMs: Date.parse(suggestedWindow.end),
      retryAfterSeconds: 21_600,
    });
    expect(server.asked).toEqual(["/directory", path]);
    for (const body of [
      {},
      { suggestedWindow: { ...suggestedWindow, end: suggestedWindow.start } },
      { suggestedWindow: { start: "soon", end: "later" } },
      { suggestedWindow: { start: 1 } },
      "x",
    ]) {
      expect(await ask({ body })).toBeUndefined();
    }
    expect(await ask({ status: 404 })).toBe("SERVICE_ACME_REFUSED");
    server.script({ [path]: { body: { suggestedWindow } } });
    const session = newSession();
    expect(await fetchRenewalInfo(session, pem, Date.now())).toBeUndefined();
    session.close();
    expect(server.asked).toEqual(["/directory"]);
  });
});

describe("a certificate from an ACME server", () => {
  const read = (file: string): string => readFileSync(file, "utf8");
  const verify = (body: string, names = ["localhost"], nowMs = Date.now()): IssuedCertificate =>
    verifyIssued(Buffer.from(body), read(files.keyFile), names, nowMs);

  it("rejects one for another key, other names, one that has ended, and what is none", async () => {
    const cert = read(files.certificateFile);
    expect(await refusal({})).toMatch(/^SERVICE_ACME_CERTIFICATE_INVALID: .*another key$/);
    const codes = [
      () => verify(cert, ["localhost", "shop.example"]),
      () => verify(cert, ["localhost"], Date.now() + 400 * 86_400_000),
      () => verify(""),
      () => verify("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
      () => verify(cert.repeat(20)),
      () => verify(`${cert}${" ".repeat(70_000)}`),
    ].map((action) => codeOf(action));
    expect(new Set(codes)).toEqual(new Set(["SERVICE_ACME_CERTIFICATE_INVALID"]));
  });

  it("is kept without what else the server sent: no second key gets into its file", () => {
    const foreign = privateKey.export({ format: "pem", type: "pkcs8" });
    const { pem } = verify(`${foreign}\nhello\n${read(files.certificateFile)}${foreign}`);
    expect(pem.match(/BEGIN PRIVATE KEY/g)).toHaveLength(1);
    expect(pem).toContain(read(files.keyFile).trim());
    expect(pem).not.toContain("hello");
  });
});
