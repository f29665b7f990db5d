/**
 * `stile verify eventlog` and `stile verify ima`: logs against PCR values. The values are taken as they are
 * given: they are worth what the quote is that they come from (`stile verify quote`).
 */
import { parseArgs } from "node:util";
import {
  EVENT_LOG_WORKAROUNDS,
  type EventLogWorkaround,
  eventTypeName,
  type VerifiedEventLog,
  verifyEventLog,
} from "../../../attest/eventlog/index.ts";
import { verifyImaLog } from "../../../attest/ima/index.ts";
import { createNodeAttestCrypto } from "../../../attest/node/index.ts";
import { CliUsageError } from "../usage.ts";
import { readPcrValues } from "./pcr-values.ts";
import { type Facts, needed, readBytes, report } from "./report.ts";

export const EVENT_LOG_USAGE =
  "verify eventlog LOG --pcrs JSON [--workaround NAME ...] [--require PCR,...] [--events]";
export const IMA_USAGE = "verify ima LOG --form ascii|binary --pcrs JSON";

export function verifyEventLogCommand(args: readonly string[]): Promise<number> {
  const { positionals, values } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      pcrs: { type: "string" },
      workaround: { type: "string", multiple: true },
      require: { type: "string" },
      events: { type: "boolean" },
      json: { type: "boolean" },
    },
  });
  const log = readBytes(needed(positionals[0], EVENT_LOG_USAGE));
  const pcrValues = readPcrValues(needed(values.pcrs, EVENT_LOG_USAGE));
  const workarounds = (values.workaround ?? []).map((name) => workaroundOf(name));
  const required = values.require?.split(",").map(Number);
  return report(values.json ?? false, () =>
    eventLogFacts(
      verifyEventLog({
        log,
        quote: { kind: "verified-quote", pcrValues },
        crypto: createNodeAttestCrypto(),
        workarounds,
        ...(required === undefined ? {} : { requiredPcrs: required }),
      }),
      values.events ?? false,
    ),
  );
}

function eventLogFacts(verified: VerifiedEventLog, withEvents: boolean): Facts {
  const { boot, log, secureBoot } = verified;
  return {
    format: log.format,
    eventCount: log.events.length,
    coveredPcrs: verified.coveredPcrs,
    uncoveredPcrs: verified.uncoveredPcrs,
    workarounds: verified.workarounds,
    secureBoot: {
      state: secureBoot.state,
      databases: secureBoot.databases.map(({ name, signatures, covered }) => ({
        name,
        entries: signatures.length,
        covered,
      })),
      authorities: secureBoot.authorities.map(({ variable, owner, isInDb, covered }) => ({
        variable,
        owner,
        isInDb,
        covered,
      })),
    },
    earlyApplications: boot.earlyApplications,
    bootApplications: boot.bootApplications,
    drivers: boot.drivers,
    loader: boot.loader.map(({ pcrIndex, text, covered }) => ({ pcr: pcrIndex, covered, text })),
    findings: verified.findings,
    ...(withEvents
      ? {
          events: log.events.map(({ index, pcrIndex, eventType, event }) => ({
            index,
            pcr: pcrIndex,
            type: eventTypeName(eventType),
            bytes: event.length,
            covered: verified.coveredPcrs.includes(pcrIndex),
          })),
        }
      : {}),
  };
}

export function verifyImaCommand(args: readonly string[]): Promise<number> {
  const { positionals, values } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      form: { type: "string" },
      pcrs: { type: "string" },
      json: { type: "boolean" },
    },
  });
  const log = readBytes(needed(positionals[0], IMA_USAGE));
  const { form } = values;
  if (form !== "ascii" && form !== "binary") throw new CliUsageError(`expected: ${IMA_USAGE}`);
  const pcrValues = readPcrValues(needed(values.pcrs, IMA_USAGE));
  return report(values.json ?? false, (): Facts => {
    const verified = verifyImaLog({
      log,
      form,
      quote: { kind: "verified-quote", pcrValues },
      crypto: createNodeAttestCrypto(),
    });
    return {
      entryCount: verified.entries.length,
      laterEntries: verified.later,
      violations: verified.violations.length,
      extension: verified.extension,
      bootAggregate: verified.bootAggregate,
      entries: verified.entries.map(({ path, fileHash, fileDigest, signature }) => ({
        path,
        fileHash,
        fileDigest,
        signed: signature !== undefined,
      })),
    };
  });
}

function workaroundOf(name: string): EventLogWorkaround {
  const known = Object.keys(EVENT_LOG_WORKAROUNDS) as EventLogWorkaround[];
  const workaround = known.find((row) => row === name);
  if (workaround === undefined) throw new CliUsageError(`--workaround: one of ${known.join(", ")}`);
  return workaround;
}
