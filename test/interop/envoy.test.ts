/**
 * `edge.extAuthz` asked by grpc-go with the messages that go-control-plane generates from Envoy's protos
 * (envoy/main.go). Runs with the nightly profile, as go.test.ts, and is passed over where there is no Go.
 */
import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface, type Interface } from "node:readline";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { freePort } from "../support/free-port.ts";
import { startTestSidecar, type TestSidecar } from "../support/sidecar.ts";

const GO = process.env["STILE_GO"] ?? "/usr/local/go/bin/go";
const BUILD_MS = 240_000;

interface HeaderOption {
  readonly header: { readonly key: string; readonly value: string };
  readonly appendAction?: string;
}

interface Answer {
  readonly code: string;
  readonly response?: {
    readonly status?: { readonly code?: number };
    readonly deniedResponse?: {
      readonly status: { readonly code: string };
      readonly headers: readonly HeaderOption[];
      readonly body: string;
    };
    readonly okResponse?: {
      readonly headers: readonly HeaderOption[];
      readonly headersToRemove?: readonly string[];
      readonly responseHeadersToAdd?: readonly HeaderOption[];
    };
  };
}

const folder = mkdtempSync(join(tmpdir(), "stile-envoy-"));
const program = buildProgram();
let child: ChildProcessWithoutNullStreams;
let lines: Interface;
let target: TestSidecar;

function buildProgram(): string | undefined {
  if (process.env["STILE_GO_INTEROP"] === undefined) return undefined;
  try {
    const out = join(folder, "ask");
    const cwd = join(import.meta.dirname, "envoy");
    execFileSync(GO, ["build", "-o", out, "."], { cwd, timeout: BUILD_MS, stdio: "pipe" });
    return out;
  } catch (error) {
    console.log(`Envoy's messages in Go are passed over: ${String(error).slice(0, 200)}`);
    return undefined;
  }
}

beforeAll(async () => {
  if (program === undefined) return;
  const listen = `127.0.0.1:${await freePort()}`;
  target = await startTestSidecar({
    listen: { trustedProxies: ["127.0.0.1"] },
    edge: { extAuthz: { listen } },
  });
  child = spawn(program, [listen]);
  lines = createInterface({ input: child.stdout });
});
afterAll(async () => {
  rmSync(folder, { recursive: true });
  if (program === undefined) return;
  child.kill();
  await target.stop();
});

async function ask(headers: Readonly<Record<string, string>>): Promise<Answer> {
  const line = once(lines, "line");
  const http = { method: "GET", path: "/", host: target.host, scheme: "https", headers };
  const source = { address: { socketAddress: { address: "192.0.2.7", portValue: 4 } } };
  const request = { attributes: { source, request: { time: "2026-11-28T00:00:00Z", http } } };
  child.stdin.write(`${JSON.stringify(request)}\n`);
  return JSON.parse(String((await line)[0])) as Answer;
}

const valueOf = (options: readonly HeaderOption[] = [], name: string): string | undefined =>
  options.find(({ header }) => header.key === name)?.header.value;

describe.skipIf(program === undefined)("the messages of go-control-plane, over grpc-go", () => {
  it("say the challenge", async () => {
    const { code, response } = await ask({ accept: "*/*" });
    expect([code, response?.status?.code]).toEqual(["OK", 16]);
    const denied = response?.deniedResponse;
    expect(denied?.status.code).toBe("Unauthorized");
    expect(valueOf(denied?.headers, "www-authenticate")).toMatch(/^PrivateToken challenge="/);
    expect(JSON.parse(denied?.body ?? "")).toMatchObject({ status: 401 });
  });

  it("say the admission, what is taken out and what the client gets", async () => {
    const authorization = await target.mint();
    const { code, response } = await ask({ authorization, cookie: "a=1", "x-real-ip": "1.2.3.4" });
    const ok = response?.okResponse;
    expect([code, response?.status?.code]).toEqual(["OK", undefined]);
    expect(ok?.headers).toContainEqual({
      header: { key: "stile-admission", value: "token" },
      appendAction: "OVERWRITE_IF_EXISTS_OR_ADD",
    });
    expect(valueOf(ok?.headers, "x-forwarded-for")).toBe("192.0.2.7");
    expect(ok?.headersToRemove?.toSorted()).toEqual(["authorization", "x-real-ip"]);
    expect(ok?.responseHeadersToAdd?.[0]?.appendAction).toBeUndefined();
    expect(valueOf(ok?.responseHeadersToAdd, "set-cookie")).toMatch(/^__Host-stile=ey/);
  });
});
