/** TPM structures, and what an AK signs: quotes, certifications, creations. */
import {
  checkAkPublic,
  encodeTpm2bPublic,
  encodeTpmlPcrSelection,
  encodeTpmtPublic,
  encodeTpmtSignature,
  parseTpm2bPublic,
  parseTpmlPcrSelection,
  parseTpmsAttestCertify,
  parseTpmsAttestQuote,
  parseTpmtPublic,
  parseTpmtSignature,
  type PcrValue,
  verifyCertify,
  verifyQuote,
} from "../../../../attest/index.ts";
import { createNodeAttestCrypto } from "../../../../attest/node/index.ts";
import { parseTpmsAttestCreation } from "../../../../attest/structures/attest.ts";
import { parseTpmsCreationData } from "../../../../attest/structures/creation-data.ts";
import { Writer } from "../../../../wire/index.ts";
import { mutateBytes, pick } from "../../../support/fuzz.ts";
import { createSoftwareAk } from "../software-ak.ts";
import { bytesTarget, type FuzzTarget, sameBytes } from "./target.ts";

const crypto = createNodeAttestCrypto();
const KINDS = ["ecdsa", "rsassa", "rsapss"] as const;
const extraData = new Uint8Array(32).fill(0xaa);
const pcrValues = [0, 1, 7].flatMap((pcr): PcrValue[] => [
  { hash: "sha256", pcr, value: new Uint8Array(32).fill(pcr) },
]);

/** TPMS_CREATION_DATA of a child of some key. */
function creationData(): Uint8Array {
  return new Writer()
    .bytes(encodeTpmlPcrSelection([{ hash: "sha256", pcrs: [0, 7] }]))
    .vec16(new Uint8Array(32).fill(1))
    .u8(1)
    .u16(0x000b)
    .vec16(new Uint8Array(34).fill(2))
    .vec16(new Uint8Array(34).fill(3))
    .vec16(new Uint8Array(8))
    .finish();
}

export function tpmTargets(): FuzzTarget[] {
  const aks = KINDS.map((kind) => createSoftwareAk(kind));
  const publics = aks.map(({ area }) => area);
  const device = createSoftwareAk("ecdsa", false).area;
  const quotes = aks.map((ak) => ak.quote(pcrValues, extraData));
  const certifies = aks.map((ak) => ak.certify(device, extraData));
  const again =
    (encode: (bytes: Uint8Array) => Uint8Array) =>
    (_result: unknown, bytes: Uint8Array): string | undefined =>
      sameBytes(encode(bytes), bytes) ? undefined : "it re-encodes to other bytes";
  const signatures = quotes.map(({ quote }) => quote.signature);
  return [
    bytesTarget({
      name: "TPMT_PUBLIC",
      share: 80,
      seeds: publics.map(encodeTpmtPublic),
      parse: parseTpmtPublic,
      fault: again((bytes) => encodeTpmtPublic(parseTpmtPublic(bytes))),
    }),
    bytesTarget({
      name: "TPM2B_PUBLIC of an AK",
      share: 60,
      seeds: publics.map(encodeTpm2bPublic),
      parse: (bytes) => checkAkPublic(parseTpm2bPublic(bytes), { allowSha1: false }),
      fault: again((bytes) => encodeTpm2bPublic(parseTpm2bPublic(bytes))),
    }),
    bytesTarget({
      name: "TPMT_SIGNATURE",
      share: 40,
      seeds: signatures,
      parse: parseTpmtSignature,
      fault: again((bytes) => encodeTpmtSignature(parseTpmtSignature(bytes))),
    }),
    bytesTarget({
      name: "TPML_PCR_SELECTION",
      share: 40,
      seeds: [
        encodeTpmlPcrSelection([{ hash: "sha256", pcrs: [0, 7, 23] }]),
        encodeTpmlPcrSelection([
          { hash: "sha1", pcrs: [1] },
          { hash: "sha384", pcrs: [2, 3] },
        ]),
      ],
      parse: parseTpmlPcrSelection,
      fault: again((bytes) => {
        const { banks } = parseTpmlPcrSelection(bytes);
        return encodeTpmlPcrSelection(banks.map(({ hash, pcrs }) => ({ hash: hash.name, pcrs })));
      }),
    }),
    bytesTarget({
      name: "TPMS_ATTEST of a quote",
      share: 40,
      seeds: quotes.map(({ quote }) => quote.attest),
      parse: parseTpmsAttestQuote,
    }),
    bytesTarget({
      name: "TPMS_ATTEST of a certification",
      share: 20,
      seeds: certifies.map(({ attest }) => attest),
      parse: parseTpmsAttestCertify,
    }),
    bytesTarget({
      name: "TPMS_ATTEST of a creation",
      share: 20,
      // The body has the same form: a Name, and a digest in place of the qualified Name.
      seeds: certifies.map(({ attest }) => attest.with(5, 0x1a)),
      parse: parseTpmsAttestCreation,
    }),
    bytesTarget({
      name: "TPMS_CREATION_DATA",
      share: 30,
      seeds: [creationData()],
      parse: parseTpmsCreationData,
    }),
    signedTarget(
      "quote",
      60,
      quotes.map(({ quote }) => quote),
      (index, signed) => verifyQuote({ ...pick(() => index, quotes), quote: signed }),
    ),
    signedTarget("certification", 40, certifies, (index, certify) =>
      verifyCertify({
        ak: pick(() => index, publics),
        certify,
        extraData,
        certified: device,
        crypto,
      }),
    ),
  ];
}

interface Signed {
  readonly attest: Uint8Array;
  readonly signature: Uint8Array;
}

/** Nothing is accepted but the bytes that were signed, with the signature that was made. */
function signedTarget(
  name: string,
  share: number,
  seeds: readonly Signed[],
  verify: (index: number, signed: Signed) => Promise<unknown>,
): FuzzTarget {
  return {
    name: `signed ${name}`,
    share,
    sound: seeds.map((seed, index) => () => verify(index, seed)),
    next: (random) => {
      const index = random(seeds.length);
      const seed = pick(() => index, seeds);
      const part = pick(random, ["attest", "signature"] as const);
      const others = seeds.map((other) => other[part]);
      const signed = { ...seed, [part]: mutateBytes(seed[part], random, others) };
      return {
        input: `${part} ${Buffer.from(signed[part]).toString("hex")}`,
        run: () => verify(index, signed),
        fault: () => "accepted with other bytes than were signed",
      };
    },
  };
}
