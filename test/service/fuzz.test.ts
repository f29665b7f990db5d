/**
 * What bad input gets: mutated requests over real connections, to every route and to the forwarded path; more than
 * 10,000 in the nightly profile. No answer is a 5xx, nothing crashes, memory does not grow, and a good request works after.
 */
import { once } from "node:events";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openRaw } from "../support/raw-client.ts";
import { startTestSidecar, type TestSidecar } from "../support/sidecar.ts";

const CASES = Number(process.env["MUTATED_REQUESTS"] ?? "4500");
const LANES = 32;

/** mulberry32: small, seeded, good enough. */
function createRandom(seed: number): () => number {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

describe("mutated requests", () => {
  let target: TestSidecar;
  let templates: Buffer[];
  const failures: unknown[] = [];
  const onFailure = (error: unknown): number => failures.push(error);

  beforeAll(async () => {
    target = await startTestSidecar();
    process.on("unhandledRejection", onFailure);
    templates = await makeTemplates(target);
  });

  afterAll(async () => {
    process.off("unhandledRejection", onFailure);
    await target.stop();
  });

  it(`survives ${CASES} of them`, { timeout: 180_000 }, async () => {
    const random = createRandom(20_261_123);
    const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)]!;
    const byStatus: Record<string, number> = {};
    const requests = Array.from({ length: CASES }, () => mutate(pick(templates), random));
    let warmBytes = 0;
    let next = 0;
    const lane = async (): Promise<void> => {
      while (next < requests.length) {
        const request = requests[next]!;
        next += 1;
        if (next === Math.floor(CASES / 3)) warmBytes = settledBytes();
        const status = await statusOf(target, request);
        byStatus[status] = (byStatus[status] ?? 0) + 1;
        if (status.startsWith("5"))
          failures.push(new Error(`${status}: ${JSON.stringify(request.toString("latin1"))}`));
      }
    };
    await Promise.all(Array.from({ length: LANES }, lane));
    const grownMiB = (settledBytes() - warmBytes) / 2 ** 20;
    console.log(
      `fuzz: ${JSON.stringify({ cases: CASES, byStatus, grownMiB: Math.round(grownMiB) })}`,
    );
    expect(failures.slice(0, 3)).toEqual([]);
    expect(Object.values(byStatus).reduce((sum, count) => sum + count, 0)).toBe(CASES);
    expect(grownMiB).toBeLessThan(32);
    // The service still does its work, and no mutated token was let in.
    expect((await target.get("/", { authorization: await target.mint() })).status).toBe(200);
  });
});

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

