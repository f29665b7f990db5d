/** EK certificates (checklist A1 to A8): chains made by openssl, judged by us and by openssl verify. */
import * as pkijs from "pkijs";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import {
  parseTrustedRoots,
  type VerifiedEkCertificate,
  verifyEkCertificate,
  type VerifyEkCertificateOptions,
} from "../../attest/ek/index.ts";
import { concatBytes } from "../../wire/index.ts";
import { codeOfAsync } from "../support/reject.ts";
import { type Issued, type IssueOptions, OpensslCa } from "./support/openssl-ca.ts";

const DAY_MS = 86_400_000;
/** The certificates start at the time of the run; the verifier's clock is fixed a day later. */
const AT_MS = Math.floor(Date.now() / 1000) * 1000 + DAY_MS;

const IDS = ["subjectKeyIdentifier=hash", "authorityKeyIdentifier=keyid"];
const CA_USAGE = "keyUsage=critical,keyCertSign,cRLSign";
const CA = ["basicConstraints=critical,CA:TRUE", CA_USAGE, ...IDS];
const SAN = "subjectAltName=critical,dirName:tpm";
const EKU = "extendedKeyUsage=2.23.133.8.1";
const NOT_CA = "basicConstraints=critical,CA:FALSE";
const ECC_USAGE = "keyUsage=critical,keyAgreement";
const RSA_USAGE = "keyUsage=critical,keyEncipherment";
const LEAF = [NOT_CA, ECC_USAGE, EKU, SAN, "authorityKeyIdentifier=keyid"];
const UNKNOWN_CRITICAL = "1.2.3.4.5=critical,ASN1:NULL";

const ca = new OpensslCa();
afterAll(() => {
  ca.close();
});

let root: Issued;
let intermediate: Issued;
beforeAll(() => {
  root = ca.issue({ subject: "/CN=Root", extensions: CA });
  intermediate = ca.issue({ subject: "/CN=Intermediate", issuer: root, extensions: CA });
});

function issueLeaf(options: Partial<IssueOptions> = {}): Issued {
  return ca.issue({ subject: "/", issuer: intermediate, extensions: LEAF, ...options });
}

function issueCa(options: Partial<IssueOptions> = {}): Issued {
  return ca.issue({ subject: "/CN=Other intermediate", issuer: root, extensions: CA, ...options });
}

/** LEAF or CA with the line of the same extension replaced. */
function replaced(lines: readonly string[], line: string): string[] {
  const name = line.slice(0, line.indexOf("="));
  return [...lines.filter((other) => !other.startsWith(`${name}=`)), line];
}

function without(lines: readonly string[], name: string): string[] {
  return lines.filter((line) => !line.startsWith(`${name}=`));
}

type Overrides = Partial<VerifyEkCertificateOptions>;

async function verify(
  leaf: Issued,
  intermediates: readonly Issued[] = [intermediate],
  overrides: Overrides = {},
): Promise<VerifiedEkCertificate> {
  return verifyEkCertificate({
    certificates: [leaf, ...intermediates].map(({ der }) => der),
    ekPublicKeySpki: leaf.spki,
    ekKeyType: "ecc",
    roots: await parseTrustedRoots(root.pem),
    atMs: AT_MS,
    ...overrides,
  });
}

