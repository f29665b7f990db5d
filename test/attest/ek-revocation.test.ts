/** Revocation (checklist A9, A12): CRLs by openssl ca, our own deny list, and no network. */
import { createHash, sign, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  denyRowsOf,
  parseDenyList,
  parseRevocationLists,
  parseTrustedRoots,
  type RevocationList,
  type RevocationPolicy,
  type TrustedRoots,
  type VerifiedEkCertificate,
  verifyEkCertificate,
} from "../../attest/ek/index.ts";
import { concatBytes, decodeHex, encodeBase64Url, encodeUtf8 } from "../../wire/index.ts";
import { codeOf, codeOfAsync } from "../support/reject.ts";
import { der, seq } from "./support/der-certificate.ts";
import { type CrlOptions, type Issued, OpensslCa } from "./support/openssl-ca.ts";
import { respelledEcdsa } from "./support/respelled-ecdsa.ts";

const DAY_MS = 86_400_000;
const START_MS = Math.floor(Date.now() / 1000) * 1000;
/** The certificates start at the time of the run; the verifier's clock is fixed a day later. */
const AT_MS = START_MS + DAY_MS;
const DATA_INVALID = "ATTEST_REVOCATION_DATA_INVALID";
const REVOKED = "ATTEST_EK_REVOKED";
const UNKNOWN = "ATTEST_REVOCATION_UNKNOWN";

const IDS = ["subjectKeyIdentifier=hash", "authorityKeyIdentifier=keyid"];
const CA = [
  "basicConstraints=critical,CA:TRUE",
  "keyUsage=critical,keyCertSign,cRLSign",
  ...IDS,
] as const;
const LEAF = [
  "basicConstraints=critical,CA:FALSE",
  "keyUsage=critical,keyAgreement",
  "extendedKeyUsage=2.23.133.8.1",
  "subjectAltName=critical,dirName:tpm",
];

const ca = new OpensslCa();
afterAll(() => {
  ca.close();
});
let root: Issued;
let intermediate: Issued;
let leaf: Issued;
let other: Issued;
let roots: TrustedRoots;
/** Name, DER. */
let issuerOfLeaf: Uint8Array;
beforeAll(async () => {
  root = ca.issue({ subject: "/CN=Root", extensions: CA });
  intermediate = ca.issue({ subject: "/CN=Intermediate", issuer: root, extensions: CA });
  leaf = ca.issue({ subject: "/", issuer: intermediate, extensions: LEAF });
  other = ca.issue({ subject: "/", issuer: intermediate, extensions: LEAF });
  roots = await parseTrustedRoots(`${root.pem}${intermediate.pem}`);
  issuerOfLeaf = (await denyRowsOf(leaf.der)).certificate.issuer;
});

const serialOf = ({ pem }: Issued): string => new X509Certificate(pem).serialNumber;

function crl(
  issuer: Issued,
  revoked: readonly Issued[],
  changes: Partial<CrlOptions> = {},
): Uint8Array {
  return ca.crl(issuer, {
    revoked: revoked.map(serialOf),
    thisUpdateMs: START_MS,
    nextUpdateMs: AT_MS + 30 * DAY_MS,
    ...changes,
  });
}

const lists = (...crls: readonly Uint8Array[]): Promise<readonly RevocationList[]> =>
  parseRevocationLists(crls, roots);

function verify(
  revocation: RevocationPolicy | undefined,
  certificate: Issued = leaf,
  atMs: number = AT_MS,
): Promise<VerifiedEkCertificate> {
  return verifyEkCertificate({
    certificates: [certificate.der],
    ekPublicKeySpki: certificate.spki,
    ekKeyType: "ecc",
    roots,
    atMs,
    ...(revocation === undefined ? {} : { revocation }),
  });
}

