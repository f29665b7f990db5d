/**
 * The appraisal policy as an operator writes it: a YAML file, each rule with its default. What is not said
 * is as `DEFAULT_APPRAISAL_POLICY` has it. Unknown rules are refused: a rule that is misspelt protects nothing.
 */
import { Type } from "typebox";
import { Value } from "typebox/value";
import {
  type AppraisalPolicy,
  type DeviceClass,
  EK_CERTIFICATE_ODDITIES,
  type EventLogRules,
  type FirmwarePolicy,
  HASH_ROWS,
  type HashName,
  type ManufacturerRules,
  type RevocationPolicy,
} from "../../attest/index.ts";
import { EVENT_LOG_FINDINGS, EVENT_LOG_WORKAROUNDS } from "../../attest/eventlog/index.ts";
import { StileError } from "../../wire/index.ts";
import { describeFaults } from "../config/faults.ts";

/** A policy as its file says it: what is not said is as the default has it. */
export interface PolicyFile {
  readonly id: string;
  readonly allowSha1?: boolean;
  readonly pcrBanks?: AppraisalPolicy["pcrBanks"];
  readonly referenceValues?: readonly {
    readonly hash: HashName;
    readonly pcr: number;
    /** Hexadecimal. */
    readonly value: string;
  }[];
  readonly manufacturers?: Partial<ManufacturerRules>;
  readonly acceptOddities?: AppraisalPolicy["acceptOddities"];
  readonly revocation?: {
    readonly mode?: RevocationPolicy["mode"];
    /** DER, relative to the policy's folder. */
    readonly crlFiles?: readonly string[];
  };
  readonly firmware?: Partial<Omit<FirmwarePolicy, "rows">>;
  readonly refuseClockFindings?: AppraisalPolicy["refuseClockFindings"];
  readonly eventLog?: Partial<Omit<EventLogRules, "bootApplications">> & {
    readonly bootApplications?: readonly string[];
  };
  readonly classes?: readonly DeviceClass[];
}

const closed = { additionalProperties: false } as const;
const MAX_LIST = 10_000;

function oneOf<T extends string>(words: readonly T[]): Type.TUnsafe<T> {
  return Type.Unsafe<T>({ type: "string", enum: words });
}

function listOf<T extends Type.TSchema>(item: T): Type.TArray<T> {
  return Type.Array(item, { maxItems: MAX_LIST, uniqueItems: true });
}

function namesOf<T extends object>(table: T): (keyof T & string)[] {
  return Object.keys(table) as (keyof T & string)[];
}

const hash = oneOf(HASH_ROWS.map(({ name }) => name));
const pcr = Type.Integer({ minimum: 0, maximum: 23 });
const digest = Type.String({ pattern: "^[0-9a-f]{64}$" });
/** TCG vendor identifier. */
const manufacturer = Type.String({ pattern: "^id:[0-9A-F]{8}$" });
const name = Type.String({ pattern: "^[a-z0-9][a-z0-9-]{0,63}$" });
const version = Type.String({ pattern: String.raw`^\d{1,5}(\.\d{1,5}){0,3}$` });

const clockFindings = [
  "clock-went-back",
  "reset-count-went-back",
  "restart-count-went-back",
  "firmware-went-back",
  "firmware-changed",
  "reset",
  "restart",
  "clock-not-safe",
  "counters-not-comparable",
] as const;

/** As the rules name them, for other files that do. */
export const clockFindingSchema: Type.TUnsafe<(typeof clockFindings)[number]> =
  oneOf(clockFindings);
export const eventLogFindingSchema: Type.TUnsafe<keyof typeof EVENT_LOG_FINDINGS> = oneOf(
  namesOf(EVENT_LOG_FINDINGS),
);

const eventLog = {
  mode: Type.Optional(oneOf(["off", "if-present", "required"])),
  secureBoot: Type.Optional(oneOf(["any", "on"])),
  bootApplications: Type.Optional(listOf(digest)),
  acceptFindings: Type.Optional(listOf(eventLogFindingSchema)),
  workarounds: Type.Optional(listOf(oneOf(namesOf(EVENT_LOG_WORKAROUNDS)))),
};

const deviceClass = {
  name,
  manufacturers: Type.Optional(listOf(manufacturer)),
  eventLog: Type.Optional(Type.Literal(true)),
  secureBoot: Type.Optional(Type.Literal("on")),
  tokens: Type.Optional(Type.Integer({ minimum: 1, maximum: 1_000_000 })),
};

const schema = Type.Object(
  {
    id: Type.String({ pattern: "^[a-z][a-z0-9+.-]*:[!-~]{1,200}$" }),
    allowSha1: Type.Optional(Type.Boolean()),
    pcrBanks: Type.Optional(Type.Array(Type.Object({ hash, pcrs: listOf(pcr) }, closed))),
    referenceValues: Type.Optional(
      listOf(
        Type.Object({ hash, pcr, value: Type.String({ pattern: "^([0-9a-f]{2})+$" }) }, closed),
      ),
    ),
    manufacturers: Type.Optional(
      Type.Object(
        {
          allow: Type.Optional(listOf(manufacturer)),
          deny: Type.Optional(listOf(manufacturer)),
        },
        closed,
      ),
    ),
    acceptOddities: Type.Optional(listOf(oneOf(namesOf(EK_CERTIFICATE_ODDITIES)))),
    revocation: Type.Optional(
      Type.Object(
        {
          mode: Type.Optional(oneOf(["when-available", "required", "off"])),
          crlFiles: Type.Optional(listOf(Type.String({ minLength: 1 }))),
        },
        closed,
      ),
    ),
    firmware: Type.Optional(
      Type.Object(
        {
          refuse: Type.Optional(oneOf(["affected", "possible", "none"])),
          ignore: Type.Optional(
            listOf(
              oneOf(["weak-keys", "key-extraction", "memory-corruption", "denial-of-service"]),
            ),
          ),
          oldest: Type.Optional(Type.Record(manufacturer, version)),
        },
        closed,
      ),
    ),
    refuseClockFindings: Type.Optional(listOf(clockFindingSchema)),
    eventLog: Type.Optional(Type.Object(eventLog, closed)),
    classes: Type.Optional(Type.Array(Type.Object(deviceClass, closed), { minItems: 1 })),
  },
  closed,
);

/** @throws `SERVICE_CONFIG_INVALID` that names each rule that is not understood */
export function checkPolicyFile(value: unknown, where: string): PolicyFile {
  const faults = describeFaults(Value.Errors(schema, value));
  if (faults !== "") throw new StileError("SERVICE_CONFIG_INVALID", `${where}: ${faults}`);
  return value as Type.Static<typeof schema>;
}
