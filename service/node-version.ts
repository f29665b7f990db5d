/**
 * Whether the running Node lacks security fixes that this service depends on. Facts as of November 2026:
 * the October releases fixed High vulnerabilities in `tls` and `dns` (Node.js security advisories of
 * 21 October 2026), and the runtime in the lock file is older than they are. Production images use the
 * official Node image instead.
 */

/** For each release line the first version with the fixes, as [minor, patch]. */
const FIRST_FIXED: ReadonlyMap<number, readonly [number, number]> = new Map([
  [22, [23, 4]],
  [24, [22, 1]],
  [26, [12, 1]],
]);

/** One sentence where `version` (as in `process.versions.node`) lacks known fixes, else undefined. */
export function missingSecurityFixes(version: string): string | undefined {
  const [major = 0, minor = 0, patch = 0] = version.split(".").map(Number);
  const fixed = FIRST_FIXED.get(major);
  if (fixed === undefined) {
    const newest = Math.max(...FIRST_FIXED.keys());
    return major > newest ? undefined : `Node ${version} is of a line that gets no fixes any more`;
  }
  const [fixedMinor, fixedPatch] = fixed;
  if (minor > fixedMinor || (minor === fixedMinor && patch >= fixedPatch)) return undefined;
  const wanted = `${major}.${fixedMinor}.${fixedPatch}`;
  return `Node ${version} lacks security fixes in tls and dns: use ${wanted} or newer in production`;
}
