/**
 * Whether the running Node lacks fixes that this service depends on. Facts as of November 2026: the October releases
 * fixed High vulnerabilities in `tls` and `dns` (Node.js security advisories of 21 October 2026); with 24.11 and 26.0,
 * the tests of floods by HTTP/2 frames fail.
 */

/** The line that this service is tested with, and its first release with the fixes. */
const LINE = 26;
const FIRST_FIXED = { minor: 12, patch: 1 } as const;

/** One sentence where `version` (as in `process.versions.node`) lacks known fixes, else undefined. */
export function missingFixes(version: string): string | undefined {
  const [major = 0, minor = 0, patch = 0] = version.split(".").map(Number);
  const wanted = `use ${LINE}.${FIRST_FIXED.minor}.${FIRST_FIXED.patch} or newer in production`;
  if (major > LINE) return undefined;
  if (major < LINE) return `Node ${version} does not tell of floods over HTTP/2: ${wanted}`;
  const isFixed =
    minor > FIRST_FIXED.minor || (minor === FIRST_FIXED.minor && patch >= FIRST_FIXED.patch);
  return isFixed ? undefined : `Node ${version} lacks security fixes in tls and dns: ${wanted}`;
}
