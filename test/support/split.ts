/** Three sidecars, one for each role of RFC 9576, each with its own state, clock in common. */
import { execFileSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkConfig } from "../../service/config/index.ts";
import { developmentCertificates } from "../../service/dev/certificates.ts";
import { type DemoUpstream, startDemoUpstream } from "../../service/dev/demo-upstream.ts";
import { type Sidecar, startSidecar } from "../../service/sidecar.ts";
import { type ManufacturerCa, openManufacturerCa } from "../../swtpm/index.ts";
import { freePort } from "./free-port.ts";

export type SplitRole = "edge" | "attester" | "issuer";

export interface ClientCertificate {
  readonly certificateFile: string;
  readonly keyFile: string;
  /** Lower-case hexadecimal. */
  readonly sha256: string;
}

export interface Split {
  readonly dir: string;
  readonly ca: string;
  readonly caFile: string;
  /** Of localhost. */
  readonly certificateFile: string;
  readonly keyFile: string;
  readonly manufacturer: ManufacturerCa;
  readonly upstream: DemoUpstream;
  readonly clock: { offsetMs: number };
  readonly certificate: ClientCertificate;
  readonly url: (role: SplitRole) => string;
  readonly sidecar: (role: SplitRole) => Sidecar;
  /** Every line that the role has logged. */
  readonly lines: (role: SplitRole) => readonly string[];
  readonly stopRole: (role: SplitRole) => Promise<void>;
  readonly startRole: (role: SplitRole, settings?: object) => Promise<void>;
  readonly stop: () => Promise<void>;
}

export interface SplitSettings {
  /** Further settings of the section `issuer`. */
  readonly issuer?: object;
  /** Settings of the section `issuer` at all three. */
  readonly tokens?: object;
  /** Puts into the folder what is to be there before they start. */
  readonly prepare?: (dir: string) => Promise<void>;
  /** Names of the edge beside its own. */
  readonly edgeHosts?: readonly string[];
}

export async function startSplit(
  tokensPerMinute: number,
  settings: SplitSettings = {},
): Promise<Split> {
  const dir = mkdtempSync(join(tmpdir(), "stile-split-"));
  const clock = { offsetMs: 0 };
  const now = (): number => Date.now() + clock.offsetMs;
  const { caFile, certificateFile, keyFile } = await developmentCertificates(
    join(dir, "tls"),
    now(),
  );
  const manufacturer = await openManufacturerCa({ clock: now, folder: join(dir, "manufacturer") });
  writeFileSync(join(dir, "roots.pem"), manufacturer.rootPem);
  writeFileSync(join(dir, "passphrase"), "a passphrase for tests");
  const certificate = makeCertificate(dir, "attester");
  const upstream = await startDemoUpstream();
  const ports = { edge: await freePort(), attester: await freePort(), issuer: await freePort() };
  const url = (role: SplitRole): string => `https://localhost:${ports[role]}`;
  const sections: Readonly<Record<SplitRole, object>> = {
    edge: {
      issuer: { ...settings.tokens },
      edge: {
        hosts: [`localhost:${ports.edge}`, ...(settings.edgeHosts ?? [])],
        issuerName: `localhost:${ports.issuer}`,
        upstream: upstream.url,
        // Tokens that outlive the keys that signed them.
        redemptionContext: "none",
        challengeMaxAgeSeconds: 30 * 86_400,
        issuer: { url: url("issuer"), caFile, refreshSeconds: 10 },
      },
    },
    attester: {
      issuer: { ...settings.tokens },
      attester: {
        manufacturerRootsFile: join(dir, "roots.pem"),
        issuer: { url: url("issuer"), caFile, ...filesOf(certificate), timeoutSeconds: 5 },
      },
    },
    issuer: {
      issuer: {
        attesters: [{ name: "ours", certificateSha256: [certificate.sha256], tokensPerMinute }],
        ...settings.tokens,
        ...settings.issuer,
      },
    },
  };
  const running = new Map<SplitRole, Sidecar>();
  const lines: Record<SplitRole, string[]> = { edge: [], attester: [], issuer: [] };

  async function startRole(role: SplitRole, settings: object = {}): Promise<void> {
    const config = checkConfig({
      role,
      publicUrl: url(role),
      listen: { host: "127.0.0.1", port: ports[role] },
      operator: { listen: "127.0.0.1:0" },
      stateDir: join(dir, role),
      passphraseFile: join(dir, "passphrase"),
      tls: { certificateFile, keyFile },
      limits: { requestsPerMinute: 1_000_000, drainSeconds: 1 },
      ...sections[role],
      ...settings,
    });
    const log = {
      write: (level: string, event: string, fields: object = {}): void =>
        void lines[role].push(JSON.stringify({ level, event, ...fields })),
      flush: (): void => undefined,
    };
    running.set(role, await startSidecar(config, { clock: now, log }));
  }

  async function stopRole(role: SplitRole): Promise<void> {
    const sidecar = running.get(role);
    running.delete(role);
    await sidecar?.stop();
  }

  await settings.prepare?.(dir);
  // The issuer first: an edge does not start without keys.
  for (const role of ["issuer", "attester", "edge"] as const) await startRole(role);
  return {
    dir,
    ca: readFileSync(caFile, "utf8"),
    caFile,
    certificateFile,
    keyFile,
    manufacturer,
    upstream,
    clock,
    certificate,
    url,
    sidecar: (role) => {
      const sidecar = running.get(role);
      if (sidecar === undefined) throw new Error(`the ${role} does not run`);
      return sidecar;
    },
    lines: (role) => lines[role],
    startRole,
    stopRole,
    stop: async () => {
      for (const role of ["edge", "attester", "issuer"] as const) await stopRole(role);
      await upstream.stop();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

export function makeCertificate(dir: string, name: string): ClientCertificate {
  const folder = join(dir, "clients");
  mkdirSync(folder, { recursive: true });
  const certificateFile = join(folder, `${name}.pem`);
  const keyFile = join(folder, `${name}.key`);
  const words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  const files = ["-keyout", keyFile, "-out", certificateFile, "-subj", `/CN=${name}`];
  execFileSync("openssl", [...words, ...files, "-days", "3650"], { stdio: "ignore" });
  const { fingerprint256 } = new X509Certificate(readFileSync(certificateFile));
  const sha256 = fingerprint256.replaceAll(":", "").toLowerCase();
  return { certificateFile, keyFile, sha256 };
}

const filesOf = ({ certificateFile, keyFile }: ClientCertificate): object => ({
  certificateFile,
  keyFile,
});
