/**
 * Firmware versions of TPMs with published vulnerabilities (checklist A10), as data: what a vendor's
 * advisory says, no more. New advisories are new rows; an operator may add his own.
 * A version is dotted, up to four numbers of 16 bits: TPM_PT_FIRMWARE_VERSION_1 and _2 from the high half.
 * Both ends belong to a range; numbers that are left out mean every value at the upper end.
 */
export interface VulnerableFirmware {
  readonly cve: string;
  /** `id:` and the TCG vendor identifier in upper-case hexadecimal. */
  readonly manufacturer: string;
  /** Undefined: the advisory names versions of something else, so that any may be affected. */
  readonly versions: { readonly from: string; readonly to: string } | undefined;
  /** Which of the TPM's keys it endangers. */
  readonly keyTypes: readonly ("rsa" | "ecc")[];
  readonly impact: "weak-keys" | "key-extraction" | "memory-corruption" | "denial-of-service";
  /** The advisory. */
  readonly source: string;
}

const INFINEON = "id:49465800";
const INTEL = "id:494E5443";
const NUVOTON = "id:4E544300";
const ST = "id:53544D20";

const rocaRange = (from: string, to: string): VulnerableFirmware => ({
  cve: "CVE-2017-15361",
  manufacturer: INFINEON,
  versions: { from, to },
  keyTypes: ["rsa"],
  impact: "weak-keys",
  source: "NVD CVE-2017-15361; Microsoft ADV170012; Infineon TPM update page",
});

/** ST lists single versions, not ranges: "products and firmware not listed are not affected". */
const tpmFail = (version: string): VulnerableFirmware => ({
  cve: "CVE-2019-16863",
  manufacturer: ST,
  versions: { from: version, to: version },
  keyTypes: ["ecc"],
  impact: "key-extraction",
  source: "ST, Information on ST's TPM firmware update: ECDSA signature generation",
});

const nuvotonEcc = (version: string): VulnerableFirmware => ({
  cve: "CVE-2020-25082",
  manufacturer: NUVOTON,
  versions: { from: version, to: version },
  keyTypes: ["ecc"],
  impact: "key-extraction",
  source: "Nuvoton SA-002 (NPCT75x)",
});

const nuvotonWrite = (version: string): VulnerableFirmware => ({
  cve: "CVE-2023-1017",
  manufacturer: NUVOTON,
  versions: { from: version, to: version },
  keyTypes: ["rsa", "ecc"],
  impact: "denial-of-service",
  source: "Nuvoton SA-003 (NPCT65x)",
});

export const VULNERABLE_FIRMWARE: readonly VulnerableFirmware[] = [
  rocaRange("4.0", "4.33"),
  rocaRange("4.40", "4.42"),
  rocaRange("5.0", "5.61"),
  rocaRange("6.0", "6.42"),
  rocaRange("7.0", "7.61"),
  rocaRange("133.0", "133.32"),
  ...["71.0", "71.4", "71.12"].map(tpmFail),
  ...["73.0", "73.4", "73.5", "73.8", "73.9"].map(tpmFail),
  ...["74.0", "74.4", "74.5", "74.8", "74.9", "74.16"].map(tpmFail),
  {
    // Intel states versions of CSME, TXE and SPS, which no field of the TPM carries.
    cve: "CVE-2019-11090",
    manufacturer: INTEL,
    versions: undefined,
    keyTypes: ["ecc"],
    impact: "key-extraction",
    source: "Intel-SA-00241",
  },
  ...["7.2.0.1", "7.2.0.2", "7.2.1.0"].map(nuvotonEcc),
  ...["1.3.0.1", "1.3.1.0", "1.3.2.8"].map(nuvotonWrite),
  {
    cve: "CVE-2025-2884",
    manufacturer: INFINEON,
    versions: { from: "15.20", to: "15.22" },
    keyTypes: ["rsa", "ecc"],
    impact: "memory-corruption",
    source: "TCG VRT0009; Infineon TPM update page (SLB 9672, 9673: fixed in 15.23)",
  },
];
