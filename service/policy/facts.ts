/** Facts about a device as JSON, for trying a policy: what `stile verify` prints, put together by hand. */
import { Type } from "typebox";
import { Value } from "typebox/value";
import { type DeviceFacts, HASH_ROWS, parseTpmVersion, type PcrValue } from "../../attest/index.ts";
import { decodeHex, StileError } from "../../wire/index.ts";
import { describeFaults } from "../config/faults.ts";
import { clockFindingSchema, eventLogFindingSchema } from "./schema.ts";

const closed = { additionalProperties: false } as const;
const hex = Type.String({ pattern: "^([0-9a-f]{2})+$" });

const schema = Type.Object(
  {
    manufacturer: Type.String({ pattern: "^id:[0-9A-F]{8}$" }),
    firmwareVersion: Type.Optional(Type.String({ pattern: "^id:([0-9A-Fa-f]{4}){1,2}$" })),
    keyTypes: Type.Optional(Type.Array(Type.Unsafe<"rsa" | "ecc">({ enum: ["rsa", "ecc"] }))),
    clockFindings: Type.Optional(Type.Array(clockFindingSchema)),
    /** `{"sha256": {"0": "<hex>"}}`. */
    pcrValues: Type.Optional(
      Type.Record(
        Type.String({ pattern: "^sha(1|256|384|512)$" }),
        Type.Record(Type.String({ pattern: String.raw`^\d{1,2}$` }), hex),
      ),
    ),
    eventLog: Type.Optional(
      Type.Object(
        {
          secureBoot: Type.Unsafe<"on" | "off" | "unknown">({ enum: ["on", "off", "unknown"] }),
          findings: Type.Array(eventLogFindingSchema),
          bootApplications: Type.Array(hex),
        },
        closed,
      ),
    ),
  },
  closed,
);

/** @throws `SERVICE_CONFIG_INVALID` */
export function readFacts(json: unknown): DeviceFacts {
  const faults = describeFaults(Value.Errors(schema, json));
  if (faults !== "") throw new StileError("SERVICE_CONFIG_INVALID", `facts: ${faults}`);
  const facts = json as Type.Static<typeof schema>;
  const { firmwareVersion } = facts;
  return {
    firmware: {
      manufacturer: facts.manufacturer,
      version: firmwareVersion === undefined ? undefined : parseTpmVersion(firmwareVersion),
      keyTypes: facts.keyTypes ?? ["rsa", "ecc"],
    },
    clockFindings: facts.clockFindings ?? [],
    pcrValues: pcrValuesOf(facts.pcrValues ?? {}),
    eventLog: facts.eventLog,
  };
}

function pcrValuesOf(
  banks: Readonly<Record<string, Readonly<Record<string, string>>>>,
): PcrValue[] {
  return Object.entries(banks).flatMap(([bank, values]) => {
    const hash = HASH_ROWS.find(({ name }) => name === bank)?.name;
    if (hash === undefined) return [];
    return Object.entries(values).map(([pcr, value]) => ({
      hash,
      pcr: Number(pcr),
      value: decodeHex(value),
    }));
  });
}
