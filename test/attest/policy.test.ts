/** Appraisal: each rule refuses what it is for, says so, and lets the rest through (checklist D7, D8, E9, H). */
import { describe, expect, it } from "vitest";
import {
  APPRAISAL_RULES,
  type AppraisalPolicy,
  type AppraisalReason,
  appraise,
  DEFAULT_APPRAISAL_POLICY,
  type DeviceFacts,
} from "../../attest/index.ts";

const known = "aa".repeat(32);
const facts: DeviceFacts = {
  firmware: {
    manufacturer: "id:49424D20",
    version: { lowest: 5n, highest: 5n },
    keyTypes: ["ecc"],
  },
  clockFindings: [],
  pcrValues: [{ hash: "sha256", pcr: 7, value: new Uint8Array(32).fill(1) }],
  eventLog: { secureBoot: "on", findings: [], bootApplications: [known] },
};
const { eventLog } = DEFAULT_APPRAISAL_POLICY;
const judged = { ...eventLog, mode: "required" } as const;

function policyOf(change: Partial<AppraisalPolicy>): AppraisalPolicy {
  return { ...DEFAULT_APPRAISAL_POLICY, ...change };
}

describe("a policy", () => {
  it("affirms a device that keeps every rule, and says why", () => {
    const appraisal = appraise(
      policyOf({
        manufacturers: { allow: ["id:49424D20"], deny: [] },
        referenceValues: facts.pcrValues,
        eventLog: { ...judged, secureBoot: "on", bootApplications: new Set([known]) },
        classes: [{ name: "measured", secureBoot: "on", eventLog: true, tokens: 9 }],
      }),
      facts,
    );
    expect(appraisal).toMatchObject({
      decision: "affirmed",
      deviceClass: { name: "measured", tokens: 9 },
      trustworthiness: { hardware: 2, configuration: 2, executables: 2, runtimeOpaque: 0 },
    });
    expect(appraisal.reasons.map(({ rule }) => rule)).toEqual(APPRAISAL_RULES);
    expect(new Set(appraisal.reasons.map(({ outcome }) => outcome))).toEqual(
      new Set(["satisfied"]),
    );
  });

  it("claims nothing that it did not look at", () => {
    const appraisal = appraise(DEFAULT_APPRAISAL_POLICY, facts);
    expect(appraisal).toMatchObject({
      decision: "affirmed",
      trustworthiness: { instanceIdentity: 2, hardware: 2, configuration: 0, executables: 0 },
    });
  });

  it.each<[AppraisalReason["rule"], string, Partial<AppraisalPolicy>, Partial<DeviceFacts>]>([
    ["manufacturers", "denied", { manufacturers: { allow: undefined, deny: ["id:49424D20"] } }, {}],
    ["manufacturers", "allowed", { manufacturers: { allow: ["id:494E5443"], deny: [] } }, {}],
    [
      "firmware",
      "older",
      { firmware: { refuse: "none", oldest: { "id:49424D20": "7.2.0.0" } } },
      {},
    ],
    ["clock", "clock-went-back", {}, { clockFindings: ["restart", "clock-went-back"] }],
    [
      "clock",
      "clock-not-safe",
      { refuseClockFindings: ["clock-not-safe"] },
      { clockFindings: ["clock-not-safe"] },
    ],
    [
      "referenceValues",
      "sha256:7",
      { referenceValues: [{ hash: "sha256", pcr: 7, value: new Uint8Array(32) }] },
      {},
    ],
    [
      "referenceValues",
      "sha256:8",
      { referenceValues: [{ hash: "sha256", pcr: 8, value: new Uint8Array(32).fill(1) }] },
      {},
    ],
    ["eventLog.mode", "no event log", { eventLog: judged }, { eventLog: undefined }],
    [
      "eventLog.secureBoot",
      "off",
      { eventLog: { ...judged, secureBoot: "on" } },
      { eventLog: { secureBoot: "off", findings: [], bootApplications: [] } },
    ],
    [
      "eventLog.secureBoot",
      "unknown",
      { eventLog: { ...judged, secureBoot: "on" } },
      { eventLog: { secureBoot: "unknown", findings: [], bootApplications: [] } },
    ],
    [
      "eventLog.bootApplications",
      "unknown boot application",
      { eventLog: { ...judged, bootApplications: new Set([known]) } },
      { eventLog: { secureBoot: "on", findings: [], bootApplications: [known, "bb".repeat(32)] } },
    ],
    [
      "eventLog.bootApplications",
      "no SHA-256",
      { eventLog: { ...judged, bootApplications: new Set([known]) } },
      { eventLog: { secureBoot: "on", findings: [], bootApplications: undefined } },
    ],
    [
      "eventLog.acceptFindings",
      "event-type-unexpected",
      { eventLog: { ...judged, acceptFindings: ["boot-application-unexpected"] } },
      {
        eventLog: {
          secureBoot: "on",
          findings: ["boot-application-unexpected", "event-type-unexpected"],
          bootApplications: [],
        },
      },
    ],
    ["classes", "no class", { classes: [{ name: "intel", manufacturers: ["id:494E5443"] }] }, {}],
    [
      "classes",
      "no class",
      { eventLog: { ...eventLog, mode: "if-present" }, classes: [{ name: "log", eventLog: true }] },
      { eventLog: undefined },
    ],
    [
      "classes",
      "no class",
      { eventLog: judged, classes: [{ name: "secure", secureBoot: "on" }] },
      { eventLog: { secureBoot: "off", findings: [], bootApplications: [] } },
    ],
  ])("rejects by the rule %s: %s", (rule, detail, change, seen) => {
    const appraisal = appraise(policyOf(change), { ...facts, ...seen });
    expect(appraisal).toMatchObject({ decision: "refused", decidedBy: { rule } });
    expect(appraisal.reasons.at(-1)).toMatchObject({ rule, outcome: "refused" });
    expect(appraisal.reasons.at(-1)?.detail).toContain(detail);
    // What follows was not looked at, and is not claimed to be.
    expect(appraisal.reasons).toHaveLength(APPRAISAL_RULES.indexOf(rule) + 1);
  });

  it("takes the first class that fits", () => {
    const appraisal = appraise(
      policyOf({
        eventLog: judged,
        classes: [
          { name: "intel", manufacturers: ["id:494E5443"] },
          { name: "measured", eventLog: true },
          { name: "any" },
        ],
      }),
      facts,
    );
    expect(appraisal).toMatchObject({ deviceClass: { name: "measured" } });
  });
});