describe("an EK certificate that follows the profile", () => {
  it("verifies with an ECC key over two levels, as openssl verify does", async () => {
    const leaf = issueLeaf();
    const verified = await verify(leaf);
    expect(verified).toStrictEqual({
      manufacturer: "id:53544D20",
      model: "ST33",
      version: "id:00490004",
      spki: leaf.spki,
      subjectKeyType: "ecc",
      oddities: [],
      revocation: "not-checked",
      specification: undefined,
    });
    expect(ca.accepts(leaf, [intermediate], root, AT_MS)).toBe(true);
  });

  it("verifies with an RSA key directly under the root", async () => {
    const leaf = issueLeaf({
      issuer: root,
      kind: "rsa-2048",
      extensions: replaced(LEAF, RSA_USAGE),
    });
    const verified = await verify(leaf, [], { ekKeyType: "rsa" });
    expect(verified.subjectKeyType).toBe("rsa");
    expect(verified.spki).toStrictEqual(leaf.spki);
  });

  it.each([
    ["rsa-2048", "sha256"],
    ["rsa-2048", "sha384"],
    ["rsa-2048", "sha512"],
    ["P-256", "sha384"],
    ["P-384", "sha384"],
    ["P-384", "sha256"],
    ["P-521", "sha512"],
    ["P-521", "sha256"],
  ] as const)("verifies under a root with %s and %s", async (kind, digest) => {
    const other = ca.issue({ subject: "/CN=Strong", kind, digest, extensions: CA });
    const middle = issueCa({ issuer: other, kind, digest });
    const leaf = issueLeaf({ issuer: middle, digest });
    const roots = await parseTrustedRoots(other.pem);
    expect((await verify(leaf, [middle], { roots })).model).toBe("ST33");
    expect(ca.accepts(leaf, [middle], other, AT_MS)).toBe(true);
  });

  it.each(["P-384", "P-521"] as const)("verifies an EK on %s", async (kind) => {
    expect((await verify(issueLeaf({ kind }))).subjectKeyType).toBe("ecc");
  });

  it("reads three attributes in one RDN, and a manufacturer in lower case", async () => {
    const san = "subjectAltName=critical,dirName:tpm_one_rdn";
    const verified = await verify(issueLeaf({ extensions: replaced(LEAF, san) }));
    expect(verified).toMatchObject({ manufacturer: "id:53544D20", version: "id:00490004" });
  });

  it("takes a subjectAltName that is not critical beside a subject", async () => {
    const extensions = replaced(LEAF, "subjectAltName=dirName:tpm");
    expect((await verify(issueLeaf({ subject: "/CN=EK", extensions }))).model).toBe("ST33");
  });

  it("takes intermediates from the bundle of roots, and unrelated ones in any order", async () => {
    const roots = await parseTrustedRoots(`${intermediate.pem}${root.pem}`);
    expect((await verify(issueLeaf(), [], { roots })).model).toBe("ST33");
    const lower = issueCa({ issuer: intermediate });
    const leaf = issueLeaf({ issuer: lower });
    expect((await verify(leaf, [issueCa(), intermediate, lower])).model).toBe("ST33");
  });

  it("finds the good path where a certificate of the same issuer has expired", async () => {
    const renewed = issueCa({ days: 300 });
    const expired = issueCa({ days: 1, key: renewed.key });
    const atMs = AT_MS + 20 * DAY_MS;
    const leaf = issueLeaf({ issuer: renewed });
    expect((await verify(leaf, [expired, renewed], { atMs })).model).toBe("ST33");
  });
});

const INVALID = "ATTEST_EK_CERTIFICATE_INVALID";
const UNTRUSTED = "ATTEST_EK_CHAIN_UNTRUSTED";
const NOT_ALLOWED = "ATTEST_ALGORITHM_NOT_ALLOWED";

