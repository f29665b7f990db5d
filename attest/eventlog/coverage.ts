/**
 * What of a log the quoted PCRs vouch for (E3, E5). An event is covered where its PCR replays in every
 * bank that was quoted: then its digest was extended at that place. Its data is covered where, besides,
 * the digest is of that data. The type of an event is covered by nothing; it is only as good as the
 * meaning that its data, place and PCR have.
 */
import { constantTimeEqual } from "../../wire/index.ts";
import type { AttestCrypto } from "../crypto.ts";
import type { HashRow } from "../structures/constants.ts";
import { isDigestOfData } from "./event-types.ts";
import type { TcgEvent } from "./parse-event-log.ts";

export interface Coverage {
  /** Its digest is part of a quoted PCR. */
  readonly isCovered: (event: TcgEvent) => boolean;
  /** Its digest is, and is of this data. */
  readonly isDataCovered: (event: TcgEvent) => boolean;
  /** Its digest is, and is of these bytes, which the event names in another form. */
  readonly covers: (event: TcgEvent, data: Uint8Array) => boolean;
}

export function createCoverage(options: {
  readonly crypto: AttestCrypto;
  /** Banks that were quoted. */
  readonly banks: readonly HashRow[];
  readonly coveredPcrs: ReadonlySet<number>;
}): Coverage {
  const { banks, coveredPcrs, crypto } = options;
  const isCovered = (event: TcgEvent): boolean => coveredPcrs.has(event.pcrIndex);
  const covers = (event: TcgEvent, data: Uint8Array): boolean =>
    isCovered(event) &&
    banks.every(({ alg, name }) => {
      const digest = event.digests.get(alg);
      return digest !== undefined && constantTimeEqual(digest, crypto.hash(name, data));
    });
  return {
    isCovered,
    covers,
    isDataCovered: (event) => isDigestOfData(event.eventType) && covers(event, event.event),
  };
}
