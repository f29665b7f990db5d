/**
 * Random bytes from both sides: seeded mixtures of hostile fragments as request heads and as upstream
 * answers. Whatever comes, the connection ends in bounded time, what the client reads is whole HTTP answers
 * and what the upstream reads is unambiguous. The expectations here share no code with what they judge.
 */
import fc from "fast-check";
import { createServer, type Socket } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  exchangeRaw,
  startEdge,
  startUpstream,
  type TestCertificates,
  testCertificates,
} from "../support/tls-edge.ts";

const SEED = 20_261_123;
/** Of each side. */
const RUNS = 450;
/** Connections that are open at a time. */
const BATCH = 150;
const BOUND_MS = 8_000;
let certificates: TestCertificates;

beforeAll(async () => {
  certificates = await testCertificates();
});
afterAll(() => certificates.remove());

const oneOf = (...values: string[]): fc.Arbitrary<string> => fc.constantFrom(...values);
const latin1 = (maxLength: number): fc.Arbitrary<string> =>
  fc.uint8Array({ maxLength }).map((bytes) => Buffer.from(bytes).toString("latin1"));
/** Mostly well-formed, since what is refused at its first byte tests nothing behind it. */
const mostly = (usual: string, ...odd: fc.Arbitrary<string>[]): fc.Arbitrary<string> =>
  fc.oneof({ arbitrary: fc.constant(usual), weight: 6 * odd.length }, ...odd);

interface RequestParts {
  readonly line: string;
  readonly headers: readonly string[];
  readonly newline: string;
  readonly body: string;
}

