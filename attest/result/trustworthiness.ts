/**
 * The AR4SI trustworthiness vector (draft-ietf-rats-ar4si §2.3) as it stands in an EAR
 * (draft-ietf-rats-ear §3.2), and the status that follows from it: the worst claim decides.
 */

/** AR4SI §2.3: each claim is a whole number from -128 to 127. */
export interface TrustworthinessVector {
  readonly instanceIdentity: number;
  readonly configuration: number;
  readonly executables: number;
  readonly fileSystem: number;
  readonly hardware: number;
  readonly runtimeOpaque: number;
  readonly storageOpaque: number;
  readonly sourcedData: number;
}

/** AR4SI §2.2, from the best that can be said to the worst. */
const TIERS = ["none", "affirming", "warning", "contraindicated"] as const;
type TrustworthinessTier = (typeof TIERS)[number];

/** Names in JSON. */
const CLAIM_NAMES: Readonly<Record<keyof TrustworthinessVector, string>> = {
  instanceIdentity: "instance-identity",
  configuration: "configuration",
  executables: "executables",
  fileSystem: "file-system",
  hardware: "hardware",
  runtimeOpaque: "runtime-opaque",
  storageOpaque: "storage-opaque",
  sourcedData: "sourced-data",
};
const CLAIMS = Object.keys(CLAIM_NAMES) as (keyof TrustworthinessVector)[];

/** AR4SI §2.2: negative values are a vendor's own, with the same tiers one further from zero. */
function tierOf(claim: number): TrustworthinessTier {
  if (!isClaim(claim)) throw new RangeError("expected a whole number from -128 to 127");
  const size = claim < 0 ? -claim - 1 : claim;
  if (size <= 1 && claim >= -1) return "none";
  if (size <= 31) return "affirming";
  return size <= 95 ? "warning" : "contraindicated";
}

/** `ear.status`: a claim that says nothing does not count. @throws RangeError */
export function statusOf(vector: TrustworthinessVector): TrustworthinessTier {
  const worst = Math.max(...CLAIMS.map((name) => TIERS.indexOf(tierOf(vector[name]))));
  return TIERS[worst] ?? "contraindicated";
}

export function encodeTrustworthinessVector(vector: TrustworthinessVector): Record<string, number> {
  return Object.fromEntries(CLAIMS.map((name) => [CLAIM_NAMES[name], vector[name]]));
}

/** Undefined for anything but an object of exactly these eight claims. */
export function parseTrustworthinessVector(json: unknown): TrustworthinessVector | undefined {
  if (typeof json !== "object" || json === null) return undefined;
  const values = json as Readonly<Record<string, unknown>>;
  if (Object.keys(values).length !== CLAIMS.length) return undefined;
  const vector: Partial<Record<keyof TrustworthinessVector, number>> = {};
  for (const name of CLAIMS) {
    const value = values[CLAIM_NAMES[name]];
    if (typeof value !== "number" || !isClaim(value)) return undefined;
    vector[name] = value;
  }
  return vector as TrustworthinessVector;
}

function isClaim(value: number): boolean {
  return Number.isInteger(value) && value >= -128 && value <= 127;
}