/** Heap and external memory of this process, which the sidecar shares with the test. */
function settledBytes(): number {
  collectGarbage();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

/** Sends one request on a connection of its own; what came back first, or "closed" or "silent". */
async function statusOf(target: TestSidecar, request: Buffer): Promise<string> {
  const socket = await openRaw(target);
  socket.on("error", () => undefined);
  const timer = setTimeout(() => socket.destroy(), 2_000);
  try {
    // Ended at once: a request that is not whole is then answered or cut, and need not be waited for.
    socket.end(request);
    const [answer] = (await Promise.race([
      once(socket, "data"),
      once(socket, "close").then(() => [undefined]),
    ])) as [Buffer | undefined];
    return answer === undefined ? "none" : answer.toString("latin1", 9, 12);
  } finally {
    clearTimeout(timer);
    socket.destroy();
  }
}

/** One well-formed request for each route, with bodies of the right form. */
async function makeTemplates(target: TestSidecar): Promise<Buffer[]> {
  const token = await target.mint();
  const bytes = (length: number): string => Buffer.alloc(length, 7).toString("base64url");
  const signed = { attest: bytes(129), signature: bytes(72) };
  const challenge = { ekCertificates: [bytes(900)], ekPublic: bytes(316), akPublic: bytes(90) };
  const evidence = {
    session: bytes(16),
    activatedSecret: bytes(32),
    quote: signed,
    pcrValues: [{ hash: "sha256", pcr: 0, value: bytes(32) }],
    deviceKey: { public: bytes(90), ...signed },
  };
  const deviceKey = { kty: "EC", crv: "P-256", x: bytes(32), y: bytes(32) };
  const credential = {
    id: bytes(32),
    rawId: bytes(32),
    type: "public-key",
    response: { clientDataJSON: bytes(120), attestationObject: bytes(900) },
  };
  const dpop = `DPoP ${bytes(40)}.${bytes(300)}.${bytes(64)}`;
  const json = { "content-type": "application/json" };
  const single = { "content-type": "application/private-token-request", authorization: dpop };
  const batch = { ...single, "content-type": "application/private-token-generic-batch-request" };
  const tokenRequest = Buffer.concat([Buffer.of(0, 2, 7), Buffer.alloc(256, 1)]);
  const redeem = { token: token.slice(token.indexOf('"') + 1, -1), host: target.host };
  const form = (
    method: string,
    path: string,
    headers: Record<string, string>,
    body: Uint8Array | object = Buffer.alloc(0),
  ): Buffer => {
    const content = body instanceof Uint8Array ? body : Buffer.from(JSON.stringify(body));
    const lines = Object.entries({ host: target.host, ...headers }).map(
      ([name, value]) => `${name}: ${value}`,
    );
    if (method === "POST") lines.push(`content-length: ${content.length}`);
    return Buffer.concat([
      Buffer.from(`${method} ${path} HTTP/1.1\r\n${lines.join("\r\n")}\r\n\r\n`),
      content,
    ]);
  };
  return [
    form("GET", "/", {}),
    form("GET", "/some/path?q=1", { authorization: token, cookie: "a=b; __Host-stile=x.y.z" }),
    form("POST", "/form", { authorization: token, "idempotency-key": "k" }, Buffer.from("a=b")),
    form("GET", "/ws", {
      connection: "Upgrade",
      upgrade: "websocket",
      "sec-websocket-version": "13",
    }),
    form("GET", "/.well-known/private-token-issuer-directory", { "if-none-match": '"x"' }),
    form("GET", "/.well-known/jwks.json", {}),
    form("GET", "/.stile/authorize", { "x-original-host": target.host, authorization: token }),
    form("POST", "/.stile/redeem", json, redeem),
    form("POST", "/attest/tpm/challenge", json, challenge),
    form("POST", "/attest/tpm/evidence", json, evidence),
    form("POST", "/attest/webauthn/options", json, { deviceKey, purpose: "registration" }),
    form("POST", "/attest/webauthn/options", json, {
      deviceKey,
      purpose: "assertion",
      credentialId: bytes(32),
    }),
    form("POST", "/attest/webauthn/evidence", json, { session: bytes(16), credential }),
    form(
      "POST",
      "/token-request",
      { ...single, dpop: `${bytes(60)}.${bytes(90)}.${bytes(64)}` },
      tokenRequest,
    ),
    form("POST", "/token-request", batch, Buffer.concat([Buffer.of(0x41, 0x03), tokenRequest])),
  ];
}

const INTERESTING = [
  "\r\n",
  "\n",
  "\r",
  "\0",
  " ",
  "\t",
  ":",
  ",",
  ";",
  '"',
  "'",
  "%00",
  "%2e%2e",
  "\\",
  "#",
  "_",
  "=",
  "Transfer-Encoding: chunked\r\n",
  "Content-Length: 0\r\n",
  "Content-Length: 99999999999\r\n",
  "Host: evil\r\n",
  "Expect: 100-continue\r\n",
  "Connection: close, authorization\r\n",
  "Upgrade: h2c\r\n",
  "HTTP/1.0",
  "HTTP/2.0",
  "PrivateToken token=",
  "__proto__",
  '{"a":',
  "[[[[[[",
  "\u00ff\u00fe",
  "-1",
  "1e309",
  "true",
  "null",
];

function mutate(template: Buffer, random: () => number): Buffer {
  let bytes: Buffer = Buffer.from(template);
  const times = 1 + Math.floor(random() * 4);
  for (let i = 0; i < times; i += 1) bytes = mutateOnce(bytes, random);
  return bytes;
}

function mutateOnce(bytes: Buffer, random: () => number): Buffer {
  const at = Math.floor(random() * bytes.length);
  const to = Math.min(bytes.length, at + 1 + Math.floor(random() * 24));
  const insert = (what: Buffer): Buffer =>
    Buffer.concat([bytes.subarray(0, at), what, bytes.subarray(at)]);
  switch (Math.floor(random() * 7)) {
    case 0: {
      const flipped = Buffer.from(bytes);
      flipped[at] = (flipped[at] ?? 0) ^ (1 << Math.floor(random() * 8));
      return flipped;
    }
    case 1:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(to)]);
    case 2:
      return insert(bytes.subarray(at, to));
    case 3:
      return insert(
        Buffer.from(INTERESTING[Math.floor(random() * INTERESTING.length)] ?? "", "latin1"),
      );
    case 4:
      return bytes.subarray(0, at);
    case 5:
      return insert(Buffer.alloc(Math.floor(random() * 2_000), 0x41 + Math.floor(random() * 26)));
    default:
      return insert(Buffer.from(Array.from({ length: 8 }, () => Math.floor(random() * 256))));
  }
}
