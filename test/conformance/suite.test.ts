/** This service against its own suite, and the suite against servers that do one thing wrong each. */
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { CONFORMANCE_CHECKS, createConformanceHttp } from "../../service/conformance/index.ts";
import { freePort } from "../support/free-port.ts";
import { captured, runSuite } from "../support/conformance.ts";
import { type FaultProxy, startFaultProxy } from "../support/fault-proxy.ts";
import { codeOfAsync } from "../support/reject.ts";
import { type Split, startSplit } from "../support/split.ts";
import { CACHE_FAULTS, DIRECTORY_FAULTS, ISSUANCE_FAULTS } from "./issuer-faults.ts";
import { CHALLENGE_FAULTS, REDEMPTION_FAULTS } from "./origin-faults.ts";

let split: Split;
let issuer: FaultProxy;
let origin: FaultProxy;

beforeAll(async () => {
  const port = await freePort();
  const host = `localhost:${port}`;
  split = await startSplit(60_000, { issuer: { tokenTypes: [2, 1, 5] }, edgeHosts: [host] });
  origin = await startFaultProxy(split, { port, upstream: split.url("edge"), host });
  issuer = await startFaultProxy(split, {
    port: await freePort(),
    upstream: split.url("issuer"),
  });
});

beforeEach(() => {
  issuer.inject({});
  origin.inject({});
});

afterAll(async () => {
  await issuer.close();
  await origin.close();
  await split.stop();
});

describe("this service", () => {
  it("keeps every requirement, and each of them is tried", async () => {
    const run = await runSuite(split, { issuer: split.url("issuer"), origin: split.url("edge") });
    expect(run.failed).toEqual({});
    expect(run.skipped).toEqual({});
    expect(run.passed).toEqual(CONFORMANCE_CHECKS.map(({ id }) => id));
    expect(run.exitCode).toBe(0);
  });

  it("keeps those of the faults below also through a proxy that does no wrong", async () => {
    const atIssuer = await runSuite(split, { issuer: issuer.url }, "directory", "issuance");
    expect(atIssuer.failed).toEqual({});
    expect(atIssuer.skipped).toEqual({});
    const urls = { issuer: split.url("issuer"), origin: origin.url };
    const atOrigin = await runSuite(split, urls, "challenge", "redemption");
    expect(atOrigin.failed).toEqual({});
    expect(atOrigin.skipped).toEqual({});
  });
});

describe("a fault of an issuer is found", () => {
  it.each([...DIRECTORY_FAULTS, ...CACHE_FAULTS, ...ISSUANCE_FAULTS])(
    "%s",
    async (_name, fault, only, failing) => {
      issuer.inject(fault);
      const run = await runSuite(split, { issuer: issuer.url }, ...only);
      expect(Object.keys(run.failed).toSorted()).toEqual([...failing].toSorted());
      const isMust = CONFORMANCE_CHECKS.some(
        ({ id, level }) => level === "MUST" && failing.includes(id),
      );
      expect(run.exitCode).toBe(isMust ? 1 : 0);
    },
  );
});

describe("a fault of an origin is found", () => {
  it.each([...CHALLENGE_FAULTS, ...REDEMPTION_FAULTS])("%s", async (_, fault, only, failing) => {
    origin.inject(fault);
    const run = await runSuite(split, { issuer: split.url("issuer"), origin: origin.url }, ...only);
    expect(Object.keys(run.failed).toSorted()).toEqual([...failing].toSorted());
    expect(run.skipped).toEqual({});
  });

  it("such as verifying no authenticator, without an issuer to get tokens of", async () => {
    const [, fault] = REDEMPTION_FAULTS.find(([name]) => name === "authenticators not verified")!;
    origin.inject(fault);
    const run = await runSuite(split, { origin: origin.url }, "challenge", "redemption");
    expect(Object.keys(run.failed)).toEqual(["redemption.forged"]);
    expect(run.exitCode).toBe(1);
  });

  it("such as refusing good tokens, and then a refusal counts for nothing", async () => {
    origin.inject({
      after: (answer, { headers }) => {
        if (headers["authorization"] !== undefined) answer.status = 401;
      },
    });
    const urls = { issuer: split.url("issuer"), origin: origin.url };
    const only = ["redemption.valid", "redemption.replay", "redemption.authenticator"];
    const run = await runSuite(split, urls, ...only);
    expect(Object.keys(run.failed)).toEqual(["redemption.valid"]);
    expect(Object.keys(run.skipped)).toEqual(["redemption.replay", "redemption.authenticator"]);
  });
});

