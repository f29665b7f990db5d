/**
 * Known faults of firmware that leave a log short of what was extended (E9): named, off unless a policy
 * allows them, tried only where the strict replay fails, and named in the result.
 */
import { encodeUtf8 } from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";
import { hashRow } from "../structures/constants.ts";
import { EV_EFI_ACTION } from "./event-types.ts";
import type { EventLog, TcgEvent } from "./parse-event-log.ts";

export type EventLogWorkaround = "exit-boot-services-missing";

interface WorkaroundRow {
  readonly meaning: string;
  /** The log as it should have been. */
  readonly apply: (log: EventLog, crypto: AttestCrypto) => EventLog;
}

/** PFP §10.4.4. */
const EXIT_BOOT_SERVICES = [
  "Exit Boot Services Invocation",
  "Exit Boot Services Returned with Success",
] as const;

export const EVENT_LOG_WORKAROUNDS: Readonly<Record<EventLogWorkaround, WorkaroundRow>> = {
  "exit-boot-services-missing": {
    meaning: "the log was read out before ExitBootServices, whose two events are in PCR 5",
    apply: (log, crypto) => ({
      ...log,
      events: [
        ...log.events,
        ...EXIT_BOOT_SERVICES.map((text, i) =>
          actionEvent(log, crypto, log.events.length + i, encodeUtf8(text)),
        ),
      ],
    }),
  },
};

function actionEvent(
  log: EventLog,
  crypto: AttestCrypto,
  index: number,
  event: Uint8Array,
): TcgEvent {
  const digests = new Map<number, Uint8Array>();
  for (const { alg } of log.algorithms) {
    const row = hashRow(alg);
    if (row !== undefined) digests.set(alg, crypto.hash(row.name, event));
  }
  return { index, pcrIndex: 5, eventType: EV_EFI_ACTION, digests, event };
}
