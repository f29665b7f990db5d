/** A small certification authority by Debian's openssl: certificates, OCSP responses and CRLs that we did not make. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface IssuedFiles {
  readonly certificateFile: string;
  readonly keyFile: string;
}

export interface Issue {
  readonly name: string;
  /** As openssl writes it: `DNS:a.example,URI:spiffe://b`. */
  readonly subjectAltName?: string;
  readonly extendedKeyUsage?: string;
  readonly keyUsage?: string;
  readonly isCa?: boolean;
  /** UTC, `YYYYMMDDHHMMSSZ`; without them, 30 days from now. */
  readonly from?: string;
  readonly to?: string;
  readonly extra?: readonly string[];
}

export interface OpensslCa {
  readonly dir: string;
  readonly caFile: string;
  readonly pem: string;
  readonly issue: (fields: Issue) => IssuedFiles;
  readonly revoke: (certificateFile: string) => void;
  /** PEM. */
  readonly crl: (name: string, options?: readonly string[]) => string;
  /** DER of a response about a certificate; signed by the CA, or by `signer`. */
  readonly ocsp: (
    certificateFile: string,
    options?: {
      readonly signer?: IssuedFiles;
      readonly extra?: readonly string[];
      /** False: without nextUpdate. */
      readonly ends?: boolean;
    },
  ) => Uint8Array;
  readonly remove: () => void;
}

const CONFIG = (dir: string): string => `
[ca]
default_ca = it
[it]
database = ${dir}/index.txt
new_certs_dir = ${dir}
certificate = ${dir}/ca.pem
private_key = ${dir}/ca.key
rand_serial = yes
default_md = sha256
default_days = 30
default_crl_days = 7
policy = any
unique_subject = no
copy_extensions = none
crl_extensions = crl
[any]
commonName = supplied
[crl]
authorityKeyIdentifier = keyid
[req]
distinguished_name = dn
[dn]
`;

/** @param parent signs this CA's certificate; without it, it is a root */
export function opensslCa(name = "test root", parent?: OpensslCa): OpensslCa {
  const dir = mkdtempSync(join(tmpdir(), "stile-ca-"));
  const at = (file: string): string => join(dir, file);
  const openssl = (...args: string[]): void =>
    void execFileSync("openssl", args, { stdio: ["ignore", "ignore", "pipe"] });
  const newKey = (keyFile: string): void =>
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", keyFile);
  writeFileSync(at("index.txt"), "");
  writeFileSync(at("ca.cnf"), CONFIG(dir));
  if (parent === undefined) {
    newKey(at("ca.key"));
    const subject = ["-subj", `/CN=${name}`, "-addext", "keyUsage=critical,keyCertSign,cRLSign"];
    const root = ["req", "-x509", "-new", "-config", at("ca.cnf"), "-key", at("ca.key")];
    const basic = ["-addext", "basicConstraints=critical,CA:TRUE", "-out", at("ca.pem")];
    openssl(...root, ...subject, ...basic, "-days", "3650");
  } else {
    const made = parent.issue({ name, isCa: true });
    writeFileSync(at("ca.key"), readFileSync(made.keyFile));
    writeFileSync(at("ca.pem"), readFileSync(made.certificateFile));
  }

  const issue: OpensslCa["issue"] = (fields) => {
    const stem = `${fields.name.replaceAll(/[^a-z0-9]+/gi, "-")}-${Math.random()}`;
    const files = { certificateFile: at(`${stem}.pem`), keyFile: at(`${stem}.key`) };
    newKey(files.keyFile);
    const csr = ["-key", files.keyFile, "-subj", `/CN=${fields.name}`, "-out", at("csr.pem")];
    openssl("req", "-new", "-config", at("ca.cnf"), ...csr);
    writeFileSync(at("ext.cnf"), extensionsOf(fields));
    const window = fields.from === undefined ? [] : ["-startdate", fields.from];
    const end = fields.to === undefined ? [] : ["-enddate", fields.to];
    const ca = ["ca", "-batch", "-notext", "-config", at("ca.cnf"), "-extfile", at("ext.cnf")];
    openssl(...ca, ...window, ...end, "-in", at("csr.pem"), "-out", files.certificateFile);
    return files;
  };
  const revoke = (file: string): void => openssl("ca", "-config", at("ca.cnf"), "-revoke", file);
  const pem = readFileSync(at("ca.pem"), "utf8");
  return {
    dir,
    caFile: at("ca.pem"),
    pem,
    issue,
    revoke,
    crl: (file, options = []) => {
      openssl("ca", "-config", at("ca.cnf"), "-gencrl", "-out", at(file), ...options);
      return at(file);
    },
    ocsp: (file, { signer, extra = [], ends = true } = {}) => {
      const by = signer ?? { certificateFile: at("ca.pem"), keyFile: at("ca.key") };
      const request = ["ocsp", "-issuer", at("ca.pem"), "-cert", file, "-no_nonce"];
      openssl(...request, "-reqout", at("ocsp.req"));
      const answer = ["ocsp", "-index", at("index.txt"), "-CA", at("ca.pem")];
      if (ends) answer.push("-ndays", "7");
      const signed = ["-rsigner", by.certificateFile, "-rkey", by.keyFile];
      const out = ["-reqin", at("ocsp.req"), "-respout", at("ocsp.der")];
      openssl(...answer, ...signed, ...out, ...extra);
      return readFileSync(at("ocsp.der"));
    },
    remove: () => rmSync(dir, { recursive: true, force: true }),
  };
}

function extensionsOf(fields: Issue): string {
  const lines = [
    `basicConstraints = critical, CA:${fields.isCa === true ? "TRUE" : "FALSE"}`,
    `keyUsage = critical, ${fields.keyUsage ?? (fields.isCa === true ? "keyCertSign, cRLSign" : "digitalSignature")}`,
    "subjectKeyIdentifier = hash",
    "authorityKeyIdentifier = keyid",
    ...(fields.subjectAltName === undefined ? [] : [`subjectAltName = ${fields.subjectAltName}`]),
    ...(fields.extendedKeyUsage === undefined
      ? []
      : [`extendedKeyUsage = ${fields.extendedKeyUsage}`]),
    ...(fields.extra ?? []),
  ];
  return lines.join("\n");
}
