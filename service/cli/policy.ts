/**
 * `stile policy check FILE`: reads a policy as the sidecar would, and with `--facts` appraises a device by it
 * and says which rule decided. Exit code 0: valid, affirmed; 1: invalid, refused.
 */
import { parseArgs } from "node:util";
import { type AppraisalPolicy, appraise, parseTrustedRoots } from "../../attest/index.ts";
import { StileError } from "../../wire/index.ts";
import { readFacts } from "../policy/facts.ts";
import { loadPolicy } from "../policy/load.ts";
import { CliUsageError } from "./usage.ts";
import { type Facts, needed, readBytes, readJson, report } from "./verify/report.ts";

const USAGE = "policy check FILE [--roots PEM] [--facts JSON] [--json]";

export async function policyCommand(args: readonly string[]): Promise<number> {
  const { positionals, values } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      roots: { type: "string" },
      facts: { type: "string" },
      json: { type: "boolean" },
    },
  });
  const [verb, file] = positionals;
  if (verb !== "check") throw new CliUsageError(`expected: stile ${USAGE}`);
  const policyFile = needed(file, USAGE);
  const pem = values.roots === undefined ? undefined : Buffer.from(readBytes(values.roots));
  return report(values.json ?? false, async (): Promise<Facts> => {
    const roots = pem === undefined ? undefined : await parseTrustedRoots(pem.toString("utf8"));
    const base = { pcrs: [0, 1, 2, 3, 4, 5, 6, 7], channelBinding: "required" } as const;
    const policy = await loadPolicy(policyFile, base, roots);
    if (values.facts === undefined) return summaryOf(policy);
    return appraisalOf(policy, readJson(values.facts));
  });
}

function summaryOf(policy: AppraisalPolicy): Facts {
  const { classes, eventLog, revocation, ...rest } = policy;
  return {
    verdict: "valid",
    ...rest,
    revocation: { mode: revocation.mode, lists: revocation.lists.length },
    eventLog: { ...eventLog, bootApplications: [...(eventLog.bootApplications ?? ["any"])] },
    classes,
  };
}

/** @throws `ATTEST_POLICY_REFUSED` that names the rule */
function appraisalOf(policy: AppraisalPolicy, json: unknown): Facts {
  const appraisal = appraise(policy, readFacts(json));
  if (appraisal.decision === "affirmed") return { verdict: appraisal.decision, ...appraisal };
  const { detail = "refused", rule } = appraisal.decidedBy;
  throw new StileError("ATTEST_POLICY_REFUSED", `policy rule ${rule}: ${detail}`);
}