describe("the profile of the EK certificate", () => {
  const cases: readonly [string, readonly string[], "openssl refuses too" | "openssl accepts"][] = [
    ["A6: refuses no extensions but a name", [SAN], "openssl accepts"],
    ["A6: refuses no EKU", without(LEAF, "extendedKeyUsage"), "openssl accepts"],
    ["A6: refuses another EKU", replaced(LEAF, "extendedKeyUsage=2.23.133.8.3"), "openssl accepts"],
    ["A7: refuses no subjectAltName", without(LEAF, "subjectAltName"), "openssl refuses too"],
    ["A6: refuses no keyUsage", without(LEAF, "keyUsage"), "openssl accepts"],
    ["A6: refuses a keyUsage of the other key type", replaced(LEAF, RSA_USAGE), "openssl accepts"],
    [
      "A3: refuses CA true",
      replaced(LEAF, "basicConstraints=critical,CA:TRUE"),
      "openssl refuses too",
    ],
    [
      "A3: refuses keyCertSign",
      replaced(LEAF, "keyUsage=critical,keyAgreement,keyCertSign"),
      "openssl refuses too",
    ],
    [
      "A7: refuses subjectAltName not critical",
      replaced(LEAF, "subjectAltName=dirName:tpm"),
      "openssl refuses too",
    ],
    [
      "A7: refuses a subjectAltName of another kind",
      replaced(LEAF, "subjectAltName=critical,DNS:a.example"),
      "openssl accepts",
    ],
    [
      "A7: refuses a manufacturer twice",
      replaced(LEAF, "subjectAltName=critical,dirName:tpm_twice"),
      "openssl accepts",
    ],
    [
      "A7: refuses a manufacturer without id:",
      replaced(LEAF, "subjectAltName=critical,dirName:tpm_bare_vendor"),
      "openssl accepts",
    ],
    [
      "A7: refuses no model",
      replaced(LEAF, "subjectAltName=critical,dirName:tpm_no_model"),
      "openssl accepts",
    ],
    [
      "A7: refuses a model that is too long",
      replaced(LEAF, "subjectAltName=critical,dirName:tpm_long_model"),
      "openssl accepts",
    ],
    [
      "A7: refuses a name that says nothing of a TPM",
      replaced(LEAF, "subjectAltName=critical,dirName:common_name"),
      "openssl accepts",
    ],
    [
      "A4: refuses an unknown critical extension",
      [...LEAF, UNKNOWN_CRITICAL],
      "openssl refuses too",
    ],
  ];
  it.each(cases)("%s", async (_name, extensions, openssl) => {
    const leaf = issueLeaf({ extensions });
    expect(await codeOfAsync(() => verify(leaf))).toBe(INVALID);
    expect(ca.accepts(leaf, [intermediate], root, AT_MS)).toBe(openssl === "openssl accepts");
  });

  it("A3: refuses an EK certificate in place of a root that is the EK certificate itself", async () => {
    expect(await codeOfAsync(() => verify(root, []))).toBe(INVALID);
  });
});

