/** Settings by role, each that has no effect refused; and what deploy/ and the documentation show, loaded. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { checkConfig, configSchema, rolesOf } from "../../service/config/index.ts";
import { codeOf } from "../support/reject.ts";

type Settings = Readonly<Record<string, unknown>>;

const ROOT = join(import.meta.dirname, "../..");
const ROLES = ["joint", "edge", "attester", "issuer"] as const;
type Role = (typeof ROLES)[number];

const FINGERPRINT = "00".repeat(32);
const COMMON = {
  publicUrl: "https://www.example.org",
  passphraseFile: "/run/secrets/pass",
  tls: { certificateFile: "/etc/tls.pem", keyFile: "/etc/tls.key" },
};
const EDGE = { hosts: ["www.example.org", "internal.example"], issuerName: "issuer.example" };
const ATTESTER = { manufacturerRootsFile: "/etc/roots.pem" };
const REMOTE = { url: "https://issuer.example", certificateFile: "/c", keyFile: "/k" };
/** What a role needs, and nothing more; an upstream is for the examples to say. */
const LEAST: Readonly<Record<Role, Settings>> = {
  joint: { edge: EDGE, attester: ATTESTER },
  edge: { edge: { ...EDGE, issuer: { url: "https://issuer.example" } } },
  attester: { attester: { ...ATTESTER, issuer: REMOTE } },
  issuer: { issuer: { attesters: [{ name: "acme", certificateSha256: [FINGERPRINT] }] } },
};
const hasEdge = (role: Role): boolean => role === "joint" || role === "edge";
const UPSTREAM = { edge: { upstream: "http://127.0.0.1:8080" } };

