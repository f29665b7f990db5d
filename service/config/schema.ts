/**
 * The configuration: one schema, one type. The schema holds each setting's unit, range, default and
 * meaning; `docs/configuration.md` is generated from it. The interface below repeats only names and
 * types, and the compiler holds the two together (`checkConfig` assigns one to the other).
 */
import { Type } from "typebox";
import { Value } from "typebox/value";
import { StileError } from "../../wire/index.ts";
import { acmeSettings } from "./acme.ts";
import { edgeRuleSettings } from "./edge-rules.ts";
import { clearanceKeySettings } from "./clearance-keys.ts";
import { extAuthzSettings } from "./ext-authz.ts";
import { describeFaults } from "./faults.ts";
import { issuerSchema } from "./issuer.ts";
import { choice, closed, DAY, flag, section, text, whole } from "./kinds.ts";
import { limitsFault, limitsSettings } from "./limits.ts";
import { passthroughSchema } from "./passthrough.ts";
import { plainHttpSettings } from "./plain-http.ts";
import { processesFault, processesSettings } from "./processes.ts";
import { certificateFault, tlsSettings } from "./tls.ts";
import { clientCertificateFault } from "./tls-clients.ts";
import { publicMetadataFault } from "./public-metadata.ts";
import { roleFaults } from "./roles.ts";
import type { Config } from "./types.ts";
import { proxyProtocolSchema, trustedProxiesSchema } from "./trusted-proxies.ts";
import { spentStoreFaults, spentStoreSettings } from "./spent-store.ts";
import { upstreamFault, upstreamSettings } from "./upstreams.ts";
import { webauthnSchema } from "./webauthn.ts";

const tpmSealing = Type.Object(
  {
    tcti: text("the TPM, as tpm2-tss names it", "device:/dev/tpmrm0"),
    pcrs: Type.Array(Type.Integer({ minimum: 0, maximum: 23 }), {
      description: "PCRs of the SHA-256 bank whose values the TPM asks for",
      minItems: 1,
      maxItems: 24,
      uniqueItems: true,
      default: [7],
    }),
  },
  { ...closed, description: "instead of passphraseFile: `stile seal` has sealed it to this TPM" },
);

const followedIssuer = Type.Object(
  {
    url: text("origin of the issuer whose tokens are redeemed, https://host[:port]"),
    caFile: Type.Optional(text("PEM file of further CAs that it is verified with")),
    refreshSeconds: whole("how often its directory is fetched", 10, DAY, 300),
    logKeyId: Type.Optional(
      text("identifier of the key of its directory log; without it, the first that is seen"),
    ),
  },
  closed,
);

const remoteIssuer = Type.Object(
  {
    url: text("origin of the issuer that signs, https://host[:port]"),
    caFile: Type.Optional(text("PEM file of further CAs that it is verified with")),
    certificateFile: text("PEM file of the certificate that it knows this attester by"),
    keyFile: text("PEM file of that certificate's key"),
    timeoutSeconds: whole("for its answer to a batch", 1, 300, 30),
  },
  closed,
);

const edge = {
  hosts: Type.Array(text("host"), {
    description: "hosts that are served, as in the Host header (with the port if it is not 443)",
    minItems: 1,
    maxItems: 256,
  }),
  issuerName: text("server name of the token issuer (RFC 9577 §2.1), host or host:port"),
  ...upstreamSettings,
  ...edgeRuleSettings,
  redemptionContext: choice(
    "what a challenge is bound to: window, none, window+network or connection (RFC 9577 §2.1.1.2)",
    ["window", "none", "window+network", "connection"],
  ),
  windowSeconds: whole(
    "length of a redemption window; tokens live one to two of them",
    60,
    30 * DAY,
    14_400,
  ),
  clearanceSeconds: whole(
    "how long one redemption admits its client; 0 sets no cookie",
    0,
    DAY,
    1_800,
  ),
  clearanceKeys: clearanceKeySettings,
  challengeMaxAgeSeconds: whole(
    "max-age of a challenge (RFC 9577 §2.1.2); not above windowSeconds where a window is used",
    1,
    30 * DAY,
    14_400,
  ),
  grease: flag(
    "sends reserved token types among the challenges (RFC 9577 §4.1); breaks privacypass-ts",
  ),
  maxBodyBytes: whole("largest request body that is forwarded", 0, 2 ** 40, 2 ** 30),
  fastPath: Type.Boolean({
    description: "forwards what is plainly admitted past node:http (docs/tls.md); off is slower",
    default: true,
  }),
  fallbackUrl: Type.Optional(
    Type.String({
      description: "link that the page offers those whom it cannot help, https://…",
      pattern: "^https://[!-~]+$",
      maxLength: 2_048,
    }),
  ),
  cors: Type.Object(
    {
      origins: Type.Array(Type.String({ pattern: "^https?://[a-z0-9.:[\\]-]+$", maxLength: 512 }), {
        description: "origins of other pages that may call what is behind this edge (docs/web.md)",
        maxItems: 256,
        default: [],
      }),
    },
    section,
  ),
  spentStore: spentStoreSettings,
  issuer: Type.Optional(followedIssuer),
  authorize: Type.Object(
    {
      headers: choice(
        "what tells /.stile/authorize the host: off (nothing), X-Original-Host or X-Forwarded-Host",
        ["off", "original", "forwarded"],
      ),
    },
    section,
  ),
  extAuthz: Type.Optional(extAuthzSettings),
};