describe("the issuers of the path", () => {
  const cases: readonly [string, readonly string[], "openssl refuses too" | "openssl accepts"][] = [
    [
      "A3: refuses an intermediate without keyCertSign",
      replaced(CA, "keyUsage=critical,cRLSign"),
      "openssl refuses too",
    ],
    [
      "A3: refuses an intermediate without keyUsage",
      without(CA, "keyUsage"),
      "openssl refuses too",
    ],
    [
      "A3: refuses an intermediate with CA false",
      replaced(replaced(CA, NOT_CA), "keyUsage=critical,digitalSignature"),
      "openssl refuses too",
    ],
    [
      "A3: refuses an intermediate without basicConstraints",
      without(CA, "basicConstraints"),
      "openssl refuses too",
    ],
    [
      "A4: refuses an intermediate with an unknown critical extension",
      [...CA, UNKNOWN_CRITICAL],
      "openssl refuses too",
    ],
    [
      "A6: refuses an intermediate with the EKU of another purpose",
      [...CA, "extendedKeyUsage=2.23.133.8.3"],
      "openssl accepts",
    ],
    [
      "A12: refuses an intermediate with name constraints",
      [...CA, "nameConstraints=permitted;DNS:.example"],
      "openssl accepts",
    ],
    [
      "A12: refuses an intermediate with a policy that the leaf lacks",
      [...CA, "policyConstraints=requireExplicitPolicy:0"],
      "openssl accepts",
    ],
  ];
  it.each(cases)("%s", async (_name, extensions, openssl) => {
    const middle = issueCa({ extensions });
    const leaf = issueLeaf({ issuer: middle, extensions: without(LEAF, "authorityKeyIdentifier") });
    expect(await codeOfAsync(() => verify(leaf, [middle]))).toBe(UNTRUSTED);
    if (openssl === "openssl refuses too") {
      expect(ca.accepts(leaf, [middle], root, AT_MS)).toBe(false);
    }
  });

  it("A3: refuses a path below pathlen:0, and takes the same below pathlen:1", async () => {
    for (const [length, accepted] of [
      [0, false],
      [1, true],
    ] as const) {
      const upper = issueCa({
        extensions: replaced(CA, `basicConstraints=critical,CA:TRUE,pathlen:${length}`),
      });
      const lower = ca.issue({ subject: "/CN=Lower", issuer: upper, extensions: CA });
      const leaf = issueLeaf({ issuer: lower });
      const code = await codeOfAsync(() => verify(leaf, [lower, upper]));
      expect(code).toBe(accepted ? "nothing was thrown" : UNTRUSTED);
      expect(ca.accepts(leaf, [lower, upper], root, AT_MS)).toBe(accepted);
    }
  });

  it("A2: refuses a root that is not configured, and another root with the same name", async () => {
    const twin = ca.issue({ subject: "/CN=Root", extensions: CA });
    const middle = issueCa({ issuer: twin, subject: "/CN=Intermediate" });
    const leaf = issueLeaf({ issuer: middle });
    expect(await codeOfAsync(() => verify(leaf, [middle]))).toBe(UNTRUSTED);
    expect(await codeOfAsync(() => verify(leaf, [middle, twin]))).toBe(UNTRUSTED);
    expect(await codeOfAsync(() => verify(leaf, [intermediate]))).toBe(UNTRUSTED);
    expect(ca.accepts(leaf, [middle, twin], root, AT_MS)).toBe(false);
  });

  it("A2: refuses a chain whose intermediate is missing", async () => {
    expect(await codeOfAsync(() => verify(issueLeaf(), []))).toBe(UNTRUSTED);
  });

  it("A2, G3: refuses, in bounded time, intermediates that sign each other", async () => {
    const first = ca.issue({ subject: "/CN=A", extensions: CA });
    const second = ca.issue({ subject: "/CN=B", extensions: CA });
    const firstBySecond = ca.issue({
      subject: "/CN=A",
      key: first.key,
      issuer: second,
      extensions: CA,
    });
    const secondByFirst = ca.issue({
      subject: "/CN=B",
      key: second.key,
      issuer: first,
      extensions: CA,
    });
    const leaf = issueLeaf({ issuer: first });
    const chain = [firstBySecond, secondByFirst, first, second];
    expect(await codeOfAsync(() => verify(leaf, chain))).toBe(UNTRUSTED);
  });

  it("A2, G3: refuses, after a bounded number of signature checks, one issuer in five forms", async () => {
    // Each of the five signed each other: without a bound, 5! orders and 325 signatures.
    const first = ca.issue({ subject: "/CN=Loop", extensions: CA });
    const again = (): Issued => ca.issue({ subject: "/CN=Loop", key: first.key, extensions: CA });
    const leaf = issueLeaf({ issuer: first });
    const verifications = vi.spyOn(pkijs.Certificate.prototype, "verify");
    const code = await codeOfAsync(() => verify(leaf, [first, again(), again(), again(), again()]));
    const calls = verifications.mock.calls.length;
    verifications.mockRestore();
    expect(code).toBe(UNTRUSTED);
    // One more is the self-signature of the configured root.
    expect(calls).toBe(24 + 1);
  });

  it("A2, G3: refuses a path of more than six certificates, and takes six", async () => {
    const chain: Issued[] = [root];
    for (let level = 1; level <= 5; level += 1) {
      chain.unshift(ca.issue({ subject: `/CN=Level ${level}`, issuer: chain[0]!, extensions: CA }));
    }
    const six = issueLeaf({ issuer: chain[1]! });
    expect((await verify(six, chain.slice(1, -1))).model).toBe("ST33");
    const seven = issueLeaf({ issuer: chain[0]! });
    expect(await codeOfAsync(() => verify(seven, chain.slice(0, -1)))).toBe(UNTRUSTED);
  });
});

