/** Certificates by the openssl command line in a temporary folder: bytes that our code did not make. */
import { execFileSync, spawnSync } from "node:child_process";
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  X509Certificate,
} from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export type KeyKind = "P-256" | "P-384" | "P-521" | "secp256k1" | "rsa-2048" | "rsa-1024";

export interface Issued {
  /** PEM files of certificate and private key. */
  readonly certificate: string;
  readonly key: string;
  readonly pem: string;
  readonly der: Uint8Array;
  readonly spki: Uint8Array;
}

export interface IssueOptions {
  /** Undefined: self-signed. */
  readonly issuer?: Issued;
  /** The key file of another certificate, to certify the same key again. */
  readonly key?: string;
  readonly kind?: KeyKind;
  /** As `openssl -subj`; "/" is the empty name. */
  readonly subject: string;
  /** Lines of an extension section. */
  readonly extensions: readonly string[];
  readonly days?: number;
  readonly digest?: "sha1" | "sha256" | "sha384" | "sha512" | "md5";
}

export interface CrlOptions {
  /** Serial numbers in upper-case hexadecimal, as openssl's index has them. */
  readonly revoked: readonly string[];
  readonly thisUpdateMs: number;
  readonly nextUpdateMs: number;
  readonly digest?: "sha1" | "sha256";
  /** Lines of the section of CRL extensions. */
  readonly extensions?: readonly string[];
  readonly version?: 1;
}

export class OpensslCa {
  readonly folder: string = mkdtempSync(join(tmpdir(), "stile-ek-"));
  #serial = 0;

  close(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }

  issue(options: IssueOptions): Issued {
    this.#serial += 1;
    const base = join(this.folder, String(this.#serial));
    const key = options.key ?? `${base}.key`;
    if (options.key === undefined) writeFileSync(key, generateKey(options.kind ?? "P-256"));
    const publicKey = createPublicKey(createPrivateKey(readFileSync(key)));
    writeFileSync(`${base}.pub`, publicKey.export({ type: "spki", format: "pem" }));
    writeFileSync(`${base}.cnf`, `[ext]\n${options.extensions.join("\n")}\n${SECTIONS}`);
    const signer =
      options.issuer === undefined
        ? ["-key", key]
        : ["-CA", options.issuer.certificate, "-CAkey", options.issuer.key];
    const certificate = `${base}.pem`;
    execFileSync(
      "openssl",
      [
        "x509",
        "-new",
        "-subj",
        options.subject,
        "-force_pubkey",
        `${base}.pub`,
        ...signer,
        "-extfile",
        `${base}.cnf`,
        "-extensions",
        "ext",
        `-${options.digest ?? "sha256"}`,
        "-set_serial",
        String(this.#serial),
        "-days",
        String(options.days ?? 3650),
        "-out",
        certificate,
      ],
      { stdio: "pipe" },
    );
    const pem = readFileSync(certificate, "utf8");
    return {
      certificate,
      key,
      pem,
      der: new Uint8Array(new X509Certificate(pem).raw),
      spki: new Uint8Array(publicKey.export({ type: "spki", format: "der" })),
    };
  }

  /** A CRL (DER) of the issuer by `openssl ca -gencrl`. */
  crl(issuer: Issued, options: CrlOptions): Uint8Array {
    this.#serial += 1;
    const base = join(this.folder, `crl-${this.#serial}`);
    const rows = options.revoked.map(
      (serial) => `R\t490101000000Z\t260101000000Z\t${serial}\tunknown\t/CN=x\n`,
    );
    writeFileSync(`${base}.txt`, rows.join(""));
    writeFileSync(`${base}.number`, "01\n");
    writeFileSync(
      `${base}.cnf`,
      `[ca]\ndefault_ca=own\n[own]\ndatabase=${base}.txt\n` +
        `default_md=${options.digest ?? "sha256"}\n` +
        (options.version === 1 ? "" : `crlnumber=${base}.number\ncrl_extensions=ext\n`) +
        `[ext]\nauthorityKeyIdentifier=keyid\n${(options.extensions ?? []).join("\n")}\n`,
    );
    const time = (ms: number): string => new Date(ms).toISOString().replaceAll(/[-:T]|\.000/g, "");
    execFileSync(
      "openssl",
      [
        "ca",
        "-gencrl",
        "-config",
        `${base}.cnf`,
        "-cert",
        issuer.certificate,
        "-keyfile",
        issuer.key,
        "-crl_lastupdate",
        time(options.thisUpdateMs),
        "-crl_nextupdate",
        time(options.nextUpdateMs),
        "-out",
        `${base}.pem`,
      ],
      { stdio: "pipe" },
    );
    const base64 = readFileSync(`${base}.pem`, "utf8").replaceAll(/-----[A-Z0-9 ]+-----|\s/g, "");
    return new Uint8Array(Buffer.from(base64, "base64"));
  }

  /** Whether `openssl verify -x509_strict` accepts the chain at this time. */
  accepts(leaf: Issued, intermediates: readonly Issued[], root: Issued, atMs: number): boolean {
    const untrusted = join(this.folder, "untrusted.pem");
    writeFileSync(untrusted, intermediates.map(({ pem }) => pem).join(""));
    const { status } = spawnSync("openssl", [
      "verify",
      "-x509_strict",
      "-no-CApath",
      "-attime",
      String(Math.floor(atMs / 1000)),
      ...(intermediates.length > 0 ? ["-untrusted", untrusted] : []),
      "-CAfile",
      root.certificate,
      leaf.certificate,
    ]);
    return status === 0;
  }
}

/** openssl drops what precedes the first dot of a field name: `x.2.23` is the identifier 2.23. */
const SECTIONS = `
[tpm]
x.2.23.133.2.1=id:53544D20
x.2.23.133.2.2=ST33
x.2.23.133.2.3=id:00490004
[tpm_one_rdn]
x.2.23.133.2.1=id:53544d20
x.+2.23.133.2.2=ST33
x.+2.23.133.2.3=id:00490004
[tpm_twice]
x.2.23.133.2.1=id:53544D20
y.2.23.133.2.1=id:494E5443
x.2.23.133.2.2=ST33
x.2.23.133.2.3=id:00490004
[tpm_bare_vendor]
x.2.23.133.2.1=STM
x.2.23.133.2.2=ST33
x.2.23.133.2.3=id:00490004
[tpm_no_model]
x.2.23.133.2.1=id:53544D20
x.2.23.133.2.3=id:00490004
[tpm_long_model]
x.2.23.133.2.1=id:53544D20
x.2.23.133.2.2=${"M".repeat(65)}
x.2.23.133.2.3=id:00490004
[common_name]
CN=example
`;

function generateKey(kind: KeyKind): string {
  const pair =
    kind === "rsa-2048" || kind === "rsa-1024"
      ? generateKeyPairSync("rsa", { modulusLength: Number(kind.slice(4)) })
      : generateKeyPairSync("ec", { namedCurve: kind });
  return pair.privateKey.export({ type: "pkcs8", format: "pem" });
}
