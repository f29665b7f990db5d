/** A VOPRF client on @noble/curves, apart from the code under test: it blinds and finalises (RFC 9497 §3.3). */
import { createHash } from "node:crypto";
import { invert } from "@noble/curves/abstract/modular";
import { bytesToNumberBE, bytesToNumberLE } from "@noble/curves/abstract/utils";
import { ed25519, hash_to_ristretto255, RistrettoPoint } from "@noble/curves/ed25519";
import { hashToCurve, p384 } from "@noble/curves/p384";
import { concatBytes, encodeUtf8, Writer } from "../../wire/index.ts";

export interface NobleClient {
  blind(input: Uint8Array, blind: Uint8Array): Uint8Array;
  finalize(input: Uint8Array, blind: Uint8Array, evaluated: Uint8Array): Uint8Array;
}

export function nobleClient(tokenType: number): NobleClient {
  return tokenType === 1 ? p384Client : ristrettoClient;
}

const dst = (identifier: string): Uint8Array =>
  encodeUtf8(`HashToGroup-OPRFV1-\u0001-${identifier}`);

const p384Client: NobleClient = {
  blind(input, blind) {
    const H = hashToCurve(input, { DST: dst("P384-SHA384") }).toAffine();
    return p384.ProjectivePoint.fromAffine(H).multiply(bytesToNumberBE(blind)).toRawBytes(true);
  },
  finalize(input, blind, evaluated) {
    const inverse = invert(bytesToNumberBE(blind), p384.CURVE.n);
    const point = p384.ProjectivePoint.fromHex(Uint8Array.from(evaluated)).multiply(inverse);
    return output("sha384", input, point.toRawBytes(true));
  },
};

const ristrettoClient: NobleClient = {
  blind(input, blind) {
    const H = hash_to_ristretto255(input, { DST: dst("ristretto255-SHA512") });
    return RistrettoPoint.fromHex(H.toRawBytes()).multiply(bytesToNumberLE(blind)).toRawBytes();
  },
  finalize(input, blind, evaluated) {
    const inverse = invert(bytesToNumberLE(blind), ed25519.CURVE.n);
    const point = RistrettoPoint.fromHex(Uint8Array.from(evaluated)).multiply(inverse);
    return output("sha512", input, point.toRawBytes());
  },
};

function output(hash: string, input: Uint8Array, element: Uint8Array): Uint8Array {
  const transcript = new Writer().vec16(input).vec16(element).bytes(encodeUtf8("Finalize"));
  return Uint8Array.from(
    createHash(hash)
      .update(concatBytes([transcript.finish()]))
      .digest(),
  );
}
