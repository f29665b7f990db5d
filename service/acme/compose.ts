/**
 * Puts ACME together: orders, the challenges of those under way, and the renewal. It runs in the one process that holds
 * the state folder; the processes that serve the public port need no more than `files.ts`.
 */
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { StileError } from "../../wire/index.ts";
import type { AcmeConfig, Config } from "../config/index.ts";
import type { Es256Key, SidecarSecrets } from "../secrets.ts";
import type { Composition } from "../sidecar.ts";
import { openAccount } from "./account.ts";
import { createPendingChallenges, type PendingChallenges } from "./challenges.ts";
import { pendingFolder, wantedCertificates } from "./files.ts";
import { readKept } from "./issued.ts";
import { orderCertificate } from "./order.ts";
import { certificateId, fetchRenewalInfo } from "./renewal-info.ts";
import { type CertificateStatus, createRenewal, type RenewalOptions } from "./renewal.ts";
import { type AcmeSession, createAcmeSession } from "./session.ts";

export interface AcmeDeps extends Pick<Composition, "clock" | "log" | "metrics" | "onClose"> {
  readonly config: Pick<Config, "acme" | "stateDir">;
  readonly secrets: Pick<SidecarSecrets, "acmeAccountKey">;
}

export interface ComposedAcme {
  /** For the listener of plain HTTP. */
  readonly keyAuthorization: PendingChallenges["keyAuthorization"];
  /** Asks for what is due, now and later. Call it once the listeners answer. */
  readonly start: (onIssued: () => void) => void;
  /** Asks for what is due now. */
  readonly look: () => Promise<void>;
  readonly status: () => readonly CertificateStatus[];
}

const LOOK_MS = 10_000;
const DAY_MS = 86_400_000;

/** @throws `SERVICE_CONFIG_INVALID` where a file cannot be read */
export async function composeAcme(deps: AcmeDeps, acme: AcmeConfig): Promise<ComposedAcme> {
  const { clock, config, log, metrics, onClose, secrets } = deps;
  const challenges = await createPendingChallenges(pendingFolder(config), clock);
  const stopping = new AbortController();
  let onIssued = (): void => undefined;
  const renewal = createRenewal({
    certificates: wantedCertificates(config),
    renewBeforeMs: acme.renewBeforeDays && acme.renewBeforeDays * DAY_MS,
    ...createClient(acme, {
      accountKey: await secrets.acmeAccountKey(acme.directoryUrl),
      challenges,
      clock,
      signal: stopping.signal,
    }),
    onIssued: () => onIssued(),
    observe: (outcome, { names: [name] }, reason) => {
      if (stopping.signal.aborted) return;
      metrics.acmeOrders.inc({ outcome });
      log.write(outcome === "OK" ? "info" : "error", "acme", { code: outcome, name, reason });
    },
    clock,
    random: Math.random,
  });
  return {
    keyAuthorization: challenges.keyAuthorization,
    status: renewal.status,
    look: renewal.look,
    start: (callback) => {
      onIssued = callback;
      const timer = setInterval(() => void renewal.look(), LOOK_MS);
      timer.unref();
      void renewal.look();
      onClose(async () => {
        clearInterval(timer);
        stopping.abort();
        // What is under way ends with the signal; a file that is being written is written whole.
        await renewal.look();
      });
    },
  };
}

interface ClientDeps {
  readonly accountKey: Es256Key;
  readonly challenges: PendingChallenges;
  readonly clock: () => number;
  readonly signal: AbortSignal;
}

type Client = Pick<RenewalOptions, "issue" | "renewalInfo">;

/** Each time a session of its own: they are hours or months apart. */
function createClient(acme: AcmeConfig, deps: ClientDeps): Client {
  const { accountKey, challenges, clock, signal } = deps;
  const { contact, directoryUrl } = acme;
  const ca = acme.caFile === undefined ? undefined : readSetting("caFile", acme.caFile);
  const external = externalAccountOf(acme);

  async function inSession<T>(action: (session: AcmeSession) => Promise<T>): Promise<T> {
    signal.throwIfAborted();
    const session = createAcmeSession({ directoryUrl, ca, accountKey, clock, signal });
    try {
      return await action(session);
    } finally {
      session.close();
    }
  }

  return {
    renewalInfo: ({ file }) =>
      inSession(async (session) => fetchRenewalInfo(session, readFileSync(file, "utf8"), clock())),
    issue: ({ file, keyType, names }, isFirst) =>
      inSession(async (session) =>
        orderCertificate({
          account: await openAccount({ session, key: accountKey, contact, external }),
          names,
          keyType,
          // A server that does not know the old one would refuse each order: said once.
          replaces: isFirst && readKept(file, names) ? certificateIdIn(file) : undefined,
          challengeType: acme.challenge,
          pending: challenges,
          clock,
          wait: async (ms) => sleep(ms, undefined, { signal }),
        }),
      ),
  };
}

function certificateIdIn(file: string): string | undefined {
  return certificateId(readFileSync(file, "utf8"));
}

function externalAccountOf({
  externalAccount,
}: AcmeConfig): { readonly keyId: string; readonly hmacKey: Uint8Array } | undefined {
  if (externalAccount === undefined) return undefined;
  const { hmacKeyFile, keyId } = externalAccount;
  const text = readSetting("externalAccount.hmacKeyFile", hmacKeyFile).trim();
  if (!/^[A-Za-z0-9_-]{22,512}={0,2}$/.test(text)) {
    throw invalidSetting("externalAccount.hmacKeyFile", "expected base64url");
  }
  return { keyId, hmacKey: Uint8Array.from(Buffer.from(text, "base64url")) };
}

function readSetting(name: string, file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    throw invalidSetting(name, `cannot read ${file}`, cause);
  }
}

function invalidSetting(name: string, reason: string, cause?: unknown): StileError {
  const message = `configuration: acme.${name}: ${reason}`;
  return new StileError("SERVICE_CONFIG_INVALID", message, { cause });
}