describe("CRLs", () => {
  it("are good where each issuer's current list names none of the path", async () => {
    const both = await lists(crl(root, []), crl(intermediate, [other]));
    for (const mode of ["required", "when-available"] as const)
      expect((await verify({ mode, lists: both })).revocation).toBe("good");
  });

  it("A9: refuses a revoked EK certificate in both modes, and a revoked intermediate", async () => {
    const ofLeaf = await lists(crl(root, []), crl(intermediate, [leaf]));
    const ofCa = await lists(crl(root, [intermediate]), crl(intermediate, []));
    for (const mode of ["required", "when-available"] as const) {
      expect(await codeOfAsync(() => verify({ mode, lists: ofLeaf }))).toBe(REVOKED);
      expect(await codeOfAsync(() => verify({ mode, lists: ofCa }))).toBe(REVOKED);
      expect((await verify({ mode, lists: ofLeaf }, other)).revocation).toBe("good");
    }
  });

  it("A9: refuses missing and outdated lists where they are required, and else reports them", async () => {
    const stale = crl(intermediate, [], { nextUpdateMs: START_MS + DAY_MS / 2 });
    const future = crl(intermediate, [], { thisUpdateMs: AT_MS + DAY_MS });
    const incomplete = [
      await lists(),
      await lists(crl(root, [])),
      await lists(crl(intermediate, [])),
      await lists(crl(root, []), stale),
      await lists(crl(root, []), future),
    ];
    for (const some of incomplete) {
      expect(await codeOfAsync(() => verify({ mode: "required", lists: some }))).toBe(UNKNOWN);
      const verified = await verify({ mode: "when-available", lists: some });
      expect(verified.revocation).toBe("unknown");
    }
    const renewed = await lists(crl(root, []), stale, crl(intermediate, []));
    expect((await verify({ mode: "required", lists: renewed })).revocation).toBe("good");
  });

  it("A9: refuses what an outdated list revoked", async () => {
    const stale = await lists(crl(intermediate, [leaf], { nextUpdateMs: START_MS + DAY_MS / 2 }));
    expect(await codeOfAsync(() => verify({ mode: "when-available", lists: stale }))).toBe(REVOKED);
  });

  it("says that nothing was checked where they are off or absent", async () => {
    const revoking = await lists(crl(intermediate, [leaf]));
    expect((await verify({ mode: "off", lists: revoking })).revocation).toBe("not-checked");
    expect((await verify(undefined)).revocation).toBe("not-checked");
  });

  it("hold at the first and the last instant of their period", async () => {
    const nextUpdateMs = AT_MS + DAY_MS;
    const both = await lists(
      crl(root, [], { thisUpdateMs: AT_MS, nextUpdateMs }),
      crl(intermediate, [], { thisUpdateMs: AT_MS, nextUpdateMs }),
    );
    const required = { mode: "required", lists: both } as const;
    for (const atMs of [AT_MS, nextUpdateMs])
      expect((await verify(required, leaf, atMs)).revocation).toBe("good");
    for (const atMs of [AT_MS - 1000, nextUpdateMs + 1])
      expect(await codeOfAsync(() => verify(required, leaf, atMs))).toBe(UNKNOWN);
  });

  it("of another issuer with the same name do not count, nor revoke", async () => {
    const impostor = ca.issue({ subject: "/CN=Intermediate", issuer: root, extensions: CA });
    const both = await parseTrustedRoots(`${root.pem}${impostor.pem}${intermediate.pem}`);
    const revoking = await parseRevocationLists([crl(impostor, [leaf]), crl(root, [])], both);
    const when = await verify({ mode: "when-available", lists: revoking });
    expect(when.revocation).toBe("unknown");
  });

  it("of a CA of another name with the same key do not count, nor revoke", async () => {
    const { key } = intermediate;
    const alias = ca.issue({ subject: "/CN=Alias", key, issuer: root, extensions: CA });
    const bundle = await parseTrustedRoots(`${root.pem}${alias.pem}`);
    const revoking = await parseRevocationLists([crl(alias, [leaf]), crl(root, [])], bundle);
    const when = await verify({ mode: "when-available", lists: revoking });
    expect(when.revocation).toBe("unknown");
  });

  it("of a CA whose certificate was renewed for the same key still count", async () => {
    const renewed = ca.issue({
      subject: "/CN=Intermediate",
      key: intermediate.key,
      issuer: root,
      extensions: CA,
    });
    const bundle = await parseTrustedRoots(`${root.pem}${renewed.pem}`);
    const revoking = await parseRevocationLists([crl(renewed, [leaf])], bundle);
    expect(await codeOfAsync(() => verify({ mode: "when-available", lists: revoking }))).toBe(
      REVOKED,
    );
  });
});

