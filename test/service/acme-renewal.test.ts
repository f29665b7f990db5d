/** When certificates are asked for, by a clock that the test turns: renewal, waits after failures, suggestions. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { subjectAltName } from "../../service/acme/csr.ts";
import { verifyIssued } from "../../service/acme/issued.ts";
import { createRenewal, type Renewal, type RenewalOptions } from "../../service/acme/renewal.ts";
import type { RenewalInfo } from "../../service/acme/renewal-info.ts";
import { newP256Keys, privateKeyPem, signCertificate } from "../../service/x509.ts";
import { StileError } from "../../wire/index.ts";
import { type TestCertificates, testCertificates } from "../support/tls-edge.ts";

const DAY_MS = 86_400_000;
const dir = mkdtempSync(join(tmpdir(), "stile-renewal-"));
let files: TestCertificates;
let issues = 0;

beforeAll(async () => {
  files = await testCertificates();
});
beforeEach(() => {
  issues = 0;
});
afterAll(() => {
  files.remove();
  rmSync(dir, { recursive: true });
});

const quiet = {
  onIssued: () => undefined,
  observe: () => undefined,
  renewalInfo: () => Promise.resolve(undefined),
} satisfies Partial<RenewalOptions>;
/** A certificate of ours: how long it lives is what counts here. */
async function certificateOf(nowMs: number, lifetimeMs: number): Promise<string> {
  const { privateKey, publicKey } = await newP256Keys();
  const cert = await signCertificate({
    subject: "a",
    issuer: "a",
    subjectKey: publicKey,
    issuerKey: publicKey,
    signingKey: privateKey,
    nowMs,
    lifetimeMs,
    extensions: [subjectAltName(["a.example"])],
  });
  return cert + (await privateKeyPem(privateKey));
}

/** Issues whenever it is asked, always for the same time. */
function issuing(
  clock: { readonly nowMs: number },
  { lifeMs, notBeforeMs }: { readonly lifeMs: number; readonly notBeforeMs: number },
  renewalInfo: RenewalOptions["renewalInfo"] = quiet.renewalInfo,
): Renewal {
  const file = join(dir, `${Math.random()}.pem`);
  return createRenewal({
    certificates: [{ names: ["a.example"], keyType: "ecdsa", file }],
    ...quiet,
    renewalInfo,
    issue: () => {
      issues += 1;
      return Promise.resolve({ pem: "x", notBeforeMs, notAfterMs: notBeforeMs + lifeMs });
    },
    clock: () => clock.nowMs,
    random: () => 0,
  });
}

const error = (
  code: "SERVICE_ACME_UNAVAILABLE" | "SERVICE_ACME_REFUSED",
  after?: number,
): StileError => new StileError(code, "x", after === undefined ? {} : { retryAfterSeconds: after });

