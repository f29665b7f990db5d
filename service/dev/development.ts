/**
 * Development mode: the whole sidecar on one's own machine with nothing to configure. It makes a CA, a
 * server certificate, a passphrase and a manufacturer for software TPMs, and answers on localhost only.
 * None of it is for production: it trusts a TPM that is a program.
 */
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openManufacturerCa } from "../../swtpm/index.ts";
import { type AttesterConfig, checkConfig, type Config } from "../config/index.ts";
import { developmentCertificates } from "./certificates.ts";

export interface DevelopmentOptions {
  /** Where everything is kept; made if it is missing. */
  readonly dir: string;
  /** Public port; the host is localhost. */
  readonly port: number;
  /** `host:port` on loopback. */
  readonly operatorListen: string;
  readonly upstream: string;
  readonly logLevel: Config["log"]["level"];
  readonly clock: () => number;
  /** Settings over the defaults of development mode, by section. */
  readonly overrides?: DevelopmentOverrides;
}

export interface DevelopmentOverrides {
  readonly listen?: Partial<Config["listen"]>;
  readonly tls?: Partial<Config["tls"]>;
  readonly edge?: Partial<Config["edge"]>;
  readonly attester?: Partial<Omit<AttesterConfig, "webauthn">> & {
    readonly webauthn?: Partial<AttesterConfig["webauthn"]>;
  };
  readonly issuer?: Partial<Config["issuer"]>;
  readonly limits?: Partial<Config["limits"]>;
  /** Instead of the development certificate. */
  readonly acme?: Partial<Config["acme"]>;
}

/**
 * A browser's virtual authenticator (Chromium's developer tools) signs its attestation with a key that is in
 * its source code, under a certificate that it makes anew each time: there is no root to trust it by.
 */
const DEVELOPMENT_WEBAUTHN: Partial<AttesterConfig["webauthn"]> = {
  enabled: true,
  unsafeAcceptUnanchored: ["packed"],
};

export interface Development {
  readonly config: Config;
  /** PEM of the CA that the server certificate is from. */
  readonly caFile: string;
  /** Folder of the manufacturer whose software TPMs are trusted. */
  readonly manufacturerDir: string;
}

export async function prepareDevelopment(options: DevelopmentOptions): Promise<Development> {
  const at = (name: string): string => join(options.dir, name);
  mkdirSync(options.dir, { recursive: true, mode: 0o700 });
  const { caFile, certificateFile, keyFile } = await developmentCertificates(
    at("tls"),
    options.clock(),
  );
  const manufacturerDir = at("manufacturer");
  const manufacturer = await openManufacturerCa({ clock: options.clock, folder: manufacturerDir });
  writeFileSync(at("manufacturer-roots.pem"), manufacturer.rootPem);
  const passphraseFile = at("passphrase");
  if (!existsSync(passphraseFile)) {
    writeFileSync(passphraseFile, randomBytes(32).toString("base64url"), { mode: 0o600 });
  }
  const host = `localhost:${options.port}`;
  const { overrides = {} } = options;
  const upstream = overrides.edge?.upstreams === undefined ? { upstream: options.upstream } : {};
  const config = checkConfig({
    publicUrl: `https://${host}`,
    listen: { host: "127.0.0.1", port: options.port, ...overrides.listen },
    operator: { listen: options.operatorListen },
    stateDir: at("state"),
    passphraseFile,
    log: { level: options.logLevel },
    tls: {
      ...(overrides.acme === undefined ? { certificateFile, keyFile } : {}),
      ...overrides.tls,
    },
    ...(overrides.acme === undefined ? {} : { acme: overrides.acme }),
    edge: { hosts: [host], issuerName: host, ...upstream, ...overrides.edge },
    attester: {
      manufacturerRootsFile: at("manufacturer-roots.pem"),
      webauthn: DEVELOPMENT_WEBAUTHN,
      ...overrides.attester,
    },
    issuer: { ...overrides.issuer },
    limits: { ...overrides.limits },
  });
  return { config, caFile, manufacturerDir };
}
