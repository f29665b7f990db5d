/** EK certificates by others: manufacturers' own, swtpm_setup's and our software manufacturer's. */
import { execFileSync } from "node:child_process";
import { generateKeyPairSync, X509Certificate } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import {
  parseTrustedRoots,
  type TrustedRoots,
  verifyEkCertificate,
} from "../../attest/ek/index.ts";
import { createManufacturerCa } from "../../swtpm/index.ts";
import { concatBytes } from "../../wire/index.ts";
import { codeOfAsync } from "../support/reject.ts";
import { readSharedJson, sharedDir, sharedMissing } from "../support/shared.ts";

const AT_MS = Date.UTC(2024, 0, 1);
const INVALID = "ATTEST_EK_CERTIFICATE_INVALID";

function readManufacturers(): { name: string; pem: string; x509: X509Certificate }[] {
  const folder = join(sharedDir, "corpora", "manufacturer-roots");
  return readdirSync(folder)
    .filter((name) => name.endsWith(".pem"))
    .map((name) => {
      const pem = readFileSync(join(folder, name), "utf8");
      return { name, pem, x509: new X509Certificate(pem) };
    });
}

describe.skipIf(sharedMissing)("the manufacturers' certificates", () => {
  it("all 51 parse, and the anchors are those that node:crypto finds self-signed", async () => {
    const files = readManufacturers();
    expect(files).toHaveLength(51);
    const { anchors, intermediates } = await parseTrustedRoots(
      files.map(({ pem }) => pem).join(""),
    );
    const print = (der: Uint8Array): string => new X509Certificate(der).fingerprint256;
    const selfSigned = files.filter(
      ({ x509 }) => x509.issuer === x509.subject && x509.verify(x509.publicKey),
    );
    const expected = new Set(selfSigned.map(({ x509 }) => x509.fingerprint256));
    expect(new Set(anchors.map(({ der }) => print(der)))).toStrictEqual(expected);
    const all = new Set(files.map(({ x509 }) => x509.fingerprint256));
    expect(anchors.length + intermediates.length).toBe(all.size);
    expect([anchors.length, intermediates.length]).toStrictEqual([11, 34]);
  });

  it("have the dates that node:crypto reads", async () => {
    const roots = await parseTrustedRoots(
      readManufacturers()
        .map(({ pem }) => pem)
        .join(""),
    );
    for (const { der, notBeforeMs, notAfterMs } of [...roots.anchors, ...roots.intermediates]) {
      const x509 = new X509Certificate(der);
      expect([notBeforeMs, notAfterMs]).toStrictEqual([
        Date.parse(x509.validFrom),
        Date.parse(x509.validTo),
      ]);
    }
  });
});

interface Sample {
  readonly name: string;
  readonly der: string;
}

function verifySample(name: string, roots: TrustedRoots): Promise<unknown> {
  const samples = readSharedJson("corpora/ek-certs/keylime.json") as Sample[];
  const der = new Uint8Array(Buffer.from(samples.find((it) => it.name === name)!.der, "base64"));
  const { publicKey } = new X509Certificate(der);
  return verifyEkCertificate({
    certificates: [der],
    ekPublicKeySpki: new Uint8Array(publicKey.export({ type: "spki", format: "der" })),
    ekKeyType: publicKey.asymmetricKeyType === "ec" ? "ecc" : "rsa",
    roots,
    atMs: AT_MS,
    acceptOddities: ["nv-index-padding"],
  });
}

describe.skipIf(sharedMissing)("EK certificates of real TPMs", () => {
  const manufacturers = (): Promise<TrustedRoots> =>
    parseTrustedRoots(
      readManufacturers()
        .map(({ pem }) => pem)
        .join("\n"),
    );

  it("ST's RSA certificate chains to GlobalSign over intermediate 05, with its padding reported", async () => {
    expect(await verifySample("st_sha256_with_rsa_der", await manufacturers())).toMatchObject({
      manufacturer: "id:53544D20",
      model: "ST33HTPHAHB4",
      version: "id:00490004",
      oddities: ["nv-index-padding"],
    });
  });

  it("ST's ECC certificate verifies where its intermediate is an anchor", async () => {
    // GlobalSign's ECC root, which cross-signs ST's, is not among the 51.
    const roots = await manufacturers();
    const verify = (it: TrustedRoots): Promise<unknown> => verifySample("st_ecdsa_sha256_der", it);
    expect(await codeOfAsync(() => verify(roots))).toBe("ATTEST_EK_CHAIN_UNTRUSTED");
    const anchored = { anchors: roots.intermediates, intermediates: [] };
    expect(await verify(anchored)).toMatchObject({ model: "ST33HTPHAHB4", oddities: [] });
  });

  it.each([
    ["nuvoton_ecdsa_sha256_der", INVALID],
    ["idevid_der", "ATTEST_ALGORITHM_NOT_ALLOWED"],
    ["iak_der", "ATTEST_EK_CHAIN_UNTRUSTED"],
  ])("rejects %s, which is no EK certificate", async (name, code) => {
    const roots = await manufacturers();
    expect(await codeOfAsync(() => verifySample(name, roots))).toBe(code);
  });
});