describe("lists that cannot be used", () => {
  const refuses = async (list: Uint8Array): Promise<void> => {
    expect(await codeOfAsync(() => lists(list))).toBe(DATA_INVALID);
  };

  it("A9: refuses a list that no configured certificate signed", async () => {
    const stranger = ca.issue({ subject: "/CN=Intermediate", extensions: CA });
    await refuses(crl(stranger, [leaf]));
  });

  it("A9: refuses a list of a CA that may not sign lists", async () => {
    const extensions = CA.map((line) => line.replace(",cRLSign", ""));
    const middle = ca.issue({ subject: "/CN=No CRLs", issuer: root, extensions });
    const bundle = await parseTrustedRoots(`${root.pem}${middle.pem}`);
    const list = crl(middle, []);
    expect(await codeOfAsync(() => parseRevocationLists([list], bundle))).toBe(DATA_INVALID);
  });

  it("A9: refuses each changed byte of a list", async () => {
    const list = crl(intermediate, [other]);
    expect(await lists(list)).toHaveLength(1);
    for (let index = 0; index < list.length; index += 1) {
      const changed = Uint8Array.from(list);
      changed[index] = (changed[index] ?? 0) ^ 1;
      await refuses(changed);
    }
  });

  it("A9, G5: refuses a list whose signature is spelt another way", async () => {
    let seen = 0;
    for (let attempt = 0; attempt < 64 && seen < 3; attempt += 1) {
      const list = crl(intermediate, [other]);
      const respelled = respelledEcdsa(list);
      if (respelled === undefined) continue;
      expect(await lists(list)).toHaveLength(1);
      await refuses(respelled);
      seen += 1;
    }
    expect(seen).toBe(3);
  });

  it("A4, A9: refuses a list that may be a part: delta, distribution point", async () => {
    await refuses(crl(intermediate, [], { extensions: ["2.5.29.27=critical,ASN1:INTEGER:1"] }));
    const point = "issuingDistributionPoint=critical,@point\n[point]\nonlyCA=TRUE";
    await refuses(crl(intermediate, [], { extensions: [point] }));
  });

  it("A5: refuses a list that is signed with SHA-1", async () => {
    await refuses(crl(intermediate, [], { digest: "sha1" }));
  });

  it("A1: refuses version 1, nothing, left-over bytes and more than 8 MiB", async () => {
    const list = crl(intermediate, []);
    await refuses(crl(intermediate, [], { version: 1, revoked: [] }));
    await refuses(new Uint8Array());
    await refuses(concatBytes([list, Uint8Array.of(0)]));
    await refuses(new Uint8Array(8 * 1024 * 1024 + 1));
    await refuses(leaf.der);
  });
});

interface RawCrl {
  readonly version?: Uint8Array;
  readonly inner?: Uint8Array;
  readonly issuer?: Uint8Array;
  readonly nextUpdate?: Uint8Array;
  readonly more?: Uint8Array;
}

