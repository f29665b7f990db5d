/** What a TPM does that goes wrong: busy, unreachable, killed in the middle, talking nonsense. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { akTemplate, deviceKeyTemplate } from "../../attest/agent/index.ts";
import { createEsysConnection } from "../../attest/tss2/esys.ts";
import { loadTss, openTpm, responseCodeOf, type Tpm } from "../../attest/tss2/index.ts";
import { codeOfAsync } from "../support/reject.ts";
import { useSwtpm } from "../support/swtpm.ts";
import { responseOf, startTpmProxy, type TpmProxy } from "../support/tpm-proxy.ts";

const TPM_CC_GetRandom = 0x17b;
const TPM_CC_SelfTest = 0x143;
const TPM_RC_RETRY = 0x922;
const TPM_RC_YIELDED = 0x908;
const TPM_RC_TESTING = 0x90a;

const running = useSwtpm([]);
let proxy: TpmProxy;
let tpm: Tpm;
beforeAll(async () => {
  proxy = await startTpmProxy(running.swtpm.tcti);
  tpm = await openTpm({ tcti: proxy.tcti, maxPendingCalls: 64 });
});
afterAll(async () => {
  await tpm.close();
  await proxy.stop();
});

function seen(commandCode: number): number {
  return proxy.commands.filter((code) => code === commandCode).length;
}

describe("a TPM that is busy", () => {
  it.each([
    ["TPM_RC_RETRY", TPM_RC_RETRY],
    ["TPM_RC_YIELDED", TPM_RC_YIELDED],
    ["TPM_RC_TESTING", TPM_RC_TESTING],
  ])("is asked again after %s", async (_, code) => {
    let left = 14;
    proxy.commands.length = 0;
    proxy.judge = () => ((left -= 1) >= 0 ? responseOf(code) : "pass");
    expect((await tpm.getRandom(8)).length).toBe(8);
    expect(seen(TPM_CC_GetRandom)).toBe(15);
  });

  it("rejects with TPM_RC_RETRY after a bounded number of attempts", async () => {
    const slept: number[] = [];
    const connection = createEsysConnection({
      tss: loadTss(),
      tcti: proxy.tcti,
      maxPendingCalls: 1,
      sleep: (milliseconds) => Promise.resolve(void slept.push(milliseconds)),
      onNewContext: () => Promise.resolve(),
    });
    proxy.commands.length = 0;
    proxy.judge = () => responseOf(TPM_RC_RETRY);
    const error: unknown = await connection
      .turn((esys) => esys.call("Esys_SelfTest", 0xfff, 0xfff, 0xfff, 1))
      .catch((cause: unknown) => cause);
    expect(responseCodeOf(error)?.name).toBe("TPM_RC_RETRY");
    expect(slept).toStrictEqual([5, 10, 20, 40, 80, 160, 320, 640, 1280]);
    // ESYS sends a command five times by itself, and it is called ten times.
    expect(seen(TPM_CC_SelfTest)).toBe(50);
    proxy.judge = () => "pass";
    await connection.turn((esys) => esys.call("Esys_SelfTest", 0xfff, 0xfff, 0xfff, 1));
    expect(seen(TPM_CC_SelfTest)).toBe(51);
    await connection.close();
  });
});

describe("a TPM that breaks off", () => {
  it("rejects the call and works on a new context for the next one", async () => {
    const key = await tpm.createPrimary("owner", deviceKeyTemplate());
    proxy.judge = () => "drop";
    expect(await codeOfAsync(() => tpm.getRandom(8))).toBe("ATTEST_TSS_FAILED");
    proxy.judge = () => "pass";
    expect((await tpm.getRandom(8)).length).toBe(8);
    const lost: unknown = await tpm.sign(key, new Uint8Array(32)).catch((cause: unknown) => cause);
    expect(String(lost)).toContain("loaded before the connection was rebuilt");
    expect(responseCodeOf(lost)).toBeUndefined();
    await tpm.flush(key);
    await tpm.flushTransientObjects();
  });

  it.each([
    ["a response of another length than it states", Buffer.from("800100000fff00000000", "hex")],
    ["a response that is cut", Buffer.from("8001", "hex")],
    ["random bytes of a false size", Buffer.from("80010000000e00000000ffff0000", "hex")],
  ])("rejects %s and recovers", async (_, response) => {
    proxy.judge = (code) => (code === TPM_CC_GetRandom ? response : "pass");
    const error: unknown = await Promise.race([
      tpm.getRandom(8).catch((cause: unknown) => cause),
      // swtpm's TCTI waits for the rest of a cut response: only the end of the connection ends it.
      new Promise((settle) => setTimeout(settle, 500, "waiting")),
    ]);
    if (error === "waiting") proxy.dropAll();
    else expect(String(error)).toMatch(/StileError/);
    proxy.judge = () => "pass";
    expect((await tpm.getRandom(8)).length).toBe(8);
  });

  it("rejects the calls of a killed swtpm and recovers when it is back", async () => {
    const direct = await openTpm({ tcti: running.swtpm.tcti, maxPendingCalls: 64 });
    const calls = Array.from({ length: 20 }, () =>
      codeOfAsync(() =>
        direct.createPrimary("null", akTemplate()).then((key) => direct.flush(key)),
      ),
    );
    await running.swtpm.kill();
    const codes = await Promise.all(calls);
    expect(codes).toContain("ATTEST_TSS_FAILED");
    expect(new Set(codes).size).toBeLessThanOrEqual(2);
    expect(await codeOfAsync(() => direct.getRandom(4))).toBe("ATTEST_TSS_FAILED");
    await running.swtpm.restart();
    expect((await direct.getRandom(4)).length).toBe(4);
    await direct.close();
  });

  it("rejects an address where no TPM is", async () => {
    const open = (tcti: string) => codeOfAsync(() => openTpm({ tcti, maxPendingCalls: 1 }));
    expect(await open("swtpm:path=/tmp/stile-no-such-socket")).toBe("ATTEST_TSS_FAILED");
    expect(await open("device:/dev/null")).toBe("ATTEST_TSS_FAILED");
    expect(await open("nonsense")).toBe("ATTEST_TSS_FAILED");
  });

  it("rejects calls after close as the caller's mistake", async () => {
    const closed = await openTpm({ tcti: running.swtpm.tcti, maxPendingCalls: 4 });
    await closed.close();
    await closed.close();
    await expect(closed.getRandom(1)).rejects.toThrow(TypeError);
  });
});

describe("memory", () => {
  it("stays flat over 12,000 calls", async () => {
    setFlagsFromString("--expose-gc");
    const collect: unknown = runInNewContext("gc");
    if (typeof collect !== "function") throw new TypeError("no gc");
    const direct = await openTpm({ tcti: running.swtpm.tcti, maxPendingCalls: 64 });
    const calls = async (rounds: number): Promise<number> => {
      for (let i = 0; i < rounds; i += 1) await direct.handles(0x8000_0000);
      collect();
      const resident = Number(readFileSync("/proc/self/statm", "utf8").split(" ")[1]);
      return resident * 4096;
    };
    let resident = await calls(2_000);
    const growths: number[] = [];
    for (let round = 0; round < 6; round += 1) {
      const before = resident;
      resident = await calls(1_700);
      growths.push(resident - before);
    }
    // Garbage collection and compilers make some rounds grow; a leak of the TPMS_CAPABILITY_DATA of each call
    // (measured: 1 KiB) makes all of them.
    expect(Math.min(...growths)).toBeLessThan(800_000);
    await direct.close();
  });
});