describe("what cannot be tried", () => {
  it("is skipped without the right to issue, and says so", async () => {
    const urls = ["--issuer", split.url("issuer"), "--origin", split.url("edge")];
    const only = ["--only", "issuance.unknown-key,issuance.valid-type-2,redemption"];
    const junit = join(split.dir, "conformance.xml");
    const files = ["--ca", split.caFile, "--junit", junit];
    const { code, out } = await captured([...urls, ...files, ...only]);
    expect(readFileSync(junit, "utf8")).toContain('tests="16" failures="0" skipped="13"');
    // What is malformed or forged needs no right: all else is skipped.
    expect(out.match(/^ok .*$/gm)).toHaveLength(3);
    expect(out).toMatch(/^3 passed, 0 MUST and 0 SHOULD failed, 13 skipped$/m);
    expect(out).toContain("skip MUST   issuance.unknown-key");
    expect(out).toContain("no right to issue: the issuer answered 403");
    expect(code).toBe(0);
  });

  it("is skipped where the issuer or the origin is not given", async () => {
    const noOrigin = await runSuite(
      split,
      { issuer: split.url("issuer") },
      "challenge",
      "redemption",
    );
    expect(noOrigin.passed).toEqual([]);
    expect(noOrigin.failed).toEqual({});
    expect(new Set(Object.values(noOrigin.skipped))).toEqual(new Set(["no origin was given"]));
    const noIssuer = await runSuite(split, { origin: split.url("edge") }, "directory", "issuance");
    expect(noIssuer.passed).toEqual([]);
    expect(new Set(Object.values(noIssuer.skipped))).toEqual(new Set(["no issuer was given"]));
  });
});

describe("a server that drips", () => {
  it("rejects it when its time is over, though it never falls silent", async () => {
    const key = readFileSync(split.keyFile);
    const cert = readFileSync(split.certificateFile);
    const server = createServer({ cert, key }, (_, response) => {
      const drops = setInterval(() => response.write("x"), 20);
      response.once("close", () => clearInterval(drops));
    });
    onTestFinished(() => server.closeAllConnections());
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const url = new URL(`https://localhost:${(server.address() as AddressInfo).port}/`);
    const http = createConformanceHttp({ ca: split.ca, issuanceHeaders: {}, timeoutMs: 200 });
    expect(await codeOfAsync(() => http.ask(url))).toBe("ATTEST_AGENT_REFUSED");
    server.close();
  });
});

describe("secrets", () => {
  it("are sent to the request endpoint alone, and neither they nor tokens are printed", async () => {
    const secret = randomBytes(16).toString("hex");
    const tokens: string[] = [];
    const receivers = new Set<string>();
    issuer.inject({
      before: ({ headers, method, path }) => {
        if (headers["x-right"] === secret) receivers.add(`${method} ${path}`);
        return undefined;
      },
    });
    origin.inject({
      before: ({ headers }) => {
        expect(headers).not.toHaveProperty("x-right");
        tokens.push(/token="([^"]{400,})"/.exec(headers["authorization"] ?? "")?.[1] ?? "none");
        return undefined;
      },
    });
    const { certificateFile, keyFile } = split.certificate;
    const common = ["--ca", split.caFile, "--cert", certificateFile, "--key", keyFile];
    const right = [...common, "--issuance-header", `X-Right: ${secret}`];
    await captured([
      "--issuer",
      issuer.url,
      ...right,
      "--only",
      "directory.status,issuance.unknown-key,issuance.get",
    ]);
    expect([...receivers].toSorted()).toEqual(["GET /token-request", "POST /token-request"]);
    const urls = ["--issuer", split.url("issuer"), "--origin", origin.url];
    const { out } = await captured([...urls, ...right, "--only", "redemption"]);
    const sent = tokens.filter((token) => token !== "none");
    expect(sent.length).toBeGreaterThan(5);
    for (const token of sent) expect(out).not.toContain(token.slice(0, 60));
    expect(out).not.toContain(secret);
  });
});
