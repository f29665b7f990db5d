/** Reads a policy file into the value that the attester appraises by. */
import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import {
  type AppraisalPolicy,
  checkAppraisalPolicy,
  DEFAULT_APPRAISAL_POLICY,
  parseRevocationLists,
  type RevocationPolicy,
  type TrustedRoots,
} from "../../attest/index.ts";
import { decodeHex, isStileError, StileError } from "../../wire/index.ts";
import { parseYaml } from "../config/yaml.ts";
import { checkPolicyFile, type PolicyFile } from "./schema.ts";

const MAX_FILE_CHARS = 1_048_576;

/** What the deployment says, whatever the policy. */
export interface PolicyBase {
  /** PCRs of the SHA-256 bank, where the file names no banks. */
  readonly pcrs: readonly number[];
  readonly channelBinding: AppraisalPolicy["channelBinding"];
}

/**
 * @param path undefined: the default policy
 * @param roots whose certificates sign the CRLs that the file names; needed only with those
 * @throws `SERVICE_CONFIG_INVALID`
 */
export async function loadPolicy(
  path: string | undefined,
  base: PolicyBase,
  roots: TrustedRoots | undefined,
): Promise<AppraisalPolicy> {
  const pcrBanks = [{ hash: "sha256", pcrs: base.pcrs }] as const;
  const { channelBinding } = base;
  const standard = { ...DEFAULT_APPRAISAL_POLICY, channelBinding, pcrBanks };
  if (path === undefined) return standard;
  const file = readPolicyFile(path);
  try {
    const revocation = await revocationOf(file, dirname(path), roots);
    const policy = { ...merge(standard, file), revocation };
    checkAppraisalPolicy(policy);
    return policy;
  } catch (cause) {
    if (!isStileError(cause) && !(cause instanceof RangeError)) throw cause;
    throw invalid(path, cause.message, cause);
  }
}

/** @throws `SERVICE_CONFIG_INVALID` that names each rule that is not understood */
function readPolicyFile(path: string): PolicyFile {
  let content: string;
  try {
    content = readFileSync(path, "utf8");
  } catch (cause) {
    throw invalid(path, "cannot be read", cause);
  }
  if (content.length > MAX_FILE_CHARS) throw invalid(path, "is too large");
  return checkPolicyFile(parseYaml(content, path), `policy ${path}`);
}

function merge(standard: AppraisalPolicy, file: PolicyFile): AppraisalPolicy {
  const { bootApplications, ...eventLog } = file.eventLog ?? {};
  return {
    ...standard,
    id: file.id,
    allowSha1: file.allowSha1 ?? standard.allowSha1,
    pcrBanks: file.pcrBanks ?? standard.pcrBanks,
    referenceValues: (file.referenceValues ?? []).map((row) => ({
      ...row,
      value: decodeHex(row.value),
    })),
    manufacturers: {
      allow: file.manufacturers?.allow,
      deny: file.manufacturers?.deny ?? [],
    },
    acceptOddities: file.acceptOddities ?? [],
    firmware: { ...standard.firmware, ...file.firmware },
    refuseClockFindings: file.refuseClockFindings ?? standard.refuseClockFindings,
    eventLog: {
      ...standard.eventLog,
      ...eventLog,
      bootApplications: bootApplications === undefined ? undefined : new Set(bootApplications),
    },
    classes: file.classes ?? standard.classes,
  };
}

/** File names are relative to the policy's folder. */
async function revocationOf(
  { revocation }: PolicyFile,
  folder: string,
  roots: TrustedRoots | undefined,
): Promise<RevocationPolicy> {
  const mode = revocation?.mode ?? DEFAULT_APPRAISAL_POLICY.revocation.mode;
  const files = (revocation?.crlFiles ?? []).map((name) => resolve(folder, name));
  if (files.length === 0) return { mode, lists: [] };
  if (roots === undefined) throw new RangeError("revocation.crlFiles: manufacturer roots expected");
  const lists = await parseRevocationLists(
    files.map((file) => readList(file)),
    roots,
  );
  return { mode, lists };
}

function readList(path: string): Uint8Array {
  try {
    return Uint8Array.from(readFileSync(path));
  } catch (cause) {
    throw invalid(path, "cannot be read", cause);
  }
}

function invalid(path: string, reason: string, cause?: unknown): StileError {
  return new StileError("SERVICE_CONFIG_INVALID", `policy ${path}: ${reason}`, { cause });
}