function isSettings(value: unknown): value is Settings {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function merged(under: Settings, over: Settings): Settings {
  const all: Record<string, unknown> = { ...under };
  for (const [name, value] of Object.entries(over)) {
    const before = all[name];
    all[name] = isSettings(before) && isSettings(value) ? merged(before, value) : value;
  }
  return all;
}

function least(role: Role): Settings {
  const base = merged({ role, ...COMMON }, LEAST[role]);
  return hasEdge(role) ? merged(base, UPSTREAM) : base;
}

/** Every setting of the schema, the sections before what is in them. */
function settingsOf(node: object, at = ""): string[] {
  const properties: unknown = Reflect.get(node, "properties");
  if (!isSettings(properties)) return [];
  return Object.entries(properties).flatMap(([name, inner]) => {
    const path = at === "" ? name : `${at}.${name}`;
    return [path, ...settingsOf(inner as object, path)];
  });
}

/** A value at a path, which the schema may find wrong as well. */
function nested(path: string, value: unknown): Settings {
  return path
    .split(".")
    .toReversed()
    .reduce<unknown>((inner, name) => ({ [name]: inner }), value) as Settings;
}

function refusal(settings: Settings): string {
  try {
    checkConfig(settings);
  } catch (error) {
    expect(error).toMatchObject({ code: "SERVICE_CONFIG_INVALID" });
    return (error as Error).message;
  }
  return "";
}

describe("a role", () => {
  it.each(ROLES)("%s starts with what it needs", (role) => {
    expect(checkConfig(least(role)).role).toBe(role);
  });

  const misplaced = settingsOf(configSchema).flatMap((setting) =>
    ROLES.filter((role) => !rolesOf(setting).includes(role)).map((role) => ({ role, setting })),
  );

  it("has settings that are not for it", () => {
    const said = misplaced.map(({ role, setting }) => `${role} ${setting}`);
    for (const known of [
      "edge issuer.voprfEngine",
      "edge issuer.maxBatch",
      "edge edge.fallbackUrl",
      "edge attester.pcrs",
      "attester issuer.workers",
      "attester edge.cors.origins",
      "attester tls.clientCertificates",
      "issuer tls.ticketKeyFile",
      "issuer attester.issuer.url",
      "joint issuer.tenants",
    ]) {
      expect(said).toContain(known);
    }
    // What an edge, an attester and an issuer must agree in.
    for (const shared of ["tokenTypes", "publicMetadata", "redeemableSeconds"]) {
      expect(rolesOf(`issuer.${shared}`)).toEqual(ROLES);
    }
  });

  it.each(misplaced)("$role rejects $setting by its name", ({ role, setting }) => {
    const said = refusal(merged(least(role), nested(setting, { x: 1 })));
    const names = setting.split(".").map((_, i, parts) => parts.slice(0, i + 1).join("."));
    expect(names.map((name) => said.includes(`${name} is not for the role ${role}`))).toContain(
      true,
    );
  });

  it("rejects several at once, and what else is wrong", () => {
    const issuer = { workers: 2, maxQueue: 10, voprfEngine: "native", maxBacth: 1 };
    const said = refusal(merged(least("edge"), { issuer }));
    for (const fault of [
      "unknown setting issuer.maxBacth",
      "issuer.workers is not for the role edge",
      "issuer.maxQueue is not for the role edge",
      "issuer.voprfEngine is not for the role edge",
    ]) {
      expect(said).toContain(fault);
    }
    expect(codeOf(() => checkConfig({ ...least("edge"), role: "origin" }))).toBe(
      "SERVICE_CONFIG_INVALID",
    );
  });
});

describe("the store of spent tokens", () => {
  const store = (spentStore: Settings): string =>
    refusal(merged(least("edge"), { edge: { spentStore } }));

  it("takes the settings of its engine", () => {
    const remote = { servers: ["db:1"], user: "u", passwordFile: "/p", caFile: "/c" };
    expect(store({ engine: "embedded" })).toBe("");
    expect(store({ ...remote, engine: "postgres", database: "d", unsafeDurability: true })).toBe(
      "",
    );
    const replicas = { replicas: 1, replicasOnDisk: true };
    expect(store({ ...remote, ...replicas, engine: "valkey", cluster: true })).toBe("");
  });

  it("takes every setting at its default, as a program writes them out", () => {
    const { edge, processes } = checkConfig(least("edge"));
    const written = JSON.parse(JSON.stringify({ edge, processes })) as Settings;
    expect(refusal(merged(least("edge"), written))).toBe("");
  });

  it("rejects those of another by their names: servers that would be passed over above all", () => {
    for (const setting of ["servers", "user", "passwordFile", "caFile", "database", "replicas"]) {
      expect(store({ [setting]: setting === "servers" ? ["db:1"] : "1" })).toContain(
        `edge.spentStore.${setting} is not for the engine embedded`,
      );
    }
    expect(store({ engine: "postgres", servers: ["db:1"], cluster: true })).toContain(
      "edge.spentStore.cluster is not for the engine postgres",
    );
    expect(store({ engine: "valkey", servers: ["db:1"], database: "d" })).toContain(
      "edge.spentStore.database is not for the engine valkey",
    );
    expect(store({ engine: "valkey", servers: ["db:1"], replicasOnDisk: true })).toContain(
      "edge.spentStore.replicasOnDisk has no effect without edge.spentStore.replicas",
    );
  });
});

it.each(["socketDir: /run/x", "keeperWaitSeconds: 5", "hangSeconds: 20"])(
  "rejects processes.%s where one process does everything",
  (text) => {
    const [name = ""] = text.split(":");
    const processes = parse(`{ ${text} }`) as Settings;
    const settings = (workers: number): Settings =>
      merged(least("issuer"), { processes: { ...processes, workers } });
    expect(refusal(settings(0))).toContain(`processes.${name} is for processes.workers of 1`);
    expect(refusal(settings(1))).toBe("");
  },
);

/** YAML of the documentation that configures Stile, each with the place where it begins. */
function examples(): { readonly at: string; readonly yaml: string }[] {
  const docs = readdirSync(join(ROOT, "docs")).map((name) => join("docs", name));
  return [...docs, "README.md"]
    .filter((name) => name.endsWith(".md") && name !== join("docs", "policy.md"))
    .flatMap((name) => {
      const text = readFileSync(join(ROOT, name), "utf8");
      return [...text.matchAll(/^```ya?ml\n(.*?)^```$/gms)].map(({ 1: yaml = "", index }) => ({
        at: `${name}:${text.slice(0, index).split("\n").length}`,
        yaml,
      }));
    });
}

/** What an example leaves out with an ellipsis. */
function filled(yaml: string): string {
  return yaml
    .replace(/(certificateSha256): \[ … \]/, `$1: ["${FINGERPRINT}"]`)
    .replace(/(attesters): \[ … \]/, `$1: [{ name: acme, certificateSha256: ["${FINGERPRINT}"] }]`);
}

describe("an example of the documentation", () => {
  it("is there", () => {
    expect(examples().length).toBeGreaterThan(18);
  });

  it.each(examples())("loads: $at", ({ yaml }) => {
    const shown = parse(filled(yaml)) as Settings;
    const role = (shown["role"] ?? "joint") as Role;
    const passphrase = "tpmSealing" in shown ? { passphraseFile: undefined } : {};
    const base = merged({ role, ...COMMON, ...passphrase }, LEAST[role]);
    const whole = merged(base, shown);
    const edge = whole["edge"];
    const isLed = isSettings(edge) && ("upstream" in edge || "upstreams" in edge);
    const settings = isLed || !hasEdge(role) ? whole : merged(whole, UPSTREAM);
    expect(refusal(JSON.parse(JSON.stringify(settings)) as Settings)).toBe("");
  });
});

it("deploy/ and the Dockerfile set nothing by environment that no setting has", () => {
  const files = readdirSync(join(ROOT, "deploy"), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
  expect(files.length).toBeGreaterThan(5);
  const known = new Set(settingsOf(configSchema).map((one) => one.toLowerCase()));
  for (const file of [...files, join(ROOT, "Dockerfile")]) {
    for (const [, name = ""] of readFileSync(file, "utf8").matchAll(/\bSTILE_([A-Z_]+)\b/g)) {
      if (name === "CONFIG" || name === "SKIP_SETUP") continue;
      const setting = name.toLowerCase().replaceAll("__", ".").replaceAll("_", "");
      expect(known, `${name} in ${file}`).toContain(setting);
    }
  }
});
