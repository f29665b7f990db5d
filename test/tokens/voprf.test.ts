import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import {
  createVoprfEngine,
  createVoprfEvaluator,
  generateVoprfKey,
  importVoprfKey,
  type Voprf,
  type VoprfEnginePreference,
  type VoprfTokenType,
} from "../../tokens/voprf/index.ts";
import { createVoprfClient } from "../../tokens/voprf/client.ts";
import { concatBytes, decodeHex, encodeHex } from "../../wire/index.ts";
import { codeOf } from "../support/reject.ts";
import { readSharedJson, sharedMissing } from "../support/shared.ts";

interface SuiteVectors {
  readonly identifier: string;
  readonly mode: number;
  readonly seed: string;
  readonly keyInfo: string;
  readonly skSm: string;
  readonly pkSm: string;
  readonly vectors: readonly VoprfVector[];
}

interface VoprfVector {
  readonly Batch: number;
  readonly Blind: string;
  readonly BlindedElement: string;
  readonly EvaluationElement: string;
  readonly Input: string;
  readonly Output: string;
  readonly Proof: { readonly proof: string; readonly r: string };
}

const TYPES: readonly VoprfTokenType[] = [0x0001, 0x0005];
const ENGINES: readonly VoprfEnginePreference[] = ["native", "any", "portable"];
const CASES = TYPES.flatMap((type) => ENGINES.map((engine) => [type, engine] as const));

/** In the byte order of the suite (SP 800-186; RFC 9496 §4). */
const ORDERS: Readonly<Record<VoprfTokenType, string>> = {
  0x0001:
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
  0x0005: "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010",
};

const random = (length: number): Uint8Array => Uint8Array.from(randomBytes(length));
const all = (list: string): Uint8Array => concatBytes(list.split(",").map((hex) => decodeHex(hex)));

/** Of mode 0x01; an empty one where the vectors are missing, since a skipped suite is still collected. */
function suiteOf(identifier: string): SuiteVectors {
  const none = { identifier, mode: 1, seed: "", keyInfo: "", skSm: "", pkSm: "", vectors: [] };
  if (sharedMissing) return none;
  const suites = readSharedJson("vectors/voprf-rfc9497/allVectors.json") as SuiteVectors[];
  return suites.find((one) => one.mode === 1 && one.identifier === identifier)!;
}