describe("validity", () => {
  const EXPIRED = "ATTEST_EK_CERTIFICATE_EXPIRED";

  it("A2: refuses an EK certificate that has expired or is not yet valid", async () => {
    const leaf = issueLeaf({ days: 10 });
    for (const atMs of [AT_MS + 20 * DAY_MS, AT_MS - 2 * DAY_MS]) {
      expect(await codeOfAsync(() => verify(leaf, [intermediate], { atMs }))).toBe(EXPIRED);
      expect(ca.accepts(leaf, [intermediate], root, atMs)).toBe(false);
    }
  });

  it("A2: refuses an issuer and a root that have expired", async () => {
    const atMs = AT_MS + 20 * DAY_MS;
    const middle = issueCa({ days: 10 });
    const leaf = issueLeaf({ issuer: middle });
    expect(await codeOfAsync(() => verify(leaf, [middle], { atMs }))).toBe(EXPIRED);
    expect(ca.accepts(leaf, [middle], root, atMs)).toBe(false);
    const old = ca.issue({ subject: "/CN=Old", extensions: CA, days: 10 });
    const roots = await parseTrustedRoots(old.pem);
    const below = issueLeaf({ issuer: old });
    expect(await codeOfAsync(() => verify(below, [], { atMs, roots }))).toBe(EXPIRED);
  });

  it("rejects a clock that is not a number as the caller's mistake", async () => {
    await expect(verify(issueLeaf(), [], { atMs: Number.NaN })).rejects.toThrow(RangeError);
  });
});

describe("algorithms", () => {
  it.each(["sha1", "md5"] as const)(
    "A5: refuses an EK certificate signed with %s",
    async (digest) => {
      const rsaRoot = ca.issue({ subject: "/CN=RSA root", kind: "rsa-2048", extensions: CA });
      const leaf = issueLeaf({ issuer: rsaRoot, digest });
      const roots = await parseTrustedRoots(rsaRoot.pem);
      expect(await codeOfAsync(() => verify(leaf, [], { roots }))).toBe(NOT_ALLOWED);
    },
  );

  it("A5: refuses an intermediate signed with SHA-1, and takes a root that signed itself so", async () => {
    const middle = issueCa({ digest: "sha1" });
    const leaf = issueLeaf({ issuer: middle });
    expect(await codeOfAsync(() => verify(leaf, [middle]))).toBe(NOT_ALLOWED);
    const old = ca.issue({ subject: "/CN=SHA-1 root", digest: "sha1", extensions: CA });
    const roots = await parseTrustedRoots(old.pem);
    expect((await verify(issueLeaf({ issuer: old }), [], { roots })).model).toBe("ST33");
  });

  it("A5: refuses RSA with 1024 bits as EK, as intermediate and as root", async () => {
    const kind = "rsa-1024";
    const leaf = issueLeaf({ kind, extensions: replaced(LEAF, RSA_USAGE) });
    expect(await codeOfAsync(() => verify(leaf, [intermediate], { ekKeyType: "rsa" }))).toBe(
      NOT_ALLOWED,
    );
    const middle = issueCa({ kind });
    expect(await codeOfAsync(() => verify(issueLeaf({ issuer: middle }), [middle]))).toBe(
      NOT_ALLOWED,
    );
    const weak = ca.issue({ subject: "/CN=Weak", kind, extensions: CA });
    const roots = await parseTrustedRoots(weak.pem);
    expect(await codeOfAsync(() => verify(issueLeaf({ issuer: weak }), [], { roots }))).toBe(
      NOT_ALLOWED,
    );
  });

  it("A5: refuses another curve", async () => {
    expect(await codeOfAsync(() => verify(issueLeaf({ kind: "secp256k1" })))).toBe(NOT_ALLOWED);
  });
});

