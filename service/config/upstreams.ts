/** Settings of where admitted requests go (docs/upstreams.md). */
import { isIP } from "node:net";
import { Type } from "typebox";
import { choice, closed, text, whole } from "./kinds.ts";

export interface UpstreamConfig {
  readonly url: string;
  readonly name?: string;
  readonly weight?: number;
  readonly maxRequests?: number;
  readonly caFile?: string;
  readonly serverName?: string;
  readonly certificateFile?: string;
  readonly keyFile?: string;
  readonly unsafeSkipVerification?: boolean;
}

export interface HealthCheckConfig {
  readonly path: string;
  readonly host?: string;
  readonly intervalSeconds: number;
  readonly timeoutSeconds: number;
  readonly healthy: number;
  readonly unhealthy: number;
  readonly expectedStatus: number;
}

export interface EjectionConfig {
  readonly failures: number;
  readonly baseSeconds: number;
  readonly maxSeconds: number;
}

/** Of the section `edge`. */
export interface UpstreamsConfig {
  /** One of the two says where. */
  readonly upstream?: string;
  readonly upstreams?: readonly UpstreamConfig[];
  readonly healthCheck?: HealthCheckConfig;
  readonly ejection?: EjectionConfig;
  readonly proxyProtocol: "off" | "v1" | "v2";
  readonly forwardedHeader: "x-forwarded" | "forwarded" | "both";
  readonly maxUpstreamRequests: number;
  readonly upstreamConnectSeconds: number;
  readonly upstreamFirstByteSeconds?: number;
  readonly upstreamTimeoutSeconds: number;
  readonly upstreamKeepSeconds: number;
}

const upstream = Type.Object(
  {
    url: text("http://host:port, https://host:port or unix:/path"),
    name: Type.Optional(
      Type.String({
        description: "names it in metrics and the log; without it, its place in the list, from 0",
        pattern: "^[a-z][a-z0-9-]{0,31}$",
      }),
    ),
    weight: Type.Optional(
      Type.Integer({ description: "its share, relative to the others'", minimum: 1, maximum: 100 }),
    ),
    maxRequests: Type.Optional(
      Type.Integer({ description: "requests under way at it", minimum: 1, maximum: 1_000_000 }),
    ),
    caFile: Type.Optional(text("https: PEM file of the CAs that it is verified with")),
    serverName: Type.Optional(
      text("https: DNS name that its certificate must be for, instead of the url's host"),
    ),
    certificateFile: Type.Optional(text("https: PEM file of the certificate that is shown to it")),
    keyFile: Type.Optional(text("https: PEM file of that certificate's key")),
    unsafeSkipVerification: Type.Optional(
      Type.Boolean({ description: "https: takes any certificate" }),
    ),
  },
  closed,
);

const healthCheck = Type.Object(
  {
    path: Type.String({
      description: "asked for by GET at each upstream",
      pattern: "^/[!-~]*$",
      maxLength: 1_024,
    }),
    host: Type.Optional(text("Host header of the checks; without it, the first of edge.hosts")),
    intervalSeconds: whole("between two checks", 1, 3_600, 5),
    timeoutSeconds: whole("for one check", 1, 300, 2),
    healthy: whole("good checks in a row that bring an upstream back", 1, 100, 2),
    unhealthy: whole("bad checks in a row that take an upstream out", 1, 100, 3),
    expectedStatus: whole("status of a good answer", 200, 599, 200),
  },
  { ...closed, description: "checks that ask each upstream" },
);

const ejection = Type.Object(
  {
    failures: whole("failures in a row that put an upstream out for a while", 1, 1_000, 3),
    baseSeconds: whole("how long at first; each time twice as long", 1, 3_600, 1),
    maxSeconds: whole("how long at most", 1, 86_400, 60),
  },
  { ...closed, description: "how failures of requests put one of several upstreams out" },
);

