/** A measured boot from a real TPM's PCRs to the policy's decision: tpm2-tools extend them as firmware would. */
import { createHash } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { attest, type Device, openDevice } from "../../attest/agent/index.ts";
import { type AppraisalPolicy, DEFAULT_APPRAISAL_POLICY } from "../../attest/index.ts";
import { buildLog } from "../attest/eventlog/support/log-builder.ts";
import { application, boot, secureBoot } from "../attest/eventlog/support/sound-boot.ts";
import {
  createTestAttester,
  memoryRegistry,
  memoryTransport,
  type MemoryTransport,
  seededRandom,
} from "../support/attester.ts";
import { codeOfAsync } from "../support/reject.ts";
import { testNow, useSwtpm } from "../support/swtpm.ts";
import { tool } from "../support/tpm2-tools.ts";

const exporter = seededRandom("connection")(32);
const log = buildLog(boot);
const image = createHash("sha256")
  .update(application.measured ?? "")
  .digest("hex");
const eventLog = {
  ...DEFAULT_APPRAISAL_POLICY.eventLog,
  mode: "required",
  secureBoot: "on",
} as const;

const running = useSwtpm(["ecc"]);
let device: Device;
beforeAll(async () => {
  const extensions = boot.map(
    ({ data, measured, pcr }) =>
      `${pcr}:sha256=${createHash("sha256")
        .update(measured ?? data)
        .digest("hex")}`,
  );
  await tool(running.swtpm.tcti, "tpm2_pcrextend", ...extensions);
  device = await openDevice({ tcti: running.swtpm.tcti, ekAlgorithm: "ecc" });
});
afterAll(() => device.close());

async function transportTo(policy: Partial<AppraisalPolicy>): Promise<MemoryTransport> {
  const attester = await createTestAttester(running.ca.rootPem, policy);
  return memoryTransport(attester, { device: exporter, server: exporter });
}

const attestWith = (transport: MemoryTransport, sent: Uint8Array | undefined): Promise<unknown> =>
  attest({
    device,
    transport,
    clock: () => testNow,
    readEventLog: () => Promise.resolve(sent),
  });

describe("a measured boot", () => {
  it("affirms configuration and executables of a boot that the policy knows", async () => {
    const transport = await transportTo({
      eventLog: { ...eventLog, bootApplications: new Set([image]) },
    });
    await attestWith(transport, log);
    expect(transport.devices[0]?.appraisal).toMatchObject({
      trustworthiness: { hardware: 2, configuration: 2, executables: 2 },
    });
  });

  it.each<[string, Partial<AppraisalPolicy>, Uint8Array | undefined, string]>([
    [
      "a boot application that no one knows",
      { eventLog: { ...eventLog, bootApplications: new Set(["00".repeat(32)]) } },
      log,
      "ATTEST_POLICY_REFUSED",
    ],
    [
      "a log that claims another Secure Boot state",
      { eventLog },
      buildLog(boot.map((event) => (event === boot[1] ? secureBoot(0) : event))),
      "ATTEST_EVENT_LOG_MISMATCH",
    ],
    [
      "a log that leaves an event out",
      { eventLog },
      buildLog(boot.slice(1)),
      "ATTEST_EVENT_LOG_MISMATCH",
    ],
    [
      "a log with one changed byte",
      { eventLog },
      log.map((byte, i) => (i === log.length - 40 ? byte ^ 1 : byte)),
      "ATTEST_EVENT_LOG_MISMATCH",
    ],
    ["half a log", { eventLog }, log.subarray(0, log.length / 2), "WIRE_TOO_SHORT"],
    ["no log where one is required", { eventLog }, undefined, "ATTEST_AGENT_REFUSED"],
  ])("rejects %s", async (_name, policy, sent, code) => {
    const transport = await transportTo(policy);
    expect(await codeOfAsync(() => attestWith(transport, sent))).toBe(code);
    expect(transport.devices).toStrictEqual([]);
  });

  it("rejects evidence from which the log was taken away", async () => {
    const attester = await createTestAttester(running.ca.rootPem, { eventLog });
    const transport = memoryTransport(
      attester,
      { device: exporter, server: exporter },
      (path, body) => {
        const { eventLog: _taken, ...rest } = body as { eventLog?: string };
        return path === "/attest/tpm/evidence" ? rest : body;
      },
    );
    expect(await codeOfAsync(() => attestWith(transport, log))).toBe("ATTEST_POLICY_REFUSED");
  });

  it("is told to no attester that does not ask", async () => {
    const transport = await transportTo({});
    let asked = false;
    await attest({
      device,
      transport,
      clock: () => testNow,
      readEventLog: () => {
        asked = true;
        return Promise.resolve(log);
      },
    });
    expect(asked).toBe(false);
    expect(transport.devices[0]?.appraisal).toMatchObject({
      trustworthiness: { configuration: 0, executables: 0 },
    });
  });
});

describe("the device registry", () => {
  it("D7: rejects a TPM whose resets, restarts or clock went back", async () => {
    const registry = memoryRegistry();
    const attester = await createTestAttester(running.ca.rootPem, {}, registry);
    const transport = memoryTransport(attester, { device: exporter, server: exporter });
    await attestWith(transport, undefined);
    const [known] = transport.devices;
    if (known === undefined) throw new Error("not attested");
    const { pseudonym, manufacturer } = known;
    const record = await registry.lookUp({ pseudonym, manufacturer });
    if (record === undefined) throw new Error("not recorded");
    expect(record.counters).toBe("plain");
    const { clockInfo } = record;
    const later = [
      { ...clockInfo, resetCount: clockInfo.resetCount + 1 },
      { ...clockInfo, restartCount: clockInfo.restartCount + 1 },
      { ...clockInfo, clock: clockInfo.clock + 10_000_000n },
    ];
    for (const seen of later) {
      await registry.record({
        pseudonym,
        manufacturer,
        deviceClass: "default",
        record: { ...record, clockInfo: seen },
      });
      expect(await codeOfAsync(() => attestWith(transport, undefined))).toBe(
        "ATTEST_CLOCK_WENT_BACK",
      );
    }
    await registry.record({
      pseudonym,
      manufacturer,
      deviceClass: "default",
      record: { ...record, firmwareVersion: record.firmwareVersion + 1n },
    });
    expect(await codeOfAsync(() => attestWith(transport, undefined))).toBe(
      "ATTEST_FIRMWARE_REFUSED",
    );
  });
});