const usual: RequestParts = {
  line: "GET / HTTP/1.1",
  headers: ["Host: a.example"],
  newline: "\r\n",
  body: "",
};
const oddLine = fc
  .tuple(
    fc.oneof(oneOf("GET", "POST", "HEAD", "OPTIONS", "TRACE", "CONNECT", "PRI", "get"), latin1(4)),
    fc.oneof(oneOf("/", "*", "//b", "http://b.example/", "/a#b", "/%00", "/a\\b", "/?"), latin1(6)),
    oneOf("HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "HTTP/1.10"),
  )
  .map((parts): Partial<RequestParts> => ({ line: parts.join(" ") }));
const oddHost = oneOf("Host: a.example:x", "Host:", "Host : a.example", "X-No-Host: 1").map(
  (host): Partial<RequestParts> => ({ headers: [host] }),
);
const header = fc.oneof(
  {
    arbitrary: oneOf(
      "Host: b.example",
      "Authorization: a\r\nAuthorization: b",
      "Connection: close",
      "Connection: keep-alive, Host",
      "Connection: upgrade\r\nUpgrade: h2c",
      "Upgrade: websocket",
      "Content-Length: 0",
      "Content-Length: 3",
      "Content-Length: +3",
      "Content-Length: 3, 3",
      "Transfer_Encoding: chunked",
      "Expect: x",
      "X-Forwarded-For: 192.0.2.1",
      "X_Forwarded_For: 192.0.2.1",
      "Stile-Admission: forged",
      "stile_admission: forged",
      "TE: trailers",
      "X-A: b",
      " folded",
      "",
    ),
    weight: 5,
  },
  latin1(12),
);
const oddHeaders = fc
  .array(header, { minLength: 1, maxLength: 2 })
  .map((odd): Partial<RequestParts> => ({ headers: ["Host: a.example", ...odd] }));
const oddBody = fc
  .tuple(
    oneOf(
      "Transfer-Encoding: chunked",
      "Transfer-Encoding: gzip, chunked",
      "Transfer-Encoding:\tchunked",
      "Transfer-Encoding: chunked\r\nContent-Length: 3",
      "Transfer-Encoding: chunked\r\nExpect: 100-continue",
      "Content-Length: 3",
    ),
    oneOf(
      "3\r\nabc\r\n0\r\n\r\n",
      "0\r\nX-Trailer: 1\r\n\r\n",
      "3;ext=1\r\nabc\r\n0\r\n\r\n",
      "3\nabc\n0\n\n",
      "zz\r\n",
      "abc",
    ),
  )
  .map(([framing, body]): Partial<RequestParts> => ({
    line: "POST / HTTP/1.1",
    headers: ["Host: a.example", framing],
    body,
  }));
const oddNewline = oneOf("\n", "\r", "\r\n ").map((newline): Partial<RequestParts> => ({
  newline,
}));
/** One odd part in each, since of two the first one refused would hide the other. */
const request = fc
  .oneof(
    { arbitrary: fc.constant({}), weight: 2 },
    { arbitrary: oddLine, weight: 3 },
    oddHost,
    { arbitrary: oddHeaders, weight: 6 },
    { arbitrary: oddBody, weight: 4 },
    oddNewline,
  )
  .map((odd: Partial<RequestParts>) => {
    const { line, headers, newline, body } = { ...usual, ...odd };
    return [line, ...headers, "", body].join(newline);
  });
/** Stands for a path of its own in each sample. */
const SECOND = "/second";
const pipelined = request.map(
  (first) => `${first}GET ${SECOND} HTTP/1.1\r\nHost: a.example\r\n\r\n`,
);
const clientBytes = fc.oneof(
  { arbitrary: request, weight: 8 },
  { arbitrary: pipelined, weight: 5 },
  latin1(200),
);

interface Answer {
  readonly status: number;
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly body: string;
}

/** All final answers in `text`; fails where there is a byte too many. A cut-off end is `undefined`. */
function answersOf(text: string): (Answer | undefined)[] {
  const answers: (Answer | undefined)[] = [];
  let rest = text;
  while (rest.length > 0) {
    const end = rest.indexOf("\r\n\r\n");
    const lines = rest.slice(0, Math.max(end, 0)).split("\r\n");
    const status = Number(
      /^HTTP\/1\.1 ([1-5][0-9]{2}) [\t\x20-\x7e\x80-\xff]*$/.exec(lines[0] ?? "")?.[1],
    );
    expect(status, JSON.stringify(text)).toBeGreaterThan(99);
    const headers = lines.slice(1).map((line): readonly [string, string] => {
      const match = /^([!#$%&'*+.^_`|~0-9a-z-]+): ?([\t\x20-\x7e\x80-\xff]*)$/i.exec(line);
      expect(match, JSON.stringify(text)).not.toBeNull();
      return [(match?.[1] ?? "").toLowerCase(), match?.[2] ?? ""];
    });
    rest = rest.slice(end + 4);
    if (status < 200) {
      expect(status).toBe(100);
      continue;
    }
    const framed = cutBody(rest, status, headers);
    rest = framed?.rest ?? "";
    answers.push(framed === undefined ? undefined : { status, headers, body: framed.body });
  }
  return answers;
}

/** RFC 9112 §6.3; `undefined` where the connection ended before the body did. */
function cutBody(
  rest: string,
  status: number,
  headers: Answer["headers"],
): { body: string; rest: string } | undefined {
  const all = (name: string): string[] =>
    headers.filter(([other]) => other === name).map(([, value]) => value);
  const [length, ...lengths] = all("content-length");
  const codings = all("transfer-encoding");
  expect(lengths.length + codings.length).toBeLessThan(length === undefined ? 2 : 1);
  if (status === 204 || status === 304 || all("x-answers").includes("HEAD")) {
    return { body: "", rest };
  }
  // A refusal of HEAD: the last of its connection, and no upstream has labelled it.
  if (status >= 400 && rest === "") return { body: "", rest };
  if (length !== undefined) {
    expect(length).toMatch(/^[0-9]+$/);
    if (rest.length < Number(length)) return undefined;
    return { body: rest.slice(0, Number(length)), rest: rest.slice(Number(length)) };
  }
  if (codings.length === 0) return { body: rest, rest: "" };
  expect(codings).toStrictEqual(["chunked"]);
  let body = "";
  for (let left = rest; ;) {
    const match = /^([0-9a-f]+)\r\n/i.exec(left);
    if (match === null) return undefined;
    const size = Number.parseInt(match[1] ?? "", 16);
    const start = match[0].length;
    if (left.length < start + size + 2) return undefined;
    expect(left.slice(start + size, start + size + 2)).toBe("\r\n");
    body += left.slice(start, start + size);
    left = left.slice(start + size + 2);
    if (size === 0) return { body, rest: left };
  }
}

async function inBatches<T>(all: readonly T[], run: (one: T) => Promise<void>): Promise<void> {
  for (let at = 0; at < all.length; at += BATCH) {
    const batch = all.slice(at, at + BATCH);
    await Promise.all(batch.map((one) => within(run(one), JSON.stringify(one))));
  }
}

function within(done: Promise<void>, what: string): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`still open: ${what}`)), BOUND_MS);
  });
  return Promise.race([done, late]).finally(() => clearTimeout(timer));
}