describe.skipIf(sharedMissing).each(CASES)("RFC 9497, type %i on the %s engine", (type, engine) => {
  const voprf = createVoprfEngine(type, engine);
  const suite = suiteOf(voprf.suite.identifier);
  const key = decodeHex(suite.skSm);
  const publicKey = decodeHex(suite.pkSm);

  it("derives the key pair", () => {
    const derived = voprf.deriveKey(decodeHex(suite.seed), decodeHex(suite.keyInfo));
    expect(encodeHex(derived)).toBe(suite.skSm);
    expect(encodeHex(voprf.publicKeyOf(derived))).toBe(suite.pkSm);
    expect(voprf.isKey(derived)).toBe(true);
  });

  it("blinds as a client, and finalises what is proven", () => {
    const client = createVoprfClient(type, engine);
    for (const vector of suite.vectors) {
      const inputs = vector.Input.split(",").map((hex) => decodeHex(hex));
      const blinds = vector.Blind.split(",").map((hex) => decodeHex(hex));
      const blinded = inputs.map((input, i) => client.blind(input, blinds[i]!));
      const sent = concatBytes(blinded.map(({ blindedElement }) => blindedElement));
      expect(encodeHex(sent)).toBe(encodeHex(all(vector.BlindedElement)));
      const proof = decodeHex(vector.Proof.proof);
      const response = concatBytes([all(vector.EvaluationElement), proof]);
      const outputs = client.finalize(publicKey, blinded, response) ?? [];
      expect(encodeHex(concatBytes([...outputs]))).toBe(encodeHex(all(vector.Output)));
      for (const at of [1, response.length - 1]) {
        const tampered = response.with(at, response[at]! ^ 1);
        expect(client.finalize(publicKey, blinded, tampered)).toBeUndefined();
      }
      const otherKey = voprf.publicKeyOf(voprf.nonceOf(random(voprf.suite.uniformLength)));
      expect(client.finalize(otherKey, blinded, response)).toBeUndefined();
    }
  });

  it("evaluates blinded elements and proves it", () => {
    expect(suite.vectors.map((vector) => vector.Batch)).toEqual([1, 1, 2]);
    for (const vector of suite.vectors) {
      const nonce = decodeHex(vector.Proof.r);
      const blinded = all(vector.BlindedElement);
      const response = voprf.blindEvaluate(key, publicKey, blinded, nonce);
      const expected = concatBytes([all(vector.EvaluationElement), decodeHex(vector.Proof.proof)]);
      expect(encodeHex(response)).toBe(encodeHex(expected));
      expect(voprf.verifyResponse(publicKey, blinded, expected)).toBe(true);
    }
  });

  it("evaluates inputs", () => {
    for (const vector of suite.vectors) {
      const outputs = vector.Output.split(",");
      for (const [i, input] of vector.Input.split(",").entries()) {
        expect(encodeHex(voprf.evaluate(key, decodeHex(input)))).toBe(outputs[i]);
      }
    }
  });

  it("rejects every proof with a changed byte, element, key or count", () => {
    const vector = suite.vectors[2]!;
    const blinded = all(vector.BlindedElement);
    const response = concatBytes([all(vector.EvaluationElement), decodeHex(vector.Proof.proof)]);
    const { Ne, Ns } = voprf.suite;
    const check = (pk: Uint8Array, sent: Uint8Array, got: Uint8Array): boolean =>
      voprf.verifyResponse(pk, sent, got);
    for (const at of [1, Ne + 1, 2 * Ne + 3, 2 * Ne + Ns + 3, response.length - 5]) {
      const changed = response.with(at, (response[at] ?? 0) ^ 1);
      expect(check(publicKey, blinded, changed)).toBe(false);
    }
    const swapped = concatBytes([blinded.subarray(Ne), blinded.subarray(0, Ne)]);
    expect(check(publicKey, swapped, response)).toBe(false);
    expect(check(blinded.subarray(0, Ne), blinded, response)).toBe(false);
    expect(check(publicKey, blinded.subarray(Ne), response)).toBe(false);
    expect(check(publicKey, blinded, response.subarray(1))).toBe(false);
    expect(check(publicKey, blinded, new Uint8Array(0))).toBe(false);
    expect(check(new Uint8Array(Ne), blinded, response)).toBe(false);
  });
});

describe.each(CASES)("type %i on the %s engine", (type, engine) => {
  const voprf = createVoprfEngine(type, engine);
  const pair = generateVoprfKey(voprf, random);
  const evaluator = createVoprfEvaluator(voprf, pair.privateKey, random);
  const { Ne, Ns } = voprf.suite;

  it("rejects what is no element of the group", () => {
    for (const [name, bytes] of notElements(voprf, pair.tokenKey)) {
      expect(voprf.isElement(bytes), name).toBe(false);
      expect(
        codeOf(() => evaluator.issue(bytes)),
        name,
      ).toBe("TOKEN_REQUEST_INVALID");
    }
    const valid = pair.tokenKey;
    const second = concatBytes([valid, new Uint8Array(Ne)]);
    expect(codeOf(() => evaluator.issue(second))).toBe("TOKEN_REQUEST_INVALID");
    expect(evaluator.issue(valid)).toHaveLength(Ne + 2 * Ns);
  });

  it("rejects keys that are zero, at or above the order, or of another length", () => {
    const order = decodeHex(ORDERS[type]);
    const wrong = [new Uint8Array(Ns), order, new Uint8Array(Ns).fill(255), new Uint8Array(Ns - 1)];
    for (const key of wrong) {
      expect(voprf.isKey(key)).toBe(false);
      expect(() => importVoprfKey(voprf, Uint8Array.from(key))).toThrow(RangeError);
    }
    expect(() => voprf.deriveKey(new Uint8Array(31), new Uint8Array())).toThrow(RangeError);
    expect(() => voprf.nonceOf(new Uint8Array(Ns))).toThrow(RangeError);
  });

  it("names its library", () => {
    const native = type === 1 ? `openssl ${process.versions.openssl}` : /^libsodium 1\./;
    expect(voprf.engine).toEqual(
      engine === "portable"
        ? "noble"
        : typeof native === "string"
          ? native
          : expect.stringMatching(native),
    );
  });

  it("never uses a nonce twice", () => {
    const [a, b] = [evaluator.issue(pair.tokenKey), evaluator.issue(pair.tokenKey)];
    expect(a.subarray(0, Ne)).toEqual(b.subarray(0, Ne));
    expect(a.subarray(Ne)).not.toEqual(b.subarray(Ne));
    expect(voprf.verifyResponse(pair.tokenKey, pair.tokenKey, a)).toBe(true);
  });
});