const attester = {
  manufacturerRootsFile: text(
    "PEM file with the roots and intermediates of TPM manufacturers, or a pinned bundle (`stile roots refresh`)",
  ),
  manufacturerRootsPin: Type.Optional(
    Type.Object(
      {
        version: text("version of the bundle, as the file says it"),
        sha256: Type.String({
          description: "SHA-256 of the file: one that was changed since is not read",
          pattern: "^[0-9a-f]{64}$",
        }),
      },
      closed,
    ),
  ),
  channelBinding: choice(
    "evidence is tied to its TLS connection: required, or unsafeOff where TLS ends before Stile",
    ["required", "unsafeOff"],
  ),
  pcrs: Type.Array(Type.Integer({ minimum: 0, maximum: 23 }), {
    description: "PCRs of the SHA-256 bank that a quote covers",
    minItems: 1,
    maxItems: 24,
    default: [0, 1, 2, 3, 4, 5, 6, 7],
  }),
  sessionSeconds: whole("time from challenge to evidence", 5, 600, 120),
  maxSessions: whole("attestation sessions open at once", 1, 1_000_000, 10_000),
  resultSeconds: whole("validity of an attestation result", 30, DAY, 900),
  policyFile: Type.Optional(
    text(
      "YAML file with the appraisal policy; without it, genuine hardware with no known flaw passes",
    ),
  ),
  issuer: Type.Optional(remoteIssuer),
  retentionDays: whole("days after which a device that was not seen is forgotten", 1, 3_650, 90),
  webauthn: webauthnSchema,
  allowance: Type.Object(
    {
      tokens: whole("tokens that one device may have in one window", 1, 1_000_000, 500),
      windowSeconds: whole("length of that window", 60, 30 * DAY, DAY),
    },
    section,
  ),
};

const schema = Type.Object(
  {
    role: choice(
      "what this process is: joint is edge, attester and issuer in one (docs/split.md)",
      ["joint", "edge", "attester", "issuer"],
    ),
    publicUrl: text("origin under which clients reach this service, https://host[:port]"),
    listen: Type.Object(
      {
        host: text("address of the public listener", "::"),
        port: whole("port of the public listener", 0, 65_535, 8_443),
        trustedProxies: trustedProxiesSchema,
        proxyProtocol: proxyProtocolSchema,
        http: Type.Optional(plainHttpSettings),
        passthrough: passthroughSchema,
      },
      section,
    ),
    operator: Type.Object(
      {
        listen: text(
          "operator listener: host:port on loopback, or unix:/path; never a public address",
          "127.0.0.1:9443",
        ),
      },
      section,
    ),
    stateDir: text(
      "folder of the stores and the sealed keys; one process at a time",
      "/var/lib/stile",
    ),
    passphraseFile: Type.Optional(text("file whose content seals the private keys at rest")),
    tpmSealing: Type.Optional(tpmSealing),
    log: Type.Object(
      {
        level: choice("least severe lines that are written", [
          "info",
          "debug",
          "warn",
          "error",
          "silent",
        ]),
      },
      section,
    ),
    processes: processesSettings,
    tls: tlsSettings,
    acme: Type.Optional(acmeSettings),
    edge: Type.Optional(Type.Object(edge, closed)),
    attester: Type.Optional(Type.Object(attester, closed)),
    issuer: issuerSchema,
    limits: limitsSettings,
  },
  closed,
);

/** The schema as data, for the generated documentation. */
export const configSchema: Type.TObject = schema;

/**
 * Fills in the defaults and checks every value.
 * @throws `SERVICE_CONFIG_INVALID` that names each offending setting by its full path
 */
export function checkConfig(raw: unknown): Config {
  const value: unknown = Value.Default(schema, Value.Clone(raw));
  const faults = [
    describeFaults(Value.Errors(schema, value)),
    ...roleFaults(raw),
    ...spentStoreFaults(raw),
  ];
  refuse(faults.filter((fault) => fault !== ""));
  const parsed = value as Type.Static<typeof schema>;
  const config: Config = parsed;
  refuse(misplacedSettings(config, raw) ?? []);
  return deepFreeze(config);
}

function refuse(faults: readonly string[] | string): void {
  const told = typeof faults === "string" ? faults : faults.join("; ");
  if (told !== "") throw new StileError("SERVICE_CONFIG_INVALID", `configuration: ${told}`);
}

/** What excludes each other, or would have no effect: a setting without effect protects nothing. */
function misplacedSettings(config: Config, raw: unknown): string | undefined {
  const { edge, issuer } = config;
  const fault =
    certificateFault(config) ??
    clientCertificateFault(config) ??
    processesFault(config, raw) ??
    limitsFault(config);
  if (fault !== undefined) return fault;
  if ((config.passphraseFile === undefined) === (config.tpmSealing === undefined)) {
    return "expected either passphraseFile or tpmSealing";
  }
  if (edge !== undefined && (edge.adaptive !== undefined) !== (edge.mode === "adaptive")) {
    return edge.adaptive === undefined
      ? "missing setting edge.adaptive"
      : `edge.adaptive is not for edge.mode ${edge.mode}`;
  }
  return (edge && upstreamFault(edge)) ?? publicMetadataFault(issuer);
}

function deepFreeze<T>(value: T): T {
  if (typeof value !== "object" || value === null) return value;
  for (const inner of Object.values(value)) deepFreeze<unknown>(inner);
  return Object.freeze(value);
}
