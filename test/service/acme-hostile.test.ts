/** An ACME server that is hostile, broken or out of reach: each answer is bounded, and nobody else is asked. */
import { generateKeyPairSync } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openAccount } from "../../service/acme/account.ts";
import { createPendingChallenges } from "../../service/acme/challenges.ts";
import { type IssuedCertificate, verifyIssued } from "../../service/acme/issued.ts";
import { orderCertificate } from "../../service/acme/order.ts";
import { createRenewal, type Renewal } from "../../service/acme/renewal.ts";
import { createAcmeSession } from "../../service/acme/session.ts";
import { isStileError, StileError } from "../../wire/index.ts";
import { type AcmeServer, type Script, startAcmeServer } from "../support/acme-server.ts";
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

async function order(
  script: Script,
  { directoryUrl = `${server.origin}/directory`, ca = files.ca } = {},
): Promise<IssuedCertificate> {
  server.script(script);
  victim.script({});
  waits = 0;
  const { signal } = new AbortController();
  const session = createAcmeSession({ directoryUrl, ca, accountKey, clock: Date.now, signal });
  try {
    return await orderCertificate({
      account: await openAccount({ session, key: accountKey, contact: [] }),
      names: ["localhost"],
      keyType: "ecdsa",
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

describe("renewal", () => {
  const dir = mkdtempSync(join(tmpdir(), "stile-renewal-"));
  afterAll(() => rmSync(dir, { recursive: true }));

  /** Fails in the ways that are given, one after the other. */
  function failing(errors: readonly unknown[]): { renewal: Renewal; clock: { nowMs: number } } {
    const clock = { nowMs: Date.parse("2026-01-01T00:00:00Z") };
    const left = [...errors];
    const wanted = { names: ["a.example"], keyType: "ecdsa", file: join(dir, "none.pem") } as const;
    const renewal = createRenewal({
      certificates: [wanted],
      issue: () => Promise.reject(left.shift()),
      onIssued: () => undefined,
      observe: () => undefined,
      clock: () => clock.nowMs,
      random: () => 0,
    });
    return { renewal, clock };
  }
  /** Seconds from each attempt to the next. */
  async function waitsAfter(errors: readonly unknown[]): Promise<number[]> {
    const { clock, renewal } = failing(errors);
    const seconds: number[] = [];
    for (let count = 0; count < errors.length; count += 1) {
      await renewal.look();
      const nextMs = Date.parse(renewal.status()[0]?.nextAttempt ?? "");
      seconds.push((nextMs - clock.nowMs) / 1_000);
      clock.nowMs = nextMs;
    }
    return seconds;
  }
  const error = (code: "SERVICE_ACME_UNAVAILABLE" | "SERVICE_ACME_REFUSED", after?: number) =>
    new StileError(code, "x", after === undefined ? {} : { retryAfterSeconds: after });

  it("comes back later after each failure, up to six hours", async () => {
    const unavailable = Array.from({ length: 11 }, () => error("SERVICE_ACME_UNAVAILABLE"));
    expect(await waitsAfter(unavailable)).toEqual([
      60, 120, 240, 480, 960, 1_920, 3_840, 7_680, 15_360, 21_600, 21_600,
    ]);
    const refused = Array.from({ length: 3 }, () => error("SERVICE_ACME_REFUSED"));
    expect(await waitsAfter(refused)).toEqual([300, 600, 1_200]);
    expect(await waitsAfter([new Error("SECRET")])).toEqual([60]);
    const { renewal } = failing([new Error("SECRET")]);
    await renewal.look();
    expect(renewal.status()[0]).toMatchObject({ state: "missing", reason: "internal" });
  });

  it("never comes before the server's Retry-After, however it says it", async () => {
    expect(await waitsAfter([error("SERVICE_ACME_REFUSED", 86_400)])).toEqual([86_400]);
    expect(await waitsAfter([error("SERVICE_ACME_REFUSED", 1)])).toEqual([300]);
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

  it("orders nothing anew where a certificate cannot be written: it keeps that and tries to write it", async () => {
    const folder = join(dir, "gone");
    const file = join(folder, "a.pem");
    let orders = 0;
    let nowMs = Date.now();
    const renewal = createRenewal({
      certificates: [{ names: ["localhost"], keyType: "ecdsa", file }],
      issue: () => {
        orders += 1;
        const chain = readFileSync(files.certificateFile);
        return Promise.resolve(
          verifyIssued(chain, readFileSync(files.keyFile, "utf8"), ["localhost"], nowMs),
        );
      },
      onIssued: () => undefined,
      observe: () => undefined,
      clock: () => nowMs,
      random: () => 0,
    });
    await renewal.look();
    expect(renewal.status()[0]).toMatchObject({ state: "missing", reason: "internal" });
    mkdirSync(folder);
    nowMs = Date.parse(renewal.status()[0]?.nextAttempt ?? "");
    await renewal.look();
    expect(renewal.status()[0]?.state).toBe("valid");
    expect([orders, readFileSync(file, "utf8").includes("PRIVATE KEY")]).toEqual([1, true]);
  });

  it("makes one attempt at a time", async () => {
    let attempts = 0;
    const renewal = createRenewal({
      certificates: [{ names: ["a.example"], keyType: "ecdsa", file: join(dir, "none.pem") }],
      issue: async () => {
        attempts += 1;
        await new Promise((resolve) => setImmediate(resolve));
        throw error("SERVICE_ACME_REFUSED");
      },
      onIssued: () => undefined,
      observe: () => undefined,
      clock: () => 0,
      random: () => 0.5,
    });
    await Promise.all([renewal.look(), renewal.look(), renewal.look()]);
    expect(attempts).toBe(1);
  });
});