/** CertificateList put together byte by byte, signed by the intermediate. */
function rawCrl(entry: Uint8Array, changes: RawCrl = {}): Uint8Array {
  const time = (text: string): Uint8Array => der(0x17, encodeUtf8(text));
  const algorithm = seq(decodeHex("06082a8648ce3d040302"));
  const tbs = seq(
    changes.version ?? decodeHex("020101"),
    changes.inner ?? algorithm,
    changes.issuer ?? issuerOfLeaf,
    time("260101000000Z"),
    changes.nextUpdate ?? time("490101000000Z"),
    seq(entry),
    changes.more ?? new Uint8Array(),
  );
  const signature = new Uint8Array(sign("sha256", tbs, readFileSync(intermediate.key)));
  return seq(tbs, algorithm, der(0x03, Uint8Array.of(0), signature));
}

describe("lists that no tool writes", () => {
  const serial = decodeHex("020177");
  const date = der(0x17, encodeUtf8("260102000000Z"));
  /** certificateIssuer [RFC 5280 §5.3.3] of an indirect list. */
  const certificateIssuer = (critical: boolean): Uint8Array =>
    seq(
      seq(
        decodeHex("0603551d1d"),
        critical ? decodeHex("0101ff") : new Uint8Array(),
        der(0x04, seq()),
      ),
    );

  it("are read, and their entries with extensions that are not critical", async () => {
    const [list] = await lists(rawCrl(seq(serial, date)));
    expect([...(list?.revoked ?? [])]).toStrictEqual(["77"]);
    expect(await lists(rawCrl(seq(serial, date, certificateIssuer(false))))).toHaveLength(1);
  });

  it("A4, A9: refuses an entry with a critical extension, as indirect lists have", async () => {
    const indirect = rawCrl(seq(serial, date, certificateIssuer(true)));
    expect(await codeOfAsync(() => lists(indirect))).toBe(DATA_INVALID);
  });

  it("A9: refuses a list without nextUpdate, with malformed entries or more fields", async () => {
    const entry = seq(serial, date);
    const bad = [
      rawCrl(entry, { nextUpdate: new Uint8Array() }),
      rawCrl(entry, { version: decodeHex("020100") }),
      rawCrl(entry, { version: decodeHex("020102") }),
      // ecdsa-with-SHA384 in the signed part.
      rawCrl(entry, { inner: seq(decodeHex("06082a8648ce3d040303")) }),
      // The empty name, and the key of the intermediate.
      rawCrl(entry, { issuer: seq() }),
      rawCrl(entry, { more: decodeHex("0500") }),
      rawCrl(entry, { more: der(0xa0, seq(), seq()) }),
      rawCrl(seq(serial)),
      rawCrl(seq(serial, date, seq(), seq())),
      rawCrl(seq(decodeHex("020100"), date)),
      rawCrl(seq(decodeHex("0201ff"), date)),
      rawCrl(serial),
    ];
    for (const list of bad) expect(await codeOfAsync(() => lists(list))).toBe(DATA_INVALID);
  });
});

