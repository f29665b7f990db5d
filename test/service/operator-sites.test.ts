/** The operator listener and the browser of whoever runs it: pages of other sites read and switch nothing. */
import { request } from "node:http";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTestSidecar, type TestSidecar } from "../support/sidecar.ts";

let target: TestSidecar;
beforeAll(async () => {
  target = await startTestSidecar();
});
afterAll(() => target.stop());

function ask(method: string, path: string, headers: Record<string, string>): Promise<number> {
  return new Promise((resolve, reject) => {
    const url = new URL(path, target.sidecar.operatorAddress);
    const sent = request(url, { method, headers }, (answer) => {
      answer.resume();
      resolve(answer.statusCode ?? 0);
    });
    sent.on("error", reject);
    sent.end();
  });
}

describe("the operator listener", () => {
  it.each([
    ["a rebound name", { host: "evil.example" }],
    ["a rebound name with the port", { host: "evil.example:9443" }],
    ["a name that begins like loopback", { host: "127.0.0.1.evil.example" }],
    ["a form of another site", { origin: "https://evil.example" }],
    ["a form of an opaque origin", { origin: "null" }],
    ["a fetch of another site", { "sec-fetch-site": "cross-site" }],
    ["a fetch of the same site and another port", { "sec-fetch-site": "same-site" }],
  ])("refuses %s", async (_name, headers) => {
    for (const [method, path] of [
      ["GET", "/"],
      ["GET", "/metrics"],
      ["GET", "/keys"],
      ["GET", "/revocations"],
      ["POST", "/revocations"],
    ] as const) {
      expect(await ask(method, path, headers), `${method} ${path}`).toBe(421);
    }
  });

  it("answers its own page and programs", async () => {
    const { host } = new URL(target.sidecar.operatorAddress);
    expect(await ask("GET", "/keys", {})).toBe(200);
    expect(await ask("GET", "/keys", { host: "localhost:9443" })).toBe(200);
    const own = { origin: `http://${host}`, "sec-fetch-site": "same-origin" };
    expect(await ask("GET", "/keys", own)).toBe(200);
    expect(await ask("GET", "/", { "sec-fetch-site": "none" })).toBe(200);
  });
});