describe("renewal", () => {
  /** Fails in the ways that are given, one after the other. */
  function failing(errors: readonly unknown[]): { renewal: Renewal; clock: { nowMs: number } } {
    const clock = { nowMs: Date.parse("2026-01-01T00:00:00Z") };
    const left = [...errors];
    const wanted = { names: ["a.example"], keyType: "ecdsa", file: join(dir, "none.pem") } as const;
    const renewal = createRenewal({
      certificates: [wanted],
      issue: () => Promise.reject(left.shift()),
      ...quiet,
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

  it("never comes before the server's Retry-After", async () => {
    expect(await waitsAfter([error("SERVICE_ACME_REFUSED", 86_400)])).toEqual([86_400]);
    expect(await waitsAfter([error("SERVICE_ACME_REFUSED", 1)])).toEqual([300]);
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
      ...quiet,
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
      ...quiet,
      clock: () => 0,
      random: () => 0.5,
    });
    await Promise.all([renewal.look(), renewal.look(), renewal.look()]);
    expect(attempts).toBe(1);
  });

  it("waits a tenth of its life where a certificate is due as soon as it is there", async () => {
    const clock = { nowMs: Date.now() };
    const renewal = issuing(clock, {
      notBeforeMs: clock.nowMs - 99 * DAY_MS,
      lifeMs: 100 * DAY_MS,
    });
    await renewal.look();
    expect(Date.parse(renewal.status()[0]?.nextAttempt ?? "")).toBe(clock.nowMs + 10 * DAY_MS);
  });
});

describe("what the server suggests (RFC 9773)", () => {
  const HOUR_MS = 3_600_000;
  const window = (startMs: number): RenewalInfo => ({ startMs, endMs: startMs + HOUR_MS });

  interface Suggested {
    readonly asked: () => number;
    /** Moves on and looks; days from the start to the next attempt. */
    readonly after: (ms: number) => Promise<number>;
  }

  /** A certificate of 90 days that was issued now, and is due in 60; the server is asked after three hours. */
  async function issued(infos: readonly (RenewalInfo | undefined | Error)[]): Promise<Suggested> {
    const clock = { nowMs: Date.now() };
    const startMs = clock.nowMs;
    const left = [...infos];
    let asked = 0;
    const renewal = issuing(clock, { notBeforeMs: startMs, lifeMs: 90 * DAY_MS }, async () => {
      asked += 1;
      const info = left.shift();
      if (info instanceof Error) throw info;
      return Promise.resolve(info);
    });
    await renewal.look();
    return {
      asked: () => asked,
      after: async (ms: number): Promise<number> => {
        clock.nowMs += ms;
        await renewal.look();
        return (Date.parse(renewal.status()[0]?.nextAttempt ?? "") - startMs) / DAY_MS;
      },
    };
  }

  it("is not asked for at the start, then as often as the server says, within bounds", async () => {
    const late = window(Date.now() + 80 * DAY_MS);
    const { after, asked } = await issued([
      { ...late, retryAfterSeconds: 1 },
      { ...late, retryAfterSeconds: 10 * 86_400 },
      undefined,
      new Error("SECRET"),
      undefined,
    ]);
    await after(3 * HOUR_MS - 1);
    expect(asked()).toBe(0);
    for (const wait of [1, HOUR_MS, 24 * HOUR_MS, 6 * HOUR_MS, 6 * HOUR_MS]) {
      const before = asked();
      await after(wait - 1);
      expect(asked()).toBe(before);
      expect(await after(1)).toBe(60);
      expect(asked()).toBe(before + 1);
    }
  });

  it("makes a renewal earlier, at once where its time is past, and never later", async () => {
    const nowMs = Date.now();
    const early = await issued([window(nowMs + 20 * DAY_MS)]);
    expect(Math.round(await early.after(3 * HOUR_MS))).toBe(20);
    const late = await issued([window(nowMs + 80 * DAY_MS)]);
    expect(await late.after(3 * HOUR_MS)).toBe(60);
    issues = 0;
    const past = await issued([window(nowMs - DAY_MS), window(nowMs - DAY_MS)]);
    await past.after(3 * HOUR_MS);
    // Renewed, and not again before the server is asked anew.
    expect([issues, past.asked()]).toEqual([2, 1]);
    await past.after(3 * HOUR_MS - 1);
    expect([issues, past.asked()]).toEqual([2, 1]);
  });

  it("does not shorten the wait after a failure", async () => {
    const clock = { nowMs: Date.now() };
    let asked = 0;
    const file = join(dir, "failing.pem");
    writeFileSync(file, await certificateOf(clock.nowMs - 70 * DAY_MS, 90 * DAY_MS));
    const renewal = createRenewal({
      certificates: [{ names: ["a.example"], keyType: "ecdsa", file }],
      ...quiet,
      renewalInfo: () => {
        asked += 1;
        return Promise.resolve(window(0));
      },
      issue: () => Promise.reject(error("SERVICE_ACME_REFUSED", 10 * 86_400)),
      clock: () => clock.nowMs,
      random: () => 0,
    });
    await renewal.look();
    clock.nowMs += 5 * DAY_MS;
    await renewal.look();
    expect([asked, renewal.status()[0]?.state]).toEqual([0, "failing"]);
    expect(Date.parse(renewal.status()[0]?.nextAttempt ?? "")).toBe(clock.nowMs + 5 * DAY_MS);
  });
});