describe("the key", () => {
  it("A8: refuses a certificate for another key", async () => {
    const ekPublicKeySpki = issueLeaf().spki;
    const code = await codeOfAsync(() => verify(issueLeaf(), [intermediate], { ekPublicKeySpki }));
    expect(code).toBe("ATTEST_EK_KEY_MISMATCH");
  });

  it("A8: refuses a key whose type is not that of the public area", async () => {
    const usage = "keyUsage=critical,keyAgreement,keyEncipherment";
    const leaf = issueLeaf({ extensions: replaced(LEAF, usage) });
    const code = await codeOfAsync(() => verify(leaf, [intermediate], { ekKeyType: "rsa" }));
    expect(code).toBe("ATTEST_EK_KEY_MISMATCH");
  });
});

describe("the bytes of the certificate", () => {
  function altered(leaf: Issued, der: Uint8Array, overrides: Overrides = {}): Promise<string> {
    return codeOfAsync(() => verify({ ...leaf, der }, [intermediate], overrides));
  }

  it("A1: refuses left-over bytes", async () => {
    const leaf = issueLeaf();
    expect(await altered(leaf, concatBytes([leaf.der, Uint8Array.of(1)]))).toBe(INVALID);
    expect(await altered(leaf, concatBytes([leaf.der, leaf.der]))).toBe(INVALID);
    const mixed = concatBytes([leaf.der, Uint8Array.of(0xff, 0xff, 0x00)]);
    expect(await altered(leaf, mixed, { acceptOddities: ["nv-index-padding"] })).toBe(INVALID);
  });

  it.each([0x00, 0xff])("A1: refuses padding with %i unless its row is named", async (byte) => {
    const leaf = issueLeaf();
    const der = concatBytes([leaf.der, new Uint8Array(700).fill(byte)]);
    expect(await altered(leaf, der)).toBe(INVALID);
    const verified = await verify({ ...leaf, der }, [intermediate], {
      acceptOddities: ["nv-index-padding"],
    });
    expect(verified.oddities).toStrictEqual(["nv-index-padding"]);
  });

  it("A1: refuses padding behind an intermediate always", async () => {
    const der = concatBytes([intermediate.der, new Uint8Array(4)]);
    const overrides: Overrides = { acceptOddities: ["nv-index-padding"] };
    const padded = { ...intermediate, der };
    expect(await codeOfAsync(() => verify(issueLeaf(), [padded], overrides))).toBe(INVALID);
  });

  it("A2: refuses a flipped bit of the signature and of the signed part", async () => {
    const leaf = issueLeaf();
    const flip = (index: number): Uint8Array => {
      const der = Uint8Array.from(leaf.der);
      der[index] = (der[index] ?? 0) ^ 1;
      return der;
    };
    expect(await altered(leaf, flip(leaf.der.length - 1))).toBe(UNTRUSTED);
    // The serial number: 30 82 .. .. 30 82 .. .. a0 03 02 01 02 02 01 [serial].
    expect(await altered(leaf, flip(15))).toBe(UNTRUSTED);
  });

  it("A1, G3: refuses none, too many, too large and empty", async () => {
    const leaf = issueLeaf();
    expect(await codeOfAsync(() => verify(leaf, [], { certificates: [] }))).toBe(INVALID);
    const certificates = Array.from({ length: 7 }, () => leaf.der);
    expect(await codeOfAsync(() => verify(leaf, [], { certificates }))).toBe(INVALID);
    expect(await altered(leaf, new Uint8Array(0))).toBe(INVALID);
    const padded = { ...intermediate, der: concatBytes([intermediate.der, new Uint8Array(9000)]) };
    expect(await codeOfAsync(() => verify(leaf, [padded]))).toBe(INVALID);
    const large = concatBytes([leaf.der, new Uint8Array(9000)]);
    expect(await altered(leaf, large, { acceptOddities: ["nv-index-padding"] })).toBe(INVALID);
  });
});