/** Of the section `edge`. */
export const upstreamSettings: {
  readonly upstream: Type.TOptional<Type.TString>;
  readonly upstreams: Type.TOptional<Type.TUnsafe<readonly UpstreamConfig[]>>;
  readonly healthCheck: Type.TOptional<Type.TUnsafe<HealthCheckConfig>>;
  readonly ejection: Type.TOptional<Type.TUnsafe<EjectionConfig>>;
  readonly proxyProtocol: Type.TUnsafe<UpstreamsConfig["proxyProtocol"]>;
  readonly forwardedHeader: Type.TUnsafe<UpstreamsConfig["forwardedHeader"]>;
  readonly maxUpstreamRequests: Type.TInteger;
  readonly upstreamConnectSeconds: Type.TInteger;
  readonly upstreamFirstByteSeconds: Type.TOptional<Type.TInteger>;
  readonly upstreamTimeoutSeconds: Type.TInteger;
  readonly upstreamKeepSeconds: Type.TInteger;
} = {
  upstream: Type.Optional(
    text("where admitted requests go: http://host:port, https://host:port or unix:/path"),
  ),
  upstreams: Type.Optional(
    Type.Unsafe<readonly UpstreamConfig[]>(
      Type.Array(upstream, {
        description: "or several, or one with settings of its own (docs/upstreams.md)",
        minItems: 1,
        maxItems: 64,
      }),
    ),
  ),
  healthCheck: Type.Optional(Type.Unsafe<HealthCheckConfig>(healthCheck)),
  ejection: Type.Optional(Type.Unsafe<EjectionConfig>(ejection)),
  proxyProtocol: choice(
    "tells each upstream connection's client by the PROXY protocol; the upstream must expect it",
    ["off", "v1", "v2"],
  ),
  forwardedHeader: choice(
    "tells the upstream of the client's connection: X-Forwarded-For, -Proto and -Host, Forwarded (RFC 7239), or both",
    ["x-forwarded", "forwarded", "both"],
  ),
  maxUpstreamRequests: whole(
    "requests and WebSockets under way at all upstreams, each on a connection; more get 503",
    1,
    1_000_000,
    10_000,
  ),
  upstreamConnectSeconds: whole("to connect to an upstream, its TLS included", 1, 300, 5),
  upstreamFirstByteSeconds: Type.Optional(
    Type.Integer({
      description: "until the first byte of its answer; without it, upstreamTimeoutSeconds",
      minimum: 1,
      maximum: 3_600,
    }),
  ),
  upstreamTimeoutSeconds: whole("silence of an upstream within its answer", 1, 3_600, 60),
  upstreamKeepSeconds: whole(
    "how long an idle connection to an upstream is kept: less than the upstream keeps it",
    1,
    3_600,
    4,
  ),
};

const TLS_SETTINGS = [
  "caFile",
  "serverName",
  "certificateFile",
  "keyFile",
  "unsafeSkipVerification",
] as const;

/** Settings that exclude each other, or that would have no effect. */
export function upstreamFault({
  ejection,
  upstream,
  upstreams,
}: UpstreamsConfig): string | undefined {
  if ((upstream === undefined) === (upstreams === undefined)) {
    return "expected either edge.upstream or edge.upstreams";
  }
  const list = upstreams ?? [];
  const names = list.map(({ name }, i) => name ?? String(i));
  if (new Set(names).size < names.length) return "edge.upstreams: a name is there twice";
  // The only upstream is tried whatever happened.
  if (list.length <= 1 && ejection !== undefined) return "edge.ejection is for several upstreams";
  if (list.length === 1 && list[0]?.weight !== undefined) {
    return "edge.upstreams.0.weight is for several upstreams";
  }
  for (const [i, one] of list.entries()) {
    const fault = tlsFault(one);
    if (fault !== undefined) return `edge.upstreams.${i}${fault}`;
  }
  return undefined;
}

function tlsFault(upstream: UpstreamConfig): string | undefined {
  const { caFile, certificateFile, keyFile, serverName, unsafeSkipVerification, url } = upstream;
  const idle = TLS_SETTINGS.find((setting) => upstream[setting] !== undefined);
  if (!url.startsWith("https:")) {
    return idle === undefined ? undefined : `.${idle} is for https:// only`;
  }
  if ((certificateFile === undefined) !== (keyFile === undefined)) {
    return ": expected both certificateFile and keyFile, or none";
  }
  if (unsafeSkipVerification === true && caFile !== undefined) {
    return ".caFile has no effect beside unsafeSkipVerification";
  }
  // RFC 6066 §3: an address is no server name.
  const isAddress = serverName !== undefined && isIP(serverName) !== 0;
  return isAddress ? ".serverName: expected a DNS name" : undefined;
}
