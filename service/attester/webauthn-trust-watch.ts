/**
 * Trust in authenticators that follows its files: metadata and status lists grow stale, and an attester that
 * had to be restarted for them would refuse everybody first. A file that cannot be used leaves what was in
 * force: less would refuse everybody, and more is nothing that was read.
 */
import { statSync } from "node:fs";
import type { WebAuthnTrust } from "../../attest/webauthn/index.ts";
import { errorFields, type Log } from "../log.ts";
import { loadWebAuthnTrust, type TrustLoad, trustFiles } from "./webauthn-trust.ts";

export interface TrustWatch {
  readonly trust: () => WebAuthnTrust;
  /** Reads all files again where one has changed. Never rejects. */
  readonly look: () => Promise<void>;
}

export interface TrustWatchOptions extends Omit<TrustLoad, "minNumber"> {
  readonly log: Log;
}

/** @throws `SERVICE_CONFIG_INVALID` at the start, where nothing is in force yet */
export async function createTrustWatch(options: TrustWatchOptions): Promise<TrustWatch> {
  const { config, log } = options;
  // Before they are read: what changes in between is read once more.
  let seen = versionsOf(trustFiles(config));
  let trust = await loadWebAuthnTrust(options);
  return {
    trust: () => trust,
    look: async () => {
      const versions = versionsOf(trustFiles(config));
      if (versions === seen) return;
      // Also where it fails: a file that is broken is complained of once, and read again when it changes.
      seen = versions;
      try {
        trust = await loadWebAuthnTrust({ ...options, minNumber: trust.metadata?.number ?? 0 });
        log.write("info", "webauthn.trust-reloaded");
      } catch (error) {
        log.write("error", "webauthn.trust-reload-failed", errorFields(error));
      }
    },
  };
}

function versionsOf(paths: readonly string[]): string {
  const stats = paths.map((path) => statSync(path, { throwIfNoEntry: false }));
  return stats.map((stat) => (stat === undefined ? "none" : `${stat.mtimeMs} ${stat.size}`)).join();
}