describe("the deny list", () => {
  const empty = { mode: "off", lists: [] } as const;
  const spkiHash = ({ spki }: Issued): string => createHash("sha256").update(spki).digest("hex");

  async function denialOf(issued: Issued): Promise<string> {
    const { certificate } = await denyRowsOf(issued.der);
    const issuer = encodeBase64Url(certificate.issuer);
    const row = { issuer, serialNumber: certificate.serialNumber };
    return JSON.stringify({ version: 1, certificates: [row], spkiSha256: [] });
  }

  it("A9: refuses a certificate by issuer and serial number, at any place of the path", async () => {
    for (const issued of [leaf, intermediate, root]) {
      const denied = parseDenyList(await denialOf(issued));
      expect(await codeOfAsync(() => verify({ ...empty, denied }))).toBe(REVOKED);
    }
    const denied = parseDenyList(await denialOf(other));
    expect((await verify({ ...empty, denied })).revocation).toBe("not-checked");
    // The same serial number of another issuer is another certificate.
    const { certificate } = await denyRowsOf(leaf.der);
    const { issuer } = (await denyRowsOf(intermediate.der)).certificate;
    const row = { issuer: encodeBase64Url(issuer), serialNumber: certificate.serialNumber };
    const elsewhere = JSON.stringify({ version: 1, certificates: [row], spkiSha256: [] });
    const verified = await verify({ ...empty, denied: parseDenyList(elsewhere) });
    expect(verified.revocation).toBe("not-checked");
  });

  it("A9: refuses a key by its hash, at any place of the path", async () => {
    for (const issued of [leaf, intermediate, root]) {
      expect((await denyRowsOf(issued.der)).spkiSha256).toBe(spkiHash(issued));
      const text = { version: 1, certificates: [], spkiSha256: [spkiHash(issued)] };
      const denied = parseDenyList(JSON.stringify(text));
      expect(await codeOfAsync(() => verify({ ...empty, denied }))).toBe(REVOKED);
      expect(await codeOfAsync(() => verify({ ...empty, mode: "when-available", denied }))).toBe(
        REVOKED,
      );
    }
  });

  it("A9: refuses a deny list that it does not understand", async () => {
    const good = { version: 1, certificates: [], spkiSha256: [] };
    const row = { issuer: encodeBase64Url(Uint8Array.of(0x30, 0)), serialNumber: "0a" };
    const bad: readonly unknown[] = [
      null,
      [],
      { ...good, version: 2 },
      { ...good, more: 1 },
      { version: 1, certificates: [] },
      { ...good, spkiSha256: ["AB".repeat(32)] },
      { ...good, spkiSha256: ["ab".repeat(31)] },
      { ...good, spkiSha256: [7] },
      { ...good, certificates: [{ ...row, serialNumber: "000a" }] },
      { ...good, certificates: [{ ...row, serialNumber: "0A" }] },
      { ...good, certificates: [{ ...row, issuer: "AAAA" }] },
      { ...good, certificates: [{ ...row, issuer: "*" }] },
      { ...good, certificates: [{ ...row, subject: "x" }] },
      { ...good, certificates: [null] },
      { ...good, certificates: Array.from({ length: 100_001 }, () => row) },
    ];
    for (const value of bad) {
      const text = JSON.stringify(value);
      expect(
        codeOf(() => parseDenyList(text)),
        text.slice(0, 200),
      ).toBe(DATA_INVALID);
    }
    expect(codeOf(() => parseDenyList("{"))).toBe(DATA_INVALID);
    expect(
      parseDenyList(JSON.stringify({ ...good, certificates: [row] })).certificates,
    ).toHaveLength(1);
  });
});

describe("addresses in certificates", () => {
  it("A12, G4: refuses a chain whose issuer is only at an address, and connects to none", async () => {
    let connections = 0;
    const server = createServer((_request, response) => response.end());
    server.on("connection", () => (connections += 1));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    const hidden = ca.issue({ subject: "/CN=Hidden", issuer: root, extensions: CA });
    const extensions = [
      ...LEAF,
      `authorityInfoAccess=caIssuers;URI:http://127.0.0.1:${port}/hidden.cer`,
      `crlDistributionPoints=URI:http://127.0.0.1:${port}/hidden.crl`,
    ];
    const ek = ca.issue({ subject: "/", issuer: hidden, extensions });
    const policy = { mode: "when-available", lists: [] } as const;
    expect(await codeOfAsync(() => verify(policy, ek))).toBe("ATTEST_EK_CHAIN_UNTRUSTED");
    // The same issuer from the local bundle.
    const bundle = await parseTrustedRoots(`${root.pem}${hidden.pem}`);
    const verified = await verifyEkCertificate({
      certificates: [ek.der],
      ekPublicKeySpki: ek.spki,
      ekKeyType: "ecc",
      roots: bundle,
      atMs: AT_MS,
      revocation: policy,
    });
    expect(verified.revocation).toBe("unknown");
    await new Promise((resolve) => server.close(resolve));
    expect(connections).toBe(0);
  });
});