describe.each(TYPES)("type %i, native and noble", (type) => {
  const native = createVoprfEngine(type, "native");
  const portable = createVoprfEngine(type, "portable");
  const order = decodeHex(ORDERS[type]);
  const low = type === 1 ? order.length - 1 : 0;
  const one = new Uint8Array(order.length).with(low, 1);
  const last = order.with(low, order[low]! - 1);
  const drawn = (): Uint8Array => native.nonceOf(random(native.suite.uniformLength));

  it("give the same bytes, also at both ends of the scalars", () => {
    const element = native.publicKeyOf(drawn());
    const scalars = [one, last, drawn()];
    for (const key of scalars) {
      const publicKey = native.publicKeyOf(key);
      expect(portable.publicKeyOf(key)).toEqual(publicKey);
      for (const nonce of scalars) {
        const response = native.blindEvaluate(key, publicKey, element, nonce);
        expect(portable.blindEvaluate(key, publicKey, element, nonce)).toEqual(response);
        expect(native.verifyResponse(publicKey, element, response)).toBe(true);
      }
    }
    for (const uniform of [0, 1, 255].map((byte) =>
      new Uint8Array(native.suite.uniformLength).fill(byte),
    )) {
      expect(native.nonceOf(uniform)).toEqual(portable.nonceOf(uniform));
    }
  });
});

/** Bytes that a lenient decoder would take. */
function notElements(voprf: Voprf, valid: Uint8Array): readonly [string, Uint8Array][] {
  const { Ne } = voprf.suite;
  const common: [string, Uint8Array][] = [
    ["empty", new Uint8Array(0)],
    ["short", valid.subarray(1)],
    ["identity or zeros", new Uint8Array(Ne)],
    ["all ones", new Uint8Array(Ne).fill(255)],
  ];
  if (voprf.suite.identifier === "ristretto255-SHA512") {
    // RFC 9496 appendix A.3: non-canonical, negative, non-square, and p - 1
    const bad = [
      "00ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
      "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
      "0100000000000000000000000000000000000000000000000000000000000000",
      "ed57ffd8c914fb201471d1c3d245ce3c746fcbe63a3679d51b6a516ebebe0e20",
      "26948d35ca62e643e26a83177332e6b6afeb9d08e4268b650f1f5bbd8d81d371",
    ];
    return [...common, ...bad.map((hex): [string, Uint8Array] => [hex, decodeHex(hex)])];
  }
  return [
    ...common,
    ["uncompressed form", valid.with(0, 4)],
    ["hybrid form", valid.with(0, 6)],
    ["x above p", new Uint8Array(Ne).fill(255).with(0, 2)],
    // x = 1: 1 - 3 + b is no square modulo p, as the engines agree
    ["off the curve", new Uint8Array(Ne).with(0, 2).with(Ne - 1, 1)],
  ];
}