describe("swtpm_setup --create-ek-cert", () => {
  const folder = mkdtempSync(join(tmpdir(), "stile-ek-swtpm-"));
  afterAll(() => {
    rmSync(folder, { recursive: true, force: true });
  });

  it("makes certificates that verify under its own CA", async () => {
    const at = (name: string): string => join(folder, name);
    for (const name of ["state", "ca", "out"]) mkdirSync(at(name));
    writeFileSync(
      at("options"),
      "--platform-manufacturer a --platform-version 1 --platform-model b\n",
    );
    writeFileSync(
      at("localca.conf"),
      `statedir = ${at("ca")}\nsigningkey = ${at("ca/signkey.pem")}\n` +
        `issuercert = ${at("ca/issuercert.pem")}\ncertserial = ${at("ca/certserial")}\n`,
    );
    writeFileSync(
      at("setup.conf"),
      `create_certs_tool = swtpm_localca\ncreate_certs_tool_config = ${at("localca.conf")}\n` +
        `create_certs_tool_options = ${at("options")}\n`,
    );
    execFileSync(
      "swtpm_setup",
      [
        "--tpm2",
        "--tpm-state",
        at("state"),
        "--create-ek-cert",
        "--config",
        at("setup.conf"),
        "--write-ek-cert-files",
        at("out"),
      ],
      { stdio: "pipe" },
    );
    const root = readFileSync(at("ca/swtpm-localca-rootca-cert.pem"), "utf8");
    const issuer = readFileSync(at("ca/issuercert.pem"), "utf8");
    const roots = await parseTrustedRoots(`${issuer}${root}`);
    const files = readdirSync(at("out"));
    expect(files).toStrictEqual(["ek-rsa2048.crt", "ek-secp384r1.crt"]);
    for (const file of files) {
      const x509 = new X509Certificate(readFileSync(join(at("out"), file)));
      const ekKeyType = file.includes("rsa") ? "rsa" : "ecc";
      const verified = await verifyEkCertificate({
        certificates: [new Uint8Array(x509.raw)],
        ekPublicKeySpki: new Uint8Array(x509.publicKey.export({ type: "spki", format: "der" })),
        ekKeyType,
        roots,
        // Without a well-defined expiration: valid in the year 9999.
        atMs: Date.UTC(9999, 11, 31),
        acceptOddities: ["unregistered-manufacturer"],
      });
      expect(verified).toMatchObject({
        manufacturer: "id:00001014",
        model: "swtpm",
        oddities: ["unregistered-manufacturer"],
      });
    }
  });
});

describe("the manufacturer of our software TPMs", () => {
  const clock = (): number => AT_MS;
  const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 }).publicKey;
  const rsaSpki = new Uint8Array(rsa.export({ type: "spki", format: "der" }));
  const ecc = generateKeyPairSync("ec", { namedCurve: "P-256" }).publicKey;
  const eccSpki = new Uint8Array(ecc.export({ type: "spki", format: "der" }));

  it.each([["rsa", rsaSpki] as const, ["ecc", eccSpki] as const])(
    "certifies %s keys",
    async (ekKeyType, ekPublicKeySpki) => {
      const ca = await createManufacturerCa({ clock });
      const leaf = await ca.issueEkCertificate(ekPublicKeySpki, ekKeyType);
      const verified = await verifyEkCertificate({
        certificates: [leaf, ca.intermediate],
        ekPublicKeySpki,
        ekKeyType,
        roots: await parseTrustedRoots(ca.rootPem),
        atMs: AT_MS,
      });
      expect(verified).toMatchObject({ manufacturer: "id:49424D00", spki: ekPublicKeySpki });
    },
  );

  it("rejects a key named RSAES-OAEP unless its row is named, and then finds it equal", async () => {
    // The last arc of rsaEncryption (…1.1.1) becomes that of id-RSAES-OAEP (…1.1.7), without parameters.
    const oaep = concatBytes([
      Uint8Array.from([0x30, 0x82, 0x01, 0x20]),
      Uint8Array.from([
        0x30, 0x0b, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x07,
      ]),
      rsaSpki.subarray(19),
    ]);
    const ca = await createManufacturerCa({ clock });
    const options = {
      certificates: [await ca.issueEkCertificate(oaep, "rsa"), ca.intermediate],
      ekPublicKeySpki: rsaSpki,
      ekKeyType: "rsa",
      roots: await parseTrustedRoots(ca.rootPem),
      atMs: AT_MS,
    } as const;
    expect(await codeOfAsync(() => verifyEkCertificate(options))).toBe(INVALID);
    const verified = await verifyEkCertificate({ ...options, acceptOddities: ["rsaes-oaep-key"] });
    expect(verified.spki).toStrictEqual(rsaSpki);
    expect(verified.oddities).toStrictEqual(["rsaes-oaep-key"]);
  });

  it("rejects bundles of roots that are damaged or hold no root", async () => {
    const ca = await createManufacturerCa({ clock });
    const der = Buffer.from(ca.root).toString("base64");
    const block = (text: string): string =>
      `-----BEGIN CERTIFICATE-----\n${text}\n-----END CERTIFICATE-----\n`;
    const damaged = [
      "",
      "text",
      block(Buffer.from(ca.intermediate).toString("base64")),
      block(der).replace("-----END CERTIFICATE-----", ""),
      `${block(der)}-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n`,
      block(`${der.slice(0, -4)}A`),
      block(der.slice(0, -8)),
      `${block(der)}${block("AAAA")}`,
      block(der).repeat(4097),
      " ".repeat(16 * 1024 * 1024 + 1),
    ];
    for (const pem of damaged)
      expect(await codeOfAsync(() => parseTrustedRoots(pem))).toBe(INVALID);
    expect((await parseTrustedRoots(`text\n${block(der)}`)).anchors).toHaveLength(1);
  });
});
