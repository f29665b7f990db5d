/**
 * Replay of a log (E3, E4; PFP §3.3): what each PCR of one bank would hold if exactly these events had
 * been extended, in this order. Says nothing about a TPM; `verify-event-log.ts` compares.
 */
import { concatBytes, StileError } from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";
import type { HashRow } from "../structures/constants.ts";
import { EV_EFI_HCRTM_EVENT, EV_NO_ACTION } from "./event-types.ts";
import { type EventLog, isText, type TcgEvent } from "./parse-event-log.ts";

const PCR_COUNT = 24;
/** PCRs of the dynamic root of trust hold all ones until it is started (PFP §2.3.2). */
const FIRST_DYNAMIC_PCR = 17;
const LAST_DYNAMIC_PCR = 22;
const STARTUP_LOCALITY = "StartupLocality\0";
/** TPM2_Startup at locality 3, or after an H-CRTM sequence at locality 4 (PFP §10.4.5.3). */
const LOCALITIES: ReadonlySet<number> = new Set([0, 3, 4]);
const HCRTM_LOCALITY = 4;

/**
 * The value of every PCR, by its number.
 * @throws `ATTEST_EVENT_LOG_INVALID` where the log has no such bank, or two startup localities
 */
export function replayEventLog(
  log: EventLog,
  hash: HashRow,
  crypto: AttestCrypto,
): readonly Uint8Array[] {
  if (!log.algorithms.some(({ alg }) => alg === hash.alg)) {
    throw new StileError("ATTEST_EVENT_LOG_INVALID", "the event log has no digests of this bank");
  }
  const dynamic = new Set(log.events.filter(isExtended).map(({ pcrIndex }) => pcrIndex));
  const values = Array.from({ length: PCR_COUNT }, (_, pcr): Uint8Array => {
    const isDynamic = pcr >= FIRST_DYNAMIC_PCR && pcr <= LAST_DYNAMIC_PCR;
    return new Uint8Array(hash.digestBytes).fill(isDynamic && !dynamic.has(pcr) ? 0xff : 0);
  });
  values[0] = new Uint8Array(hash.digestBytes);
  values[0][hash.digestBytes - 1] = startupLocality(log.events);
  for (const event of log.events) {
    const digest = event.digests.get(hash.alg);
    const value = values[event.pcrIndex];
    if (!isExtended(event) || digest === undefined || value === undefined) continue;
    values[event.pcrIndex] = crypto.hash(hash.name, concatBytes([value, digest]));
  }
  return values;
}

/** E4: EV_NO_ACTION tells something and is not extended. */
export function isExtended(event: TcgEvent): boolean {
  return event.eventType !== EV_NO_ACTION;
}

function startupLocality(events: readonly TcgEvent[]): number {
  const said = events.filter(isStartupLocality);
  const first = said[0];
  if (first === undefined) {
    const isHcrtm = events.some(
      ({ eventType, pcrIndex }) => eventType === EV_EFI_HCRTM_EVENT && pcrIndex === 0,
    );
    return isHcrtm ? HCRTM_LOCALITY : 0;
  }
  const locality = first.event[STARTUP_LOCALITY.length] ?? 0;
  const isEarlier = events.some(
    (event) => event.pcrIndex === 0 && isExtended(event) && event.index < first.index,
  );
  const isHcrtmFirst = events.some(
    (event) => event.eventType === EV_EFI_HCRTM_EVENT && event.index < first.index,
  );
  if (said.length > 1 || !LOCALITIES.has(locality) || (isEarlier && !isHcrtmFirst)) {
    throw new StileError(
      "ATTEST_EVENT_LOG_INVALID",
      "the event log's startup locality is repeated, late or unknown",
    );
  }
  return locality;
}

function isStartupLocality(event: TcgEvent): boolean {
  return (
    event.eventType === EV_NO_ACTION &&
    event.pcrIndex === 0 &&
    event.event.length === STARTUP_LOCALITY.length + 1 &&
    isText(event.event.subarray(0, STARTUP_LOCALITY.length), STARTUP_LOCALITY)
  );
}