describe("random request bytes", () => {
  test("get whole answers or none, and reach the upstream only where they are unambiguous", async () => {
    const reached: { method: string; url: string; rawHeaders: string[] }[] = [];
    const upstream = await startUpstream((incoming, response) => {
      const { method = "", url = "", rawHeaders } = incoming;
      reached.push({ method, url, rawHeaders });
      response.setHeader("X-Answers", method);
      incoming.resume().once("end", () => response.end("reached"));
    });
    const edge = await startEdge({
      certificates,
      upstream: `http://127.0.0.1:${upstream.port}`,
      limits: { headersTimeoutMs: 400, requestTimeoutMs: 400, keepAliveTimeoutMs: 1 },
      extra: {
        removeRequestHeaders: [],
        requestHeaders: [["Stile-Admission", "token"]],
        responseHeaders: [],
      },
    });
    const statuses = new Map<number, number>();

    const behindRefused: string[] = [];

    const samples = fc
      .sample(clientBytes, { seed: SEED, numRuns: RUNS })
      .map((text, index) => ({ text: text.replace(SECOND, `${SECOND}-${index}`), index }));
    await inBatches(samples, async ({ text, index: sample }) => {
      const answer = await exchangeRaw(edge.port, certificates.ca, text);
      const answers = answersOf(answer);
      if (answers[0]?.status !== 200) behindRefused.push(`${SECOND}-${sample}`);
      for (const [index, one] of answers.entries()) {
        const status = one?.status ?? 0;
        statuses.set(status, (statuses.get(status) ?? 0) + 1);
        // A refusal ends the connection: nothing may be answered behind it.
        if (status !== 200) expect(index, JSON.stringify(text)).toBe(answers.length - 1);
      }
    });

    for (const { method, url, rawHeaders } of reached) {
      const all = (name: string): string[] =>
        rawHeaders.filter((_, i) => i % 2 === 1 && rawHeaders[i - 1]?.toLowerCase() === name);
      expect(["CONNECT", "TRACE", "PRI"]).not.toContain(method);
      expect(url).toMatch(/^(?:\/|\*$)[^#\\\s]*$/);
      expect(all("host").join(" ")).toMatch(/^[ab]\.example$/);
      expect(all("stile-admission")).toStrictEqual(["token"]);
      expect(all("x-forwarded-for")).toStrictEqual(["127.0.0.1"]);
      expect(all("content-length").length + all("transfer-encoding").length).toBeLessThan(2);
      expect(all("upgrade")).toStrictEqual([]);
      expect(rawHeaders.filter((name, i) => i % 2 === 0 && name.includes("_"))).toStrictEqual([]);
    }
    for (const path of behindRefused) expect(reached.map(({ url }) => url)).not.toContain(path);
    // Neither way out is rare, or this would say nothing of the other.
    expect(statuses.get(200)).toBeGreaterThan(80);
    expect(statuses.get(400)).toBeGreaterThan(80);
    expect([200, 400, 408]).toEqual(expect.arrayContaining([...statuses.keys()]));
    await edge.close();
    await upstream.close();
  });
});

const answerHeader = fc.oneof(
  oneOf(
    "Content-Length: 5",
    "Content-Length: 0",
    "Content-Length: -1",
    "Content-Length: 5\r\nContent-Length: 6",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip",
    "Transfer-Encoding: chunked\r\nContent-Length: 5",
    "Connection: close",
    "Connection: keep-alive, X-A",
    "Upgrade: websocket\r\nConnection: upgrade",
    "Stile-Admission: forged",
    "Set-Cookie: a=b",
    "X-A: \u00e9",
    "X-A: a\u0000b",
    "X-A: a\rb",
    " folded",
  ),
  latin1(12),
);
const upstreamBytes = fc.oneof(
  {
    arbitrary: fc
      .tuple(
        oneOf(
          "",
          "",
          "",
          "HTTP/1.1 100 Continue\r\n\r\n",
          "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
        ),
        mostly(
          "HTTP/1.1 200 OK",
          oneOf("HTTP/1.0 200 OK", "HTTP/1.1 204 x", "HTTP/1.1 304 x"),
          oneOf(
            "HTTP/1.1 101 x",
            "HTTP/1.1 999 \u00e9",
            "HTTP/1.1 20",
            "ICY 200 OK",
            "HTTP/1.1 600 x",
          ),
        ),
        fc.array(answerHeader, { maxLength: 3 }),
        oneOf(
          "",
          "hello",
          "hello!",
          "5\r\nhello\r\n0\r\n\r\n",
          "5\r\nhel",
          "zz\r\n",
          "hello".concat("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned"),
        ),
      )
      .map(([early, line, headers, body]) => early + [line, ...headers, "", body].join("\r\n")),
    weight: 10,
  },
  latin1(100),
);

describe("random upstream bytes", () => {
  test("become one whole answer, a 502 or a cut connection, and never the next client's answer", async () => {
    const held = new Map<string, string>();
    const sockets = new Set<Socket>();
    const server = createServer((socket) => {
      sockets.add(socket.on("error", () => undefined));
      socket.once("data", (chunk: Buffer) => {
        const key = /^GET \/([0-9]+) /.exec(chunk.toString("latin1"))?.[1] ?? "";
        socket.end(Buffer.from(held.get(key) ?? "", "latin1"));
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
    const address = server.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    const edge = await startEdge({ certificates, upstream: `http://127.0.0.1:${port}` });
    const statuses = new Map<number, number>();

    const texts = fc.sample(upstreamBytes, { seed: SEED, numRuns: RUNS });
    for (const [index, text] of texts.entries()) held.set(String(index), text);
    await inBatches([...held], async ([key, text]) => {
      const get = `GET /${key} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n`;
      const answers = answersOf(await exchangeRaw(edge.port, certificates.ca, get));
      expect(answers.length, text).toBeLessThan(2);
      const status = answers[0]?.status ?? 0;
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
      for (const [name] of answers[0]?.headers ?? []) expect(name).not.toMatch(/^stile-|^upgrade$/);
      expect(status).not.toBe(101);
    });

    expect(statuses.get(200)).toBeGreaterThan(80);
    expect(statuses.get(502)).toBeGreaterThan(80);
    await edge.close();
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
});
