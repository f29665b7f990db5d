/**
 * The operator listener: health, metrics, keys and the API description, on a Unix socket or on loopback
 * only. It has no authentication of its own, so any other address is refused at start.
 */
import { chmodSync, rmSync } from "node:fs";
import { fastify, type FastifyInstance } from "fastify";
import type { Registry } from "prom-client";
import { StileError } from "../../wire/index.ts";
import type { TrustedAttesters } from "../issuer/trusted-attesters.ts";
import type { IssuerKeys } from "../keys/issuer-keys.ts";
import type { VoprfEngineView } from "../keys/voprf-engines.ts";
import type { CertificateStatus } from "../acme/renewal.ts";
import { refuseErrors } from "../http/app.ts";
import { parseLocalListen } from "../http/local-listen.ts";
import type { Log } from "../log.ts";
import type { Metrics } from "../metrics.ts";
import { VERSION } from "../version.ts";
import { type ClearanceKeyRoutes, registerClearanceKeyRoutes } from "./clearance-keys.ts";
import { type KeyChanges, registerKeyRoutes } from "./keys.ts";
import { registerRevocationRoutes, type RevocationRoutes } from "./revocations.ts";
import { registerView } from "./view.ts";

/** What the roles of the process have to show. */
export interface OperatorParts {
  readonly metrics: Metrics;
  readonly log: Log;
  /** Of certificates from an ACME server, where there are any. */
  readonly certificates?: (() => readonly CertificateStatus[]) | undefined;
  /** Of an issuer: what computes its private types. */
  readonly voprfEngines?: readonly VoprfEngineView[] | undefined;
  /** Of an issuer its own, of an edge those that it follows. */
  readonly keys?: Pick<IssuerKeys, "list" | "observe"> & Partial<KeyChanges>;
  /** Of an edge. */
  readonly clearanceKeys?: ClearanceKeyRoutes;
  /** Of an attester. */
  readonly revocations?: RevocationRoutes;
  /** Of an issuer that stands alone. */
  readonly attesters?: Pick<TrustedAttesters, "list" | "setEnabled">;
}

export interface OperatorOptions extends OperatorParts {
  /** `host:port` on loopback, or `unix:/path`. */
  readonly listen: string;
  /** False while starting and draining. */
  readonly isReady: () => boolean;
  /** Adds what other processes of the service have measured. */
  readonly collect?: (own: Registry) => Promise<Registry>;
  /** The OpenAPI document of the public endpoints. */
  readonly openapi: () => object;
}

export interface OperatorListener {
  readonly address: string;
  readonly close: () => Promise<void>;
}

/** @throws `SERVICE_CONFIG_INVALID` for an address that is not loopback */
export async function startOperatorListener(options: OperatorOptions): Promise<OperatorListener> {
  const target = parseLocalListen(options.listen, "operator.listen");
  // As on the public listener: what a schema does not name is refused, not dropped.
  const app = fastify({ ajv: { customOptions: { removeAdditional: false, coerceTypes: false } } });
  refuseOtherSites(app);
  registerOperatorRoutes(app, options);
  if (target.kind === "unix") {
    rmSync(target.path, { force: true });
    await app.listen({ path: target.path });
    chmodSync(target.path, 0o600);
    return { address: `unix:${target.path}`, close: () => app.close() };
  }
  const address = await app.listen({ host: target.host, port: target.port });
  return { address, close: () => app.close() };
}

/**
 * A browser of the operator's own machine reaches this listener, too, and with it every page that it shows.
 * A page of another site, also one whose name was rebound to loopback, may neither read here nor switch.
 */
function refuseOtherSites(app: FastifyInstance): void {
  app.addHook("onRequest", (request, _reply, done) => {
    const { host = "", origin, "sec-fetch-site": site } = request.headers;
    const isOurs = LOOPBACK_HOST.test(host) || request.raw.socket.remoteAddress === undefined;
    const isOwnOrigin = origin === undefined || origin === `http://${host}`;
    const isOwnSite = site === undefined || site === "same-origin" || site === "none";
    if (isOurs && isOwnOrigin && isOwnSite) return done();
    done(new StileError("SERVICE_HOST_UNKNOWN", "the operator listener is for loopback names"));
  });
}

/** What names loopback whatever a name server says. Over a Unix socket any name will do. */
const LOOPBACK_HOST = /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?$/i;

function registerOperatorRoutes(app: FastifyInstance, options: OperatorOptions): void {
  const { attesters, clearanceKeys, keys, metrics, revocations } = options;
  registerView(app, VERSION);
  app.get("/livez", () => ({ status: "live" }));
  app.get("/readyz", (_request, reply) => {
    const ready = options.isReady();
    // Without a certificate it is ready all the same: the ACME server must reach it to give one.
    const certificates = options.certificates?.();
    const { voprfEngines } = options;
    return reply
      .code(ready ? 200 : 503)
      .send({ status: ready ? "ready" : "not ready", certificates, voprfEngines });
  });
  app.get("/metrics", async (_request, reply) => {
    metrics.issuerKeys.reset();
    keys?.observe();
    metrics.clearanceKeys.reset();
    clearanceKeys?.observe();
    const registry = (await options.collect?.(metrics.registry)) ?? metrics.registry;
    return reply.type(registry.contentType).send(await registry.metrics());
  });
  app.get("/openapi.json", () => options.openapi());
  refuseErrors(app, options);
  if (keys !== undefined) registerKeyRoutes(app, keys);
  if (clearanceKeys !== undefined) registerClearanceKeyRoutes(app, clearanceKeys);
  if (revocations !== undefined) registerRevocationRoutes(app, revocations);
  if (attesters !== undefined) registerAttesterSwitches(app, attesters);
}

/** The kill switch of each attester: it holds at once, and outlives restarts. */
function registerAttesterSwitches(
  app: FastifyInstance,
  attesters: Pick<TrustedAttesters, "list" | "setEnabled">,
): void {
  app.get("/attesters", () => ({ attesters: attesters.list() }));
  for (const verb of ["disable", "enable"] as const) {
    app.post<{ Params: { name: string } }>(`/attesters/:name/${verb}`, async (request, reply) => {
      await attesters.setEnabled(request.params.name, verb === "enable");
      return reply.code(204).send();
    });
  }
}
