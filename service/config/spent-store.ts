/** Settings of where spent tokens are remembered (docs/spent-store.md). */
import { Type } from "typebox";
import { givenAt, isSet } from "./given.ts";
import { choice, flag, section, text, whole } from "./kinds.ts";
import type { SpentStoreConfig } from "./types.ts";

const settings = {
  engine: choice(
    "embedded for one edge; postgres or valkey (also Redis 7) where several edges share it",
    ["embedded", "postgres", "valkey"],
  ),
  servers: Type.Array(text("server"), {
    description:
      "host:port, one or, of a Valkey cluster, some; or the folder of PostgreSQL's socket",
    maxItems: 64,
    default: [],
  }),
  user: Type.Optional(text("user at the database")),
  passwordFile: Type.Optional(text("file with the password at the database")),
  caFile: Type.Optional(
    text("PEM file of the CAs that the database is verified with; none: no TLS"),
  ),
  database: text("PostgreSQL: the database", "stile"),
  cluster: flag("Valkey: the servers are a cluster"),
  replicas: whole("Valkey: replicas that must have a spend before it is answered", 0, 16, 0),
  replicasOnDisk: flag("Valkey 7.2: on their disk, too (WAITAOF)"),
  unsafeDurability: flag("accepts a database that may forget what it acknowledged"),
};

/** The section `edge.spentStore`. */
export const spentStoreSettings: Type.TUnsafe<SpentStoreConfig> = Type.Unsafe<SpentStoreConfig>(
  Type.Object(settings, section),
);

type Engine = SpentStoreConfig["engine"];

const REMOTE: readonly Engine[] = ["postgres", "valkey"];
/** What is not named here is for every engine. */
const ENGINES_OF = {
  servers: REMOTE,
  user: REMOTE,
  passwordFile: REMOTE,
  caFile: REMOTE,
  unsafeDurability: REMOTE,
  database: ["postgres"],
  cluster: ["valkey"],
  replicas: ["valkey"],
  replicasOnDisk: ["valkey"],
} satisfies Partial<Record<keyof SpentStoreConfig, readonly Engine[]>>;

/**
 * An edge whose `servers` are passed over for the embedded store shares nothing: a token would be good at each of them.
 * @param raw as it was written, before defaults
 */
export function spentStoreFaults(raw: unknown): readonly string[] {
  const at = (name: string): unknown => givenAt(raw, `edge.spentStore.${name}`);
  const engine = at("engine") ?? "embedded";
  if (engine !== "embedded" && engine !== "postgres" && engine !== "valkey") return [];
  const faults = Object.entries<readonly Engine[]>(ENGINES_OF)
    .filter(([, engines]) => !engines.includes(engine))
    .map(([name]) => name as keyof typeof ENGINES_OF)
    .filter((name) => isSet(raw, `edge.spentStore.${name}`, settings[name]))
    .map((name) => `edge.spentStore.${name} is not for the engine ${engine}`);
  const isAlone =
    engine === "valkey" && at("replicasOnDisk") === true && (at("replicas") ?? 0) === 0;
  return isAlone
    ? [...faults, "edge.spentStore.replicasOnDisk has no effect without edge.spentStore.replicas"]
    : faults;
}
