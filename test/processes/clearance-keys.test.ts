/** A change of the clearance keys where several processes sign and verify: all have heard of it when it is done. */
import { mkdtempSync, rmSync } from "node:fs";
import { request } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { exchange, type ExchangeAnswer } from "../../service/agent/exchange.ts";
import { clearanceKeyCommand } from "../../service/cli/clearance-key.ts";
import { startDemoUpstream } from "../../service/dev/demo-upstream.ts";
import { startKeeper } from "../../service/processes/keeper.ts";
import {
  createFrameReader,
  encodeFrame,
  encodeJsonFrame,
  FRAME,
} from "../../service/processes/link-frames.ts";
import { parseWwwAuthenticate } from "../../tokens/index.ts";
import { prepareService } from "../support/keeper-and-workers.ts";
import { openMint } from "../support/mint.ts";
import { prepareServe, startServe } from "../support/serve-child.ts";

/** Each is a connection of its own: both workers get some of them. */
const REQUESTS = 24;

describe("workers", { timeout: 180_000 }, () => {
  it("sign with the new key and refuse the revoked one, without being replaced", async () => {
    const upstream = await startDemoUpstream();
    onTestFinished(() => upstream.stop());
    const files = await prepareServe(upstream.url, { processes: { workers: 2 } });
    const service = startServe(files);
    onTestFinished(async () => {
      await service.stop();
      files.remove();
    });
    await service.event("started");
    const url = `https://${files.host}/`;
    const get = (headers: Record<string, string>): Promise<ExchangeAnswer> =>
      exchange({ url, method: "GET", headers, ca: files.ca });
    const statuses = async (cookie: string): Promise<Set<number>> => {
      const answers = await Promise.all(Array.from({ length: REQUESTS }, () => get({ cookie })));
      return new Set(answers.map(({ status }) => status));
    };
    const [asked] = parseWwwAuthenticate((await get({})).headers["www-authenticate"] ?? "");
    const mint = await openMint(files.dir);
    const admitted = async (): Promise<string> => {
      const authorization = mint.authorization(asked?.challenge ?? new Uint8Array());
      return (await get({ authorization })).headers["set-cookie"]?.[0]?.split(";")[0] ?? "";
    };
    const before = await admitted();
    expect(await statuses(before)).toEqual(new Set([200]));
    const header = before.slice("__Host-stile=".length).split(".")[0] ?? "";
    const { kid } = JSON.parse(Buffer.from(header, "base64url").toString()) as { kid: string };
    const silent = vi.spyOn(process.stdout, "write").mockReturnValue(true);
    expect(await clearanceKeyCommand(["revoke", kid, "--config", files.configFile])).toBe(0);
    silent.mockRestore();
    expect(await statuses(before)).toEqual(new Set([401]));
    expect(await statuses(await admitted())).toEqual(new Set([200]));
    expect(service.lines.map(({ event }) => event)).not.toContain("process.ended");
  });

  it("have answered before the operator is", async () => {
    const dir = mkdtempSync(join(tmpdir(), "stile-clearance-workers-"));
    onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
    const linkKey = "ab".repeat(32);
    const operator = join(dir, "operator.sock");
    const { config } = await prepareService(dir, "http://127.0.0.1:9");
    const log = { write: () => undefined, flush: () => undefined };
    const keeper = await startKeeper(config, { clock: Date.now, log, linkKey });
    onTestFinished(() => keeper.leave(0));
    const events: string[] = [];
    const link = connect(join(config.stateDir, "processes", "link.sock"));
    onTestFinished(() => void link.destroy());
    link.write(encodeJsonFrame(FRAME.hello, { key: linkKey, worker: 1 }));
    const kids: string[][] = [];
    const read = createFrameReader();
    link.on("data", (chunk: Buffer) => {
      for (const { body, kind } of read(chunk)) {
        if (kind !== FRAME.facts) continue;
        const { clearanceKeys } = JSON.parse(Buffer.from(body).toString()) as {
          clearanceKeys: { record: { tokenKeyId: string } }[];
        };
        kids.push(clearanceKeys.map(({ record }) => record.tokenKeyId));
        // Slow, but within the time that a worker has.
        void delay(150).then(() => {
          events.push("the worker has heard");
          link.write(encodeFrame(FRAME.heard, new Uint8Array(0)));
        });
      }
    });
    await expect.poll(() => events.length).toBe(1);
    const [id = ""] = kids[0] ?? [];
    const kid = Buffer.from(id, "base64url").subarray(0, 16).toString("base64url");
    const path = `/clearance-keys/${kid}/revoke`;
    const status = await new Promise((resolve, reject) => {
      request({ socketPath: operator, method: "POST", path }, (answer) => {
        answer.resume();
        resolve(answer.statusCode);
      })
        .once("error", reject)
        .end();
    });
    events.push("the operator is answered");
    expect(status).toBe(200);
    // First without it, then with its successor.
    expect(kids.length).toBeGreaterThan(2);
    expect(events).toEqual([...kids.map(() => "the worker has heard"), "the operator is answered"]);
    expect(kids.slice(1).every((known) => !known.includes(id))).toBe(true);
    expect(kids.at(-1)).toHaveLength(1);
  });
});
