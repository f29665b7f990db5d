/**
 * Which settings have an effect in which role. What would have none is refused: who writes it believes that it
 * protects or limits something. A setting that this table does not name has an effect in every role.
 */
import { givenAt } from "./given.ts";
import type { Role } from "./types.ts";

interface SettingUse {
  /** The full path; what is below it is meant, too. */
  readonly setting: string;
  readonly roles: readonly Role[];
  /** Without it, these roles cannot start. */
  readonly isRequired?: true;
}

const ROLES: readonly Role[] = ["joint", "edge", "attester", "issuer"];
const EDGES: readonly Role[] = ["joint", "edge"];
const ATTESTERS: readonly Role[] = ["joint", "attester"];
const ISSUERS: readonly Role[] = ["joint", "issuer"];

/**
 * Of the section `issuer`, all roles have tokenTypes, publicMetadata and redeemableSeconds: a client's tokens with
 * public metadata pass through all of them, and the three are checked together (docs/public-metadata.md).
 */
const USES: readonly SettingUse[] = [
  { setting: "edge", roles: EDGES, isRequired: true },
  { setting: "edge.issuer", roles: ["edge"], isRequired: true },
  // Of the page, which is for browsers that can attest at the same origin.
  { setting: "edge.fallbackUrl", roles: ["joint"] },
  { setting: "attester", roles: ATTESTERS, isRequired: true },
  { setting: "attester.issuer", roles: ["attester"], isRequired: true },
  { setting: "issuer.attesters", roles: ["issuer"], isRequired: true },
  { setting: "issuer.tenants", roles: ["issuer"] },
  { setting: "issuer.workers", roles: ISSUERS },
  { setting: "issuer.maxQueue", roles: ISSUERS },
  { setting: "issuer.voprfEngine", roles: ISSUERS },
  { setting: "issuer.maxBatch", roles: ["joint", "attester", "issuer"] },
  // An edge of its own follows keys by them.
  { setting: "issuer.activeSeconds", roles: ["joint", "edge", "issuer"] },
  { setting: "issuer.directoryMaxAgeSeconds", roles: ["joint", "edge", "issuer"] },
  { setting: "tls.clientCertificates", roles: EDGES },
  // An issuer of its own gives no tickets: it asks for a certificate on every connection.
  { setting: "tls.ticketKeySeconds", roles: ["joint", "edge", "attester"] },
  { setting: "tls.ticketKeyFile", roles: ["joint", "edge", "attester"] },
];

/** The roles that a setting has an effect in. */
export function rolesOf(setting: string): readonly Role[] {
  const uses = USES.filter(
    (use) => setting === use.setting || setting.startsWith(`${use.setting}.`),
  );
  return ROLES.filter((role) => uses.every(({ roles }) => roles.includes(role)));
}

/** @param raw as it was written, before defaults: hostile only in that it may be anything */
export function roleFaults(raw: unknown): readonly string[] {
  const said = givenAt(raw, "role") ?? "joint";
  const role = ROLES.find((one) => one === said);
  // What the schema says of it is enough.
  if (role === undefined) return [];
  return USES.flatMap(({ isRequired, roles, setting }) => {
    const value = givenAt(raw, setting);
    const isForIt = roles.includes(role);
    // Below a section that is refused, or that lacks, nothing more is said.
    if (!rolesOf(parentOf(setting)).includes(role)) return [];
    if (!isForIt) return value === undefined ? [] : [`${setting} is not for the role ${role}`];
    return isRequired === true && isMissing(value) ? [`missing setting ${setting}`] : [];
  });
}

function parentOf(setting: string): string {
  return setting.split(".").slice(0, -1).join(".");
}

function isMissing(value: unknown): boolean {
  return value === undefined || (Array.isArray(value) && value.length === 0);
}
