/**
 * The firmware of a TPM against the published vulnerabilities and the operator's own bounds (checklist
 * A10, D8). An EK certificate names the version that the chip left the factory with; a quote by an AK of
 * the endorsement hierarchy names the present one, and by an AK of another hierarchy a number that the TPM
 * has blurred (TPM 2.0 Part 2 §10.12), which must not be judged here.
 */
import { StileError } from "../../wire/index.ts";
import { VULNERABLE_FIRMWARE, type VulnerableFirmware } from "./vulnerable-firmware.ts";

/** What is known of a version: all that lie between the two, both included. */
export interface FirmwareVersion {
  /** 64 bits: TPM_PT_FIRMWARE_VERSION_1, then _2. */
  readonly lowest: bigint;
  readonly highest: bigint;
}

export interface TpmFirmware {
  /** `id:` and eight upper-case hexadecimal digits. */
  readonly manufacturer: string;
  /** Undefined: the vendor's text has no known form. */
  readonly version: FirmwareVersion | undefined;
  /** The types of the keys that are to be believed: EK, AK, device key. */
  readonly keyTypes: readonly ("rsa" | "ecc")[];
}

export interface FirmwarePolicy {
  /**
   * `affected` refuses what certainly has a vulnerability, `possible` also what may have one, `none`
   * only reports.
   */
  readonly refuse: "affected" | "possible" | "none";
  /** Vulnerabilities that are only reported, such as those that leak no key. */
  readonly ignore?: readonly VulnerableFirmware["impact"][];
  /** The operator's own rows, beside {@link VULNERABLE_FIRMWARE}. */
  readonly rows?: readonly VulnerableFirmware[];
  /** Oldest acceptable version by manufacturer; one that is not named has no bound. */
  readonly oldest?: Readonly<Record<string, string>>;
}

export interface FirmwareFinding {
  readonly cve: string;
  readonly impact: VulnerableFirmware["impact"];
  /** `possible`: the version is not known well enough to tell. */
  readonly certainty: "affected" | "possible";
}

const PART_BITS = 16n;
const PARTS = 4;
const LOW_HALF = 0xffff_ffffn;

/**
 * tpmVersion of an EK certificate: `id:` and eight hexadecimal digits, TPM_PT_FIRMWARE_VERSION_1, or four,
 * its two numbers in a byte each, as Infineon writes it.
 */
export function parseTpmVersion(tpmVersion: string): FirmwareVersion | undefined {
  const digits = /^id:([0-9A-Fa-f]{4}|[0-9A-Fa-f]{8})$/.exec(tpmVersion)?.[1];
  if (digits === undefined) return undefined;
  const full = digits.length === 8 ? digits : `00${digits.slice(0, 2)}00${digits.slice(2)}`;
  const lowest = BigInt(`0x${full}`) << 32n;
  return { lowest, highest: lowest | LOW_HALF };
}

/** @param firmwareVersion of a verified quote whose AK is in the endorsement hierarchy */
export function exactVersion(firmwareVersion: bigint): FirmwareVersion {
  return { lowest: firmwareVersion, highest: firmwareVersion };
}

/**
 * @returns what is reported and not refused
 * @throws `ATTEST_FIRMWARE_REFUSED`; RangeError for a policy whose versions have no known form
 */
export function checkFirmware(firmware: TpmFirmware, policy: FirmwarePolicy): FirmwareFinding[] {
  const findings = findVulnerabilities(firmware, [...VULNERABLE_FIRMWARE, ...(policy.rows ?? [])]);
  const isRefused = findings.some(
    ({ certainty, impact }) =>
      policy.refuse !== "none" &&
      policy.ignore?.includes(impact) !== true &&
      (certainty === "affected" || policy.refuse === "possible"),
  );
  if (isRefused) throw refused("a published vulnerability");
  const oldest = policy.oldest?.[firmware.manufacturer];
  // Where the version cannot be told apart from an older one, it does not pass for a newer one.
  if (oldest !== undefined && (firmware.version?.lowest ?? -1n) < dotted(oldest, 0n)) {
    throw refused("older than the policy allows");
  }
  return findings;
}

function findVulnerabilities(
  firmware: TpmFirmware,
  rows: readonly VulnerableFirmware[],
): FirmwareFinding[] {
  const findings = new Map<string, FirmwareFinding>();
  for (const row of rows) {
    if (row.manufacturer !== firmware.manufacturer) continue;
    if (!row.keyTypes.some((type) => firmware.keyTypes.includes(type))) continue;
    const certainty = certaintyOf(row, firmware.version);
    if (certainty === undefined || findings.get(row.cve)?.certainty === "affected") continue;
    findings.set(row.cve, { cve: row.cve, impact: row.impact, certainty });
  }
  return [...findings.values()];
}

function certaintyOf(
  { versions }: VulnerableFirmware,
  version: FirmwareVersion | undefined,
): FirmwareFinding["certainty"] | undefined {
  if (versions === undefined || version === undefined) return "possible";
  const from = dotted(versions.from, 0n);
  const to = dotted(versions.to, 0xffffn);
  if (version.highest < from || version.lowest > to) return undefined;
  return version.lowest >= from && version.highest <= to ? "affected" : "possible";
}

/** @param missing the value of the numbers that are left out */
function dotted(text: string, missing: bigint): bigint {
  const parts = text.split(".");
  const isVersion = parts.length <= PARTS && parts.every((part) => /^\d{1,5}$/.test(part));
  if (!isVersion) throw new RangeError("version: expected up to four numbers with dots");
  let value = 0n;
  for (let index = 0; index < PARTS; index += 1) {
    const part = parts[index];
    const number = part === undefined ? missing : BigInt(part);
    if (number > 0xffffn) throw new RangeError("version: expected numbers of 16 bits");
    value = (value << PART_BITS) | number;
  }
  return value;
}

function refused(why: string): StileError {
  return new StileError("ATTEST_FIRMWARE_REFUSED", `TPM firmware: ${why}`);
}
