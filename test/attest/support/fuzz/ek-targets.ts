/** EK certificates and what an operator configures beside them: roots, revocation lists, deny lists. */
import { generateKeyPairSync, X509Certificate } from "node:crypto";
import {
  EK_CERTIFICATE_ODDITIES,
  type EkCertificateOddity,
  parseDenyList,
  parseRevocationLists,
  parseTrustedRoots,
  type TrustedRoots,
  verifyEkCertificate,
} from "../../../../attest/ek/index.ts";
import { createManufacturerCa } from "../../../../swtpm/index.ts";
import { mutateBytes, pick } from "../../../support/fuzz.ts";
import { EK_SAMPLES, ROOT_FILES, rootPemOf } from "../corpora/ek.ts";
import { OpensslCa } from "../openssl-ca.ts";
import { bytesTarget, type FuzzTarget, sameBytes, textTarget } from "./target.ts";

const AT_MS = Date.UTC(2024, 0, 1);
const ALL_ROWS = Object.keys(EK_CERTIFICATE_ODDITIES) as EkCertificateOddity[];

const SELF_SIGNED = ["GS_TPM_RT.pem", "INTEL_RT.pem", "NTC1.pem"];

export async function ekTargets(): Promise<FuzzTarget[]> {
  const own = await ownChain();
  return [
    chainTarget("EK certificate of our CA", 45, own),
    ...(EK_SAMPLES.length === 0
      ? [chainTarget("EK certificate of our CA again", 40, own)]
      : [chainTarget("EK certificate of ST", 40, await capturedChain())]),
    textTarget({
      name: "trusted roots",
      share: 20,
      seeds: [
        own.rootPem,
        ...ROOT_FILES.filter((file) => SELF_SIGNED.includes(file)).map(rootPemOf),
      ],
      parse: parseTrustedRoots,
      fault: ({ anchors }) =>
        anchors.every(({ issuer, subject }) => sameBytes(issuer, subject))
          ? undefined
          : "an anchor that is not self-signed",
    }),
    await crlTarget(),
    textTarget({
      name: "deny list",
      share: 20,
      seeds: [
        JSON.stringify({
          version: 1,
          certificates: [{ issuer: "MAA", serialNumber: "0a" }],
          spkiSha256: ["ab".repeat(32)],
        }),
      ],
      parse: parseDenyList,
    }),
  ];
}

interface Chain {
  readonly leaf: Uint8Array;
  readonly intermediates: readonly Uint8Array[];
  readonly ekPublicKeySpki: Uint8Array;
  readonly ekKeyType: "rsa" | "ecc";
  readonly roots: TrustedRoots;
}

async function ownChain(): Promise<Chain & { readonly rootPem: string }> {
  const ca = await createManufacturerCa({ clock: () => AT_MS });
  const { publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const ekPublicKeySpki = new Uint8Array(publicKey.export({ type: "spki", format: "der" }));
  return {
    leaf: await ca.issueEkCertificate(ekPublicKeySpki, "ecc"),
    intermediates: [ca.intermediate],
    ekPublicKeySpki,
    ekKeyType: "ecc",
    roots: await parseTrustedRoots(ca.rootPem),
    rootPem: ca.rootPem,
  };
}

/** ST's, with the padding of its NV index, under the manufacturers' own certificates. */
async function capturedChain(): Promise<Chain> {
  const leaf = EK_SAMPLES.find(({ name }) => name === "st_sha256_with_rsa_der")?.der;
  if (leaf === undefined) throw new Error("ST's sample is missing");
  const { publicKey } = new X509Certificate(leaf);
  return {
    leaf,
    intermediates: [],
    ekPublicKeySpki: new Uint8Array(publicKey.export({ type: "spki", format: "der" })),
    ekKeyType: "rsa",
    roots: await parseTrustedRoots(ROOT_FILES.map(rootPemOf).join("\n")),
  };
}

/** Strictly and with every oddity: what is accepted holds the certificate that was signed, whole. */
function chainTarget(name: string, share: number, chain: Chain): FuzzTarget {
  const { leaf, intermediates, ...expected } = chain;
  const signed = leaf.subarray(0, new X509Certificate(leaf).raw.length);
  return {
    name,
    share,
    sound: [
      () =>
        verifyEkCertificate({
          ...expected,
          certificates: [leaf, ...intermediates],
          atMs: AT_MS,
          acceptOddities: ALL_ROWS,
        }),
    ],
    next: (random) => {
      const ofLeaf = intermediates.length === 0 || random(3) > 0;
      const seeds = [leaf, ...intermediates];
      const first = ofLeaf ? mutateBytes(leaf, random, seeds) : leaf;
      const others = ofLeaf
        ? intermediates
        : intermediates.map((der) => mutateBytes(der, random, seeds));
      const acceptOddities = pick(random, [[], ALL_ROWS]);
      const certificates = [first, ...others];
      return {
        input: certificates.map((der) => Buffer.from(der).toString("hex")).join(" "),
        run: () => verifyEkCertificate({ ...expected, certificates, atMs: AT_MS, acceptOddities }),
        fault: () => {
          if (!Buffer.from(first).includes(signed)) return "accepted with another certificate";
          // A mutated intermediate may be left over only where it is not needed.
          return ofLeaf || intermediates.length === 0 ? undefined : "accepted with another issuer";
        },
      };
    },
  };
}

async function crlTarget(): Promise<FuzzTarget> {
  const ca = new OpensslCa();
  try {
    const extensions = [
      "basicConstraints=critical,CA:TRUE",
      "keyUsage=critical,keyCertSign,cRLSign",
      "subjectKeyIdentifier=hash",
    ];
    const root = ca.issue({ subject: "/CN=Root", extensions });
    const roots = await parseTrustedRoots(root.pem);
    const seeds = [["01", "0A"], []].map((revoked) =>
      ca.crl(root, { revoked, thisUpdateMs: AT_MS, nextUpdateMs: AT_MS + 86_400_000 }),
    );
    return bytesTarget({
      name: "CRL",
      share: 50,
      seeds,
      parse: (bytes) => parseRevocationLists([bytes], roots),
      fault: () => "accepted with other bytes than were signed",
    });
  } finally {
    ca.close();
  }
}
