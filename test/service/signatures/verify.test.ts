/** Message signatures of requests: the RFC's vectors, two other implementations, and each thing that is refused. */
import { createHmac, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { readAgentKey, readAgentKeys } from "../../../service/edge/signatures/keys.ts";
import { createReplays } from "../../../service/edge/signatures/replays.ts";
import { createUsedSignatures } from "../../../service/edge/signatures/used-signatures.ts";
import {
  signatureBase,
  type SignedRequest,
} from "../../../service/edge/signatures/signature-base.ts";
import {
  type InnerList,
  parseDictionary,
} from "../../../service/edge/signatures/structured-fields.ts";
import {
  type Agent,
  type KnownKeys,
  verifyAgent,
} from "../../../service/edge/signatures/verify.ts";
import { codeOf } from "../../support/reject.ts";
import {
  CREATED,
  HMAC_VECTOR,
  KEYS,
  RESPONSE_VECTOR,
  SHARED_SECRET,
  TEST_REQUEST,
  TRANSFORMED,
  VECTORS,
  type VectorRequest,
} from "./rfc9421.ts";

/** Of {@link codeOf}. */
const ACCEPTED = "nothing was thrown";
const USED = "used before";

type Headers = readonly (readonly [name: string, value: string])[];

const signedRequest = (request: VectorRequest, more: Headers = []): SignedRequest => ({
  method: request.method,
  authority: request.authority,
  target: request.target,
  lines: (name) =>
    [...request.headers, ...more].filter(([key]) => key.toLowerCase() === name).map(([, v]) => v),
});

function agent(fields: Partial<Agent> = {}): Agent {
  return {
    name: "crawler",
    components: [],
    requiresNonce: false,
    maxAgeSeconds: 300,
    ...fields,
  };
}

function known(by: Agent, ...jwks: unknown[]): KnownKeys {
  const keys = jwks.map((jwk) => readAgentKey(jwk));
  return new Map(keys.flatMap((key) => key.ids.map((id) => [id, { agent: by, key }] as const)));
}

/** As an edge does it: what verifies is used up. */
function remembering(): (
  request: SignedRequest,
  keys: KnownKeys,
  nowMs: number,
) => Promise<string> {
  let clock = 0;
  const { components, maxAgeSeconds, name } = agent();
  const configured = { name, components, maxAgeSeconds, jwksFile: "", nonce: "optional" } as const;
  const used = createUsedSignatures({ agents: [configured], waitMs: 0, clock: () => clock });
  return async (request, keys, nowMs) => {
    clock = nowMs;
    try {
      const { agent: by, key } = verifyAgent(request, keys, nowMs);
      return (await used.useOnce({ agent: by.name, key })) ? ACCEPTED : USED;
    } catch (error) {
      return codeOf(() => {
        throw error;
      });
    }
  };
}

function coveredBy(input: string): InnerList {
  const [member] = parseDictionary(input).values();
  if (member?.kind !== "list") throw new Error("not a list");
  return member;
}

describe("RFC 9421, appendix B", () => {
  it.each(VECTORS)("$name: the base and the signature", ({ base, input, request, signature }) => {
    const covered = coveredBy(input);
    const made = signatureBase(signedRequest(request), covered);
    expect(made).toBe(base);
    const key = readAgentKey(KEYS[String(covered.parameters.get("keyid")?.value)]);
    const bytes = Buffer.from(signature.slice(signature.indexOf(":") + 1, -1), "base64");
    expect(key.verify(Buffer.from(made), bytes)).toBe(true);
    for (const wrong of [Buffer.from(`${made} `), Buffer.from(made.toUpperCase())]) {
      expect(key.verify(wrong, bytes)).toBe(false);
    }
    bytes[5] = (bytes[5] ?? 0) ^ 1;
    expect(key.verify(Buffer.from(made), bytes)).toBe(false);
  });

  it("B.2.4: the ECDSA signature of a response, which is no signature of a request", () => {
    const key = readAgentKey(KEYS["test-key-ecc-p256"]);
    const bytes = Buffer.from(RESPONSE_VECTOR.signature, "base64");
    expect(key.verify(Buffer.from(RESPONSE_VECTOR.base), bytes)).toBe(true);
    const covered = coveredBy(`a=("@status")`);
    expect(codeOf(() => signatureBase(signedRequest(TEST_REQUEST), covered))).toBe(
      "SERVICE_SIGNATURE_INCOMPLETE",
    );
  });

  it("B.2.5: the base of an HMAC, of which no key is taken", () => {
    const base = signatureBase(signedRequest(TEST_REQUEST), coveredBy(HMAC_VECTOR.input));
    const mac = createHmac("sha256", Buffer.from(SHARED_SECRET, "base64")).update(base);
    expect(mac.digest("base64")).toBe(HMAC_VECTOR.signature);
    expect(() => readAgentKey({ kty: "oct", k: "c2VjcmV0" })).toThrow("not a public JWK");
  });

  it("B.4: one signature, whatever was changed that it does not cover", () => {
    const signed: Headers = [
      ["Signature-Input", TRANSFORMED.input],
      ["Signature", TRANSFORMED.signature],
    ];
    const check = (request: Partial<VectorRequest>, headers: Headers): string => {
      const whole = { method: "GET", authority: "example.org", target: "/demo?a=1", headers };
      const keys = known(agent(), KEYS["test-key-ed25519"]);
      return codeOf(() =>
        verifyAgent(signedRequest({ ...whole, ...request }, signed), keys, CREATED * 1_000),
      );
    };
    const two: Headers = [
      ["Accept", "application/json"],
      ["Accept", "*/*"],
    ];
    expect(check({}, two)).toBe(ACCEPTED);
    expect(check({ target: "/demo?name1=Value1&Name2=value2&param=added" }, two)).toBe(ACCEPTED);
    expect(check({}, [["Accept", "application/json, */*"]])).toBe(ACCEPTED);
    expect(check({}, [["Date", "x"], ...two])).toBe(ACCEPTED);
    expect(check({ method: "POST" }, two)).toBe("SERVICE_SIGNATURE_INVALID");
    expect(check({ authority: "example.com" }, two)).toBe("SERVICE_SIGNATURE_INVALID");
    expect(check({ target: "/demo2" }, two)).toBe("SERVICE_SIGNATURE_INVALID");
    expect(check({}, [...two].reverse())).toBe("SERVICE_SIGNATURE_INVALID");
  });

  it("has keys that everybody has, and that no agent may have", () => {
    for (const key of Object.values(KEYS)) {
      expect(() => readAgentKeys(JSON.stringify({ keys: [key] }))).toThrow("RFC 9421's examples");
    }
  });
});

interface OtherSigner {
  readonly by: string;
  readonly key: Readonly<Record<string, string>>;
  readonly method: string;
  readonly target: string;
  readonly headers: Headers;
}

describe("signatures of other implementations", () => {
  const file = join(import.meta.dirname, "other-signers.json");
  const signers = JSON.parse(readFileSync(file, "utf8")) as OtherSigner[];
  const now = 1_800_000_001_000;

  it.each(signers.map((signer) => ({ ...signer, kty: signer.key["kty"] })))(
    "by $by, $kty: $method $target",
    async ({ headers, key, method, target }) => {
      const use = remembering();
      const request = signedRequest({ method, authority: "example.com", target, headers });
      const keys = known(agent({ tag: "web-bot-auth" }), key);
      expect(verifyAgent(request, keys, now).agent.name).toBe("crawler");
      expect(await use(request, keys, now)).toBe(ACCEPTED);
      // The nonce is the same, so it is used up.
      expect(await use(request, keys, now)).toBe(USED);
      const elsewhere = signedRequest({ method, authority: "example.org", target, headers });
      expect(codeOf(() => verifyAgent(elsewhere, keys, now))).toBe("SERVICE_SIGNATURE_INVALID");
    },
  );

  it("are of both libraries and all three algorithms", () => {
    expect(new Set(signers.map(({ by }) => by.split(" ")[0]))).toHaveLength(2);
    expect(new Set(signers.map(({ key }) => key["kty"]))).toHaveLength(3);
  });
});

const NOW = 1_800_000_000;

/** Signs as an agent would, with what a test says otherwise. */
class Signer {
  readonly jwk: Record<string, unknown>;
  readonly #key: KeyObject;

  constructor(type: "ed25519" | "ec") {
    const { privateKey, publicKey } =
      type === "ec"
        ? generateKeyPairSync("ec", { namedCurve: "P-256" })
        : generateKeyPairSync(type);
    this.#key = privateKey;
    this.jwk = { ...publicKey.export({ format: "jwk" }), kid: "k1" };
  }

  sign(list: string, request: VectorRequest = TEST_REQUEST, more: Headers = []): Headers {
    const base = signatureBase(signedRequest(request, more), coveredBy(`s=${list}`));
    const options = { key: this.#key, dsaEncoding: "ieee-p1363" } as const;
    const type = this.#key.asymmetricKeyType === "ec" ? "sha256" : null;
    const bytes = sign(type, Buffer.from(base), options);
    return [
      ...more,
      ["Signature-Input", `s=${list}`],
      ["Signature", `s=:${bytes.toString("base64")}:`],
    ];
  }
}

const signer = new Signer("ed25519");
const params = (more = ""): string => `;created=${NOW};keyid="k1"${more}`;

function outcome(
  headers: Headers,
  fields: Partial<Agent> = {},
  { jwk = signer.jwk, nowSeconds = NOW, request = TEST_REQUEST } = {},
): string {
  const keys = known(agent(fields), jwk);
  return codeOf(() => verifyAgent(signedRequest(request, headers), keys, nowSeconds * 1_000));
}

describe("a signature of a known key", () => {
  const good = signer.sign(`("@authority" "@method" "@target-uri")${params()}`);

  it("is accepted where all is well", () => {
    expect(outcome(good, { components: ["@method", "@target-uri"] })).toBe(ACCEPTED);
  });

  it.each([
    ["no signature", []],
    ["an input alone", [["Signature-Input", `s=("@authority")${params()}`]]],
    ["a signature under another label", [good[0] ?? ["", ""], ["Signature", "t=:AAAA:"]]],
    ["a signature that is a string", [good[0] ?? ["", ""], ["Signature", 's="AAAA"']]],
    [
      "an input that is no list",
      [
        ["Signature-Input", "s=1"],
        ["Signature", "s=:AAAA:"],
      ],
    ],
    [
      "an input that is no dictionary",
      [
        ["Signature-Input", "("],
        ["Signature", "s=:AAAA:"],
      ],
    ],
    [
      "a keyid that is no string",
      [
        ["Signature-Input", `s=("@authority");keyid=k1`],
        ["Signature", "s=:AAAA:"],
      ],
    ],
    ["two inputs of one label", [...good, ["Signature-Input", `s=("@authority")${params()}`]]],
    [
      "more than eight",
      [
        ["Signature-Input", Array.from({ length: 9 }, (_, i) => `a${i}=()`).join(", ")],
        ["Signature", "s=:AAAA:"],
      ],
    ],
    [
      "more than a header may hold",
      [
        ["Signature-Input", `s=();x="${"a".repeat(8_200)}"`],
        ["Signature", "s=:AAAA:"],
      ],
    ],
  ] as [string, Headers][])(
    "rejects %s with SERVICE_SIGNATURE_MALFORMED or KEY_UNKNOWN",
    (name, headers) => {
      const expected = name === "no signature" ? "KEY_UNKNOWN" : "MALFORMED";
      expect(outcome(headers)).toBe(`SERVICE_SIGNATURE_${expected}`);
    },
  );

  it("rejects an unknown key and another tag with SERVICE_SIGNATURE_KEY_UNKNOWN", () => {
    const other = new Signer("ed25519").sign(`("@authority");created=${NOW};keyid="k2"`);
    expect(outcome(other)).toBe("SERVICE_SIGNATURE_KEY_UNKNOWN");
    expect(outcome(good, { tag: "web-bot-auth" })).toBe("SERVICE_SIGNATURE_KEY_UNKNOWN");
    const tagged = signer.sign(`("@authority")${params(';tag="other"')}`);
    expect(outcome(tagged, { tag: "web-bot-auth" })).toBe("SERVICE_SIGNATURE_KEY_UNKNOWN");
  });

  it.each([
    ["the authority", `("@method")`, {}],
    ["a required component", `("@authority" "@method")`, { components: ["@target-uri"] }],
    [
      "a component of that name with parameters only",
      `("@authority" "@method";key="x")`,
      { components: ["@method"] },
    ],
    ["the authority as a header", `("host")`, {}],
    ["a nonce that is required", `("@authority")`, { requiresNonce: true }],
    ["its Signature-Agent", `("@authority")`, { signatureAgent: "https://bot.example" }],
  ])("rejects one without %s with SERVICE_SIGNATURE_INCOMPLETE", (_, list, fields) => {
    const unsigned: Headers = [
      ["Signature-Input", `s=${list}${params()}`],
      ["Signature", "s=:AAAA:"],
    ];
    let headers = unsigned;
    try {
      headers = signer.sign(`${list}${params()}`);
    } catch {
      // Not even its base can be made.
    }
    expect(outcome(headers, fields)).toBe("SERVICE_SIGNATURE_INCOMPLETE");
  });

  it.each([
    `("@authority" "@authority")`,
    `("@authority" "missing-header")`,
    `("@authority" "@status")`,
    `("@authority" "@unknown")`,
    `("@authority" "Date")`,
    `("@authority" date)`,
    `("@authority" "date";sf)`,
    `("@authority" "date";bs)`,
    `("@authority" "@method";req)`,
    `("@authority" "date";tr)`,
    `("@authority" "date";key="a";sf)`,
    `("@authority" "content-digest";key="sha-256")`,
    `("@authority" "@query-param")`,
    `("@authority" "@query-param";name="missing")`,
    `("@authority" "@query-param";name="pet")`,
    `("@authority" "@signature-params")`,
  ])("rejects the components %s with SERVICE_SIGNATURE_INCOMPLETE", (list) => {
    const headers: Headers = [
      ["Signature-Input", `s=${list}${params()}`],
      ["Signature", "s=:AAAA:"],
    ];
    expect(outcome(headers)).toBe("SERVICE_SIGNATURE_INCOMPLETE");
  });

  it("rejects a query parameter that is there twice with SERVICE_SIGNATURE_INCOMPLETE", () => {
    const list = `("@authority" "@query-param";name="a")${params()}`;
    const once = { ...TEST_REQUEST, target: "/?a=1&b=2" };
    const headers = signer.sign(list, once);
    expect(outcome(headers, {}, { request: once })).toBe(ACCEPTED);
    const twice = { ...TEST_REQUEST, target: "/?a=1&b=2&a=3" };
    expect(outcome(headers, {}, { request: twice })).toBe("SERVICE_SIGNATURE_INCOMPLETE");
  });

  it("rejects one that is too old, of the future, expired or undated with SERVICE_SIGNATURE_NOT_FRESH", () => {
    const at = (nowSeconds: number): string => outcome(good, {}, { nowSeconds });
    expect([at(NOW + 300), at(NOW - 10)]).toEqual([ACCEPTED, ACCEPTED]);
    expect(at(NOW + 301)).toBe("SERVICE_SIGNATURE_NOT_FRESH");
    expect(at(NOW - 11)).toBe("SERVICE_SIGNATURE_NOT_FRESH");
    const until = signer.sign(`("@authority")${params(`;expires=${NOW + 60}`)}`);
    expect(outcome(until, {}, { nowSeconds: NOW + 59 })).toBe(ACCEPTED);
    expect(outcome(until, {}, { nowSeconds: NOW + 60 })).toBe("SERVICE_SIGNATURE_NOT_FRESH");
    for (const wrong of [
      `;keyid="k1"`,
      `;created=${NOW}.5;keyid="k1"`,
      `;created="${NOW}";keyid="k1"`,
      params(`;expires=${NOW}`),
      params(`;expires=${NOW + 60}.0`),
      params(`;expires`),
    ]) {
      expect(outcome(signer.sign(`("@authority")${wrong}`)), wrong).toBe(
        "SERVICE_SIGNATURE_NOT_FRESH",
      );
    }
    const endless = signer.sign(`("@authority")${params(';tag="web-bot-auth"')}`);
    expect(outcome(endless, { tag: "web-bot-auth" })).toBe("SERVICE_SIGNATURE_NOT_FRESH");
  });

  it("rejects other bytes, another algorithm's name and another key's with SERVICE_SIGNATURE_INVALID", () => {
    const [input = ["", ""]] = good;
    for (const bytes of [
      "",
      "AAAA",
      Buffer.alloc(64).toString("base64"),
      Buffer.alloc(65).toString("base64"),
    ]) {
      expect(outcome([input, ["Signature", `s=:${bytes}:`]])).toBe("SERVICE_SIGNATURE_INVALID");
    }
    const named = signer.sign(`("@authority")${params(';alg="hmac-sha256"')}`);
    expect(outcome(named)).toBe("SERVICE_SIGNATURE_INVALID");
    expect(outcome(signer.sign(`("@authority")${params(';alg="ed25519"')}`))).toBe(ACCEPTED);
    expect(outcome(new Signer("ed25519").sign(`("@authority")${params()}`))).toBe(
      "SERVICE_SIGNATURE_INVALID",
    );
  });

  it("rejects one that was spliced: a second signature's components, parameters or label", () => {
    const other = signer.sign(`("@authority")${params(';nonce="2"')}`);
    const [input = ["", ""]] = good;
    const [, bytes = ["", ""]] = other;
    expect(outcome([input, bytes])).toBe("SERVICE_SIGNATURE_INVALID");
  });

  it("is taken by the first label with a known key, whatever else is signed", () => {
    const [input = ["", ""], bytes = ["", ""]] = good;
    const headers: Headers = [
      ["Signature-Input", `proxy=("@method");keyid="other", ${input[1]}`],
      ["Signature", `proxy=:AAAA:, ${bytes[1]}`],
    ];
    expect(outcome(headers)).toBe(ACCEPTED);
  });

  it("covers its Signature-Agent, as a string or as a member of a dictionary", () => {
    const fields = { signatureAgent: "https://bot.example" };
    const list = (component: string): string => `("@authority" ${component})${params()}`;
    const said = (component: string, value: string): string =>
      outcome(signer.sign(list(component), TEST_REQUEST, [["Signature-Agent", value]]), fields);
    expect(said(`"signature-agent"`, '"https://bot.example"')).toBe(ACCEPTED);
    expect(
      said(`"signature-agent";key="s"`, 's="https://bot.example", t="https://x.example"'),
    ).toBe(ACCEPTED);
    expect(said(`"signature-agent"`, '"https://bot.example.evil"')).toBe(
      "SERVICE_SIGNATURE_INCOMPLETE",
    );
    expect(
      said(`"signature-agent";key="t"`, 's="https://bot.example", t="https://x.example"'),
    ).toBe("SERVICE_SIGNATURE_INCOMPLETE");
  });
});

describe("a replay", () => {
  it("is refused by nonce, and by what was signed, for as long as it could be accepted", async () => {
    for (const list of [`("@authority")${params(';nonce="n"')}`, `("@authority")${params()}`]) {
      const keys = known(agent(), signer.jwk);
      const request = signedRequest(TEST_REQUEST, signer.sign(list));
      const use = remembering();
      const at = (seconds: number): Promise<string> => use(request, keys, seconds * 1_000);
      expect(await at(NOW - 10)).toBe(ACCEPTED);
      for (let now = NOW - 10; now <= NOW + 300; now += 1) expect(await at(now)).toBe(USED);
      expect(await at(NOW + 301)).toBe("SERVICE_SIGNATURE_NOT_FRESH");
      // A clock that goes back does not bring it back.
      expect(await at(NOW)).toBe(USED);
    }
  });

  it("is refused of an ECDSA signature in its other form, which verifies as well", async () => {
    const ec = new Signer("ec");
    const [input = ["", ""], bytes = ["", ""]] = ec.sign(`("@authority")${params()}`);
    const raw = Buffer.from(bytes[1].slice(3, -1), "base64");
    const n = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
    const s = n - BigInt(`0x${raw.subarray(32).toString("hex")}`);
    const other = Buffer.concat([
      raw.subarray(0, 32),
      Buffer.from(s.toString(16).padStart(64, "0"), "hex"),
    ]);
    const respelled: Headers = [input, ["Signature", `s=:${other.toString("base64")}:`]];
    expect(outcome(respelled, {}, { jwk: ec.jwk })).toBe(ACCEPTED);
    const keys = known(agent(), ec.jwk);
    const use = remembering();
    const first = signedRequest(TEST_REQUEST, [input, bytes]);
    expect(await use(first, keys, NOW * 1_000)).toBe(ACCEPTED);
    expect(await use(signedRequest(TEST_REQUEST, respelled), keys, NOW * 1_000)).toBe(USED);
  });

  it("is not made of a signature that did not verify, and memory that is full accepts nothing", async () => {
    const keys = known(agent(), signer.jwk);
    const nonce = signer.sign(`("@authority")${params(';nonce="n"')}`);
    const forged: Headers = [
      nonce[0] ?? ["", ""],
      ["Signature", `s=:${Buffer.alloc(64).toString("base64")}:`],
    ];
    const use = remembering();
    const ask = (headers: Headers): Promise<string> =>
      use(signedRequest(TEST_REQUEST, headers), keys, NOW * 1_000);
    expect(await ask(forged)).toBe("SERVICE_SIGNATURE_INVALID");
    expect(await ask(nonce)).toBe(ACCEPTED);
    const replays = createReplays(1_000, 2);
    expect([1, 2, 3].map((key) => replays.useOnce(String(key), 0))).toEqual([true, true, false]);
    expect(replays.useOnce("3", 1_000)).toBe(true);
    expect(replays.useOnce("1", 1_999)).toBe(false);
    expect(replays.useOnce("1", 2_000)).toBe(true);
  });
});

describe("keys of agents", () => {
  const { d, ...publicOnly } = generateKeyPairSync("ed25519").privateKey.export({ format: "jwk" });
  const rsa = (bits: number, e = 65_537): unknown =>
    generateKeyPairSync("rsa", { modulusLength: bits, publicExponent: e }).publicKey.export({
      format: "jwk",
    });

  it.each([
    ["a private key", { ...publicOnly, d }],
    ["a key for encryption", { ...publicOnly, use: "enc" }],
    ["another algorithm's name", { ...publicOnly, alg: "ES256" }],
    ["a small RSA key", rsa(1_024)],
    ["an RSA key with a small exponent", rsa(2_048, 3)],
    [
      "another curve",
      generateKeyPairSync("ec", { namedCurve: "P-384" }).publicKey.export({ format: "jwk" }),
    ],
    ["a point that is not on its curve", { kty: "EC", crv: "P-256", x: "AAAA", y: "AAAA" }],
    ["no key", "x"],
  ])("rejects %s", (_, jwk) => {
    expect(() => readAgentKey(jwk)).toThrow(Error);
    expect(() => readAgentKeys(JSON.stringify({ keys: [jwk] }))).toThrow(Error);
  });

  it("are named by their thumbprint (RFC 8037, appendix A.3) and by their kid", () => {
    const jwk = { kty: "OKP", crv: "Ed25519", x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" };
    expect(readAgentKey(jwk).ids).toEqual(["kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"]);
    expect(readAgentKey({ ...jwk, kid: "a" }).ids).toHaveLength(2);
    for (const set of [
      "[]",
      "{}",
      '{"keys":[]}',
      '{"keys":1}',
      "x",
      JSON.stringify({ keys: Array.from({ length: 65 }, () => jwk) }),
    ]) {
      expect(() => readAgentKeys(set)).toThrow(Error);
    }
  });
});
