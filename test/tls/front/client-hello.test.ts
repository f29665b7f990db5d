/**
 * The ClientHello's reader and JA4: the trace of RFC 8448, FoxIO's published fingerprints, what real clients
 * send, every refusal; and of mutated ones, that OpenSSL reads no other name than it does.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { type AddressInfo, connect, createServer as createTcp } from "node:net";
import { connect as connectTls, createServer, type Server } from "node:tls";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  type ClientHello,
  MAX_CLIENT_HELLO_BYTES,
  parseClientHello,
  readClientHello,
} from "../../../tls/front/client-hello.ts";
import { isGrease, ja4Of } from "../../../tls/front/ja4.ts";
import { isStileError } from "../../../wire/index.ts";
import { codeOf } from "../../support/reject.ts";
import { CHROMIUM, chromiumMissing } from "../../web/browser.ts";
import {
  alpn,
  bytes,
  helloBody,
  type HelloParts,
  helloRecord,
  list16,
  list8,
  message,
  nameEntry,
  numbers,
  records,
  serverName,
} from "./hello-builder.ts";

/** RFC 8448 §3, "Simple 1-RTT Handshake". */
const RFC_8448 = `
  010000c00303cb34ecb1e78163ba1c38c6dacb196a6dffa21a8d9912ec18a2ef6283024dece7000006130113031302010000910000000b0009
  000006736572766572ff01000100000a00140012001d0017001800190100010101020103010400230000003300260024001d002099381de560e4
  bd43d23d8e435a7dbafeb3c06e51c13cae4d5413691e529aaf2c002b0003020304000d0020001e0403050306030203080408050806040105010601
  0201040205020602 0202002d00020101001c00024001`.replaceAll(/\s/g, "");

function found(input: Uint8Array): ClientHello {
  const looked = readClientHello(input);
  if (looked.kind !== "found") throw new Error("incomplete");
  return looked.value;
}

/** The same bytes, from what was parsed of them alone. */
function again(hello: ClientHello): Uint8Array {
  return helloBody({
    legacyVersion: hello.legacyVersion,
    sessionId: hello.legacySessionId,
    ciphers: hello.cipherSuites,
    compression: hello.legacyCompressionMethods,
    extensions: hello.extensions.map(({ data, type }) => [type, data] as const),
  });
}

const hex = (...values: string[]): number[] =>
  values.flatMap((text) => text.split(",").map((value) => Number.parseInt(value, 16)));
/** FoxIO's example of a browser, JA4.md. */
const CIPHERS = hex("1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035");
const EXTENSIONS = hex(
  "001b,0000,0033,0010,4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,000a,0015",
);
const ALGORITHMS = hex("0403,0804,0401,0503,0805,0501,0806,0601");

/** With content where it is read, else empty. */
function browserHello(
  types: readonly number[],
  change: Partial<Record<number, Uint8Array>> = {},
): HelloParts {
  const content: Partial<Record<number, Uint8Array>> = {
    0: serverName(nameEntry("a.example"))[1],
    16: alpn("h2", "http/1.1")[1],
    43: list8(numbers(0x3a3a, 0x0304, 0x0303)),
    13: list16(numbers(...ALGORITHMS)),
    10: list16(numbers(0x5a5a, 0x11ec, 0x1d)),
    ...change,
  };
  return {
    ciphers: CIPHERS,
    extensions: types.map((type) => [type, content[type] ?? bytes()] as const),
  };
}
const ja4 = (parts: HelloParts): string => ja4Of(found(helloRecord(parts)));

describe("a ClientHello", () => {
  test("is read: that of RFC 8448", () => {
    const trace = Buffer.from(RFC_8448, "hex");
    const hello = found(records(trace));
    expect(hello).toMatchObject({
      legacyVersion: 0x0303,
      cipherSuites: [0x1301, 0x1303, 0x1302],
      serverName: "server",
      supportedVersions: [0x0304],
      supportedGroups: [0x1d, 0x17, 0x18, 0x19, 0x100, 0x101, 0x102, 0x103, 0x104],
      alpnProtocols: [],
    });
    expect(hello.signatureAlgorithms).toHaveLength(15);
    expect(hello.extensions).toHaveLength(9);
    expect(Buffer.from(hello.random).toString("hex")).toMatch(/^cb34ecb1e781/);
  });

  test("is read in any number of records and segments, and not before it is whole", () => {
    const whole = message(helloBody(browserHello(EXTENSIONS)));
    for (const size of [16_384, 100, 64, Math.ceil(whole.length / 32)]) {
      const input = records(whole, size);
      expect(found(input).serverName).toBe("a.example");
      for (let length = 0; length < input.length; length += 1) {
        const looked = readClientHello(input.subarray(0, length));
        // It asks for no more than is to come.
        expect(looked.kind === "more" && looked.atLeast).toBeLessThanOrEqual(input.length);
        expect(looked.kind === "more" && looked.atLeast).toBeGreaterThan(length);
      }
      // What follows is not looked at, and a view at an offset says the same.
      const inside = Buffer.concat([bytes(1, 2, 3), input, bytes(20, 3, 3, 0, 1, 1)]);
      expect(found(inside.subarray(3))).toStrictEqual(found(input));
    }
  });

  test("is read where it is of an older client: no extensions, or no versions", () => {
    const old = found(helloRecord({ extensions: undefined, legacyVersion: 0x0301 }));
    expect([old.extensions, old.serverName, old.supportedVersions]).toStrictEqual([
      [],
      undefined,
      [],
    ]);
    expect(ja4({ extensions: undefined, legacyVersion: 0x0302 })).toBe(
      "t11i010000_0f2cb44170f4_000000000000",
    );
  });

  const one = (type: number, data: Uint8Array): HelloParts => ({ extensions: [[type, data]] });
  test.each<[string, HelloParts, string]>([
    [
      "two names",
      { extensions: [serverName(nameEntry("a.example"), nameEntry("b.example"))] },
      "WIRE_TRAILING_BYTES",
    ],
    [
      "two extensions with a name each",
      { extensions: [serverName(nameEntry("a")), serverName(nameEntry("b"))] },
      "WIRE_VALUE_NOT_ALLOWED",
    ],
    [
      "any extension twice",
      {
        extensions: [
          [0x1234, bytes()],
          [0x1234, bytes()],
        ],
      },
      "WIRE_VALUE_NOT_ALLOWED",
    ],
    ["an empty name", { extensions: [serverName(nameEntry(""))] }, "WIRE_LENGTH_OUT_OF_BOUNDS"],
    ["no name in the list", one(0, list16(bytes())), "WIRE_LENGTH_OUT_OF_BOUNDS"],
    ["a server_name without a list", one(0, bytes()), "WIRE_TOO_SHORT"],
    [
      "a name of another type",
      { extensions: [serverName(nameEntry("a", 1))] },
      "WIRE_VALUE_NOT_ALLOWED",
    ],
    [
      "NUL in a name",
      { extensions: [serverName(nameEntry("a.example\0.b"))] },
      "WIRE_VALUE_NOT_ALLOWED",
    ],
    [
      "a space in a name",
      { extensions: [serverName(nameEntry("a.example "))] },
      "WIRE_VALUE_NOT_ALLOWED",
    ],
    [
      "UTF-8 in a name",
      { extensions: [serverName(nameEntry("\xc3\xa4.example"))] },
      "WIRE_VALUE_NOT_ALLOWED",
    ],
    [
      "a name of 256 bytes",
      { extensions: [serverName(nameEntry("a".repeat(256)))] },
      "WIRE_LENGTH_OUT_OF_BOUNDS",
    ],
    [
      "bytes behind the names",
      one(0, Buffer.concat([serverName(nameEntry("a"))[1], bytes(0)])),
      "WIRE_TRAILING_BYTES",
    ],
    ["no protocol in ALPN", one(16, list16(bytes())), "WIRE_LENGTH_OUT_OF_BOUNDS"],
    ["an empty protocol in ALPN", one(16, list16(bytes(0, 1, 65))), "WIRE_LENGTH_OUT_OF_BOUNDS"],
    ["a protocol that is cut", one(16, list16(bytes(3, 65))), "WIRE_TOO_SHORT"],
    ["bytes behind ALPN", one(16, Buffer.concat([alpn("h2")[1], bytes(0)])), "WIRE_TRAILING_BYTES"],
    ["half a version", one(43, list8(bytes(3, 4, 3))), "WIRE_LENGTH_OUT_OF_BOUNDS"],
    ["no version", one(43, list8(bytes())), "WIRE_LENGTH_OUT_OF_BOUNDS"],
    [
      "bytes behind the groups",
      one(10, Buffer.concat([list16(numbers(1)), bytes(0)])),
      "WIRE_TRAILING_BYTES",
    ],
    ["half a signature algorithm", one(13, list16(bytes(4, 3, 8))), "WIRE_LENGTH_OUT_OF_BOUNDS"],
    ["no cipher", { ciphers: [] }, "WIRE_LENGTH_OUT_OF_BOUNDS"],
    ["half a cipher", { rawCiphers: bytes(0x13, 1, 0x13) }, "WIRE_LENGTH_OUT_OF_BOUNDS"],
    ["no compression method", { compression: bytes() }, "WIRE_LENGTH_OUT_OF_BOUNDS"],
    ["a session id of 33 bytes", { sessionId: new Uint8Array(33) }, "WIRE_LENGTH_OUT_OF_BOUNDS"],
    ["bytes behind it", { behind: bytes(0) }, "WIRE_TRAILING_BYTES"],
  ])("rejects %s", (_name, parts, code) => {
    expect(codeOf(() => readClientHello(helloRecord(parts)))).toBe(code);
  });

  test.each<[string, Uint8Array, string]>([
    ["HTTP", Buffer.from("GET / HTTP/1.1\r\n\r\n"), "WIRE_VALUE_NOT_ALLOWED"],
    ["a hello of SSL 2", bytes(0x80, 0x2e, 1, 3, 1), "WIRE_VALUE_NOT_ALLOWED"],
    ["another record", records(message(helloBody()), 99, 23), "WIRE_VALUE_NOT_ALLOWED"],
    [
      "another record behind the first",
      Buffer.concat([records(message(helloBody()).subarray(0, 9)), bytes(21)]),
      "WIRE_VALUE_NOT_ALLOWED",
    ],
    ["another major version", bytes(22, 2, 0, 0, 1, 1), "WIRE_VALUE_NOT_ALLOWED"],
    ["an empty record", bytes(22, 3, 1, 0, 0), "WIRE_LENGTH_OUT_OF_BOUNDS"],
    ["a record that is too long", bytes(22, 3, 1, 0x40, 1), "WIRE_LENGTH_OUT_OF_BOUNDS"],
    ["another message", records(message(helloBody(), 2)), "WIRE_VALUE_NOT_ALLOWED"],
    [
      "a message behind it",
      records(Buffer.concat([message(helloBody()), bytes(1)])),
      "WIRE_TRAILING_BYTES",
    ],
    [
      "one byte more than is taken",
      records(message(bytes(), 1, MAX_CLIENT_HELLO_BYTES + 1)),
      "WIRE_LENGTH_OUT_OF_BOUNDS",
    ],
    ["a length bomb", records(message(bytes(), 1, 0xff_ffff)), "WIRE_LENGTH_OUT_OF_BOUNDS"],
    ["too many records", records(new Uint8Array(40).fill(1), 1), "WIRE_LENGTH_OUT_OF_BOUNDS"],
    ["a body that is cut", records(message(helloBody().subarray(0, 30))), "WIRE_TOO_SHORT"],
  ])("rejects %s", (_name, input, code) => {
    expect(codeOf(() => readClientHello(input))).toBe(code);
  });

  test("is, of any bytes, one that is written again as it came, or refused", () => {
    const sources = [helloBody(browserHello(EXTENSIONS)), Buffer.from(RFC_8448, "hex").subarray(4)];
    const edits = fc.array(fc.tuple(fc.nat(), fc.nat(255), fc.constantFrom("set", "cut", "add")), {
      maxLength: 3,
    });
    let [accepted, refused] = [0, 0];
    const property = fc.property(fc.constantFrom(...sources), edits, (source, changes) => {
      const input = changes.reduce<Uint8Array>((now, [at, byte, how]) => {
        const i = at % (now.length + 1);
        const put = how === "cut" ? [] : [byte];
        return Buffer.concat([
          now.subarray(0, i),
          bytes(...put),
          now.subarray(how === "add" ? i : i + 1),
        ]);
      }, source);
      try {
        const hello = parseClientHello(input);
        accepted += 1;
        const random = Buffer.from(hello.random);
        const rewritten = Buffer.from(again(hello));
        random.copy(rewritten, 2);
        expect(rewritten.equals(input) || hello.extensions.length === 0).toBe(true);
        expect(ja4Of(hello)).toMatch(/^t[0-9s][0-9][di][0-9]{4}[0-9A-Za-z]{2}(_[0-9a-f]{12}){2}$/);
      } catch (error) {
        if (!isStileError(error)) throw error;
        refused += 1;
      }
    });
    fc.assert(property, { seed: 20_261_128, numRuns: 2_000 });
    expect(Math.min(accepted, refused)).toBeGreaterThan(300);
  });
});

describe("JA4", () => {
  test("is what FoxIO publishes for its example, with and without signature algorithms", () => {
    expect(ja4(browserHello(EXTENSIONS))).toBe("t13d1516h2_8daaf6152771_e5627efa2ab1");
    // As the document has it: with their extension, and without any of them.
    const hello = found(helloRecord(browserHello(EXTENSIONS)));
    const without = ja4Of({ ...hello, signatureAlgorithms: [] });
    expect(without).toBe("t13d1516h2_8daaf6152771_6d807ffa2a79");
  });

  test("is what is known of Chrome 143, whose order changes with every connection", () => {
    const types = hex(
      "002d,0033,0010,fe0d,0017,44cd,0000,000b,000a,002b,ff01,0023,0012,0005,000d,001b",
    );
    expect(ja4(browserHello(types))).toBe("t13d1516h2_8daaf6152771_d8a2da3f94cd");
    expect(ja4(browserHello(types.toReversed()))).toBe("t13d1516h2_8daaf6152771_d8a2da3f94cd");
  });

  test("does not count GREASE, wherever it is", () => {
    const parts = browserHello([0x0a0a, ...EXTENSIONS, 0xfafa], {
      13: list16(numbers(0x1a1a, ...ALGORITHMS)),
    });
    expect(ja4({ ...parts, ciphers: [0x8a8a, ...CIPHERS] })).toBe(
      "t13d1516h2_8daaf6152771_e5627efa2ab1",
    );
    const all = Array.from({ length: 65_536 }, (_, value) => value).filter(isGrease);
    expect(all).toHaveLength(16);
    expect([all[0], all.at(-1)]).toStrictEqual([0x0a0a, 0xfafa]);
  });

  test.each([
    ["h2", "h2"],
    ["http/1.1", "h1"],
    ["a", "aa"],
    // As FoxIO shows them.
    ["\xab", "ab"],
    ["\xab\xcd", "ad"],
    ["\x30\xab", "3b"],
    ["\x30\x31\xab\xcd", "3d"],
    ["\x30\xab\xcd\x31", "01"],
  ])("names the first protocol %j as %s", (name, code) => {
    expect(ja4({ extensions: [alpn(name)] }).slice(8, 10)).toBe(code);
  });

  test("says what is not there, and counts to 99", () => {
    expect(ja4({ ciphers: [0x0a0a], extensions: [] })).toBe("t12i000000_000000000000_000000000000");
    const many = Array.from({ length: 150 }, (_, i) => i + 1);
    const extensions = many.map((i) => [i + 1_000, bytes()] as const);
    expect(ja4({ ciphers: many, extensions }).slice(4, 8)).toBe("9999");
    expect(ja4({ legacyVersion: 0x1234, extensions: [] }).slice(0, 4)).toBe("t00i");
  });
});

describe("the ClientHello of a real client", () => {
  /** What the client sends before it hears anything. */
  async function captured(start: (port: number) => void): Promise<Buffer> {
    const server = createTcp().listen(0, "127.0.0.1");
    await once(server, "listening");
    start((server.address() as AddressInfo).port);
    const [socket] = (await once(server, "connection")) as [ReturnType<typeof connect>];
    socket.on("error", () => undefined);
    let input = Buffer.alloc(0);
    while (readClientHello(input).kind === "more") {
      const [piece] = (await once(socket, "data")) as [Buffer];
      input = Buffer.concat([input, piece]);
    }
    socket.destroy();
    server.close();
    return input;
  }
  const program =
    (name: string, ...args: string[]) =>
    (port: number): void => {
      const at = args.map((arg) => arg.replace("PORT", String(port)));
      execFile(name, at, () => undefined).stdin?.end();
    };

  test.each<[string, (port: number) => void, string]>([
    [
      "Node with a hybrid key share",
      (port) => {
        const options = { port, host: "127.0.0.1", servername: "a.example", ALPNProtocols: ["h2"] };
        connectTls(options).on("error", () => undefined);
      },
      "t13d",
    ],
    [
      "openssl, TLS 1.2",
      program(
        "openssl",
        "s_client",
        "-connect",
        "127.0.0.1:PORT",
        "-tls1_2",
        "-servername",
        "a.example",
      ),
      "t12d",
    ],
    [
      "openssl without a name",
      program("openssl", "s_client", "-connect", "127.0.0.1:PORT", "-noservername"),
      "t13i",
    ],
    [
      "curl",
      program("curl", "-sk", "--resolve", "a.example:PORT:127.0.0.1", "https://a.example:PORT/"),
      "t13d",
    ],
    [
      "gnutls-cli",
      program("gnutls-cli", "-p", "PORT", "--sni-hostname", "a.example", "127.0.0.1"),
      "t13d",
    ],
  ])("is read: %s", async (_name, start, begins) => {
    const input = await captured(start);
    const hello = found(input);
    expect(ja4Of(hello).slice(0, 4)).toBe(begins);
    expect(hello.serverName).toBe(begins.endsWith("d") ? "a.example" : undefined);
    const rewritten = Buffer.from(again(hello));
    Buffer.from(hello.random).copy(rewritten, 2);
    expect(input.includes(rewritten)).toBe(true);
  });

  test.skipIf(chromiumMissing)(
    "has, of Chromium, the JA4 that its ciphers are known by",
    async () => {
      const dir = mkdtempSync(join(tmpdir(), "stile-hello-"));
      const hellos: ClientHello[] = [];
      for (let i = 0; i < 2; i += 1) {
        const args = ["--headless", "--no-sandbox", "--disable-gpu", `--user-data-dir=${dir}`];
        let child: ChildProcess | undefined;
        const input = await captured((port) => {
          const at = [
            "--host-resolver-rules=MAP a.example 127.0.0.1",
            `https://a.example:${port}/`,
          ];
          child = spawn(CHROMIUM ?? "", [...args, ...at], { stdio: "ignore" });
        });
        const exited = child && once(child, "exit");
        child?.kill("SIGTERM");
        await exited;
        hellos.push(found(input));
      }
      rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
      const [first, second] = hellos;
      expect(first?.serverName).toBe("a.example");
      expect(first && ja4Of(first)).toMatch(/^t13d151[0-9]h2_8daaf6152771_[0-9a-f]{12}$/);
      // It shuffles its extensions, and draws its GREASE anew: the fingerprint stays.
      expect(first?.extensions.map(({ type }) => type)).not.toStrictEqual(
        second?.extensions.map(({ type }) => type),
      );
      expect(second && ja4Of(second)).toBe(first && ja4Of(first));
      expect(first?.supportedGroups).toContain(0x11ec);
    },
  );

  /** OpenSSL as a server: the name and the protocols that it reads. */
  let server: Server;
  let onName: (name: string) => void = () => undefined;
  beforeAll(async () => {
    server = createServer({
      SNICallback: (name, done) => {
        onName(name);
        done(new Error("seen"));
      },
    });
    server.on("tlsClientError", (_error, socket) => socket.destroy());
    await once(server.listen(0, "127.0.0.1"), "listening");
  });
  afterAll(() => void server.close());

  test("names to OpenSSL, however it was mutated, nobody else than it names here", async () => {
    const { port } = server.address() as AddressInfo;
    const real = await captured((at) => {
      const options = { port: at, host: "127.0.0.1", servername: "a.example", ecdhCurve: "X25519" };
      connectTls(options).on("error", () => undefined);
    });
    const at = real.indexOf("a.example") - 9;
    const edits = fc.tuple(fc.integer({ min: -4, max: 24 }), fc.nat(255));
    const samples = fc.sample(fc.array(edits, { minLength: 1, maxLength: 2 }), {
      seed: 20_261_128,
      numRuns: 250,
    });
    let named = 0;
    for (const sample of samples) {
      const input = Buffer.from(real);
      for (const [offset, byte] of sample) input[at + offset] = byte;
      let theirs: string | undefined;
      onName = (name) => (theirs = name);
      const socket = connect(port, "127.0.0.1");
      socket.on("error", () => undefined).resume();
      const closed = once(socket, "close");
      // Its end, so that OpenSSL does not wait for a record that was made longer.
      socket.end(input);
      await closed;
      if (theirs === undefined) continue;
      named += 1;
      const ours = ((): string | undefined => {
        try {
          return found(input).serverName;
        } catch (error) {
          if (!isStileError(error)) throw error;
          return "refused";
        }
      })();
      expect([theirs, "refused"]).toContain(ours);
    }
    expect(named).toBeGreaterThan(30);
  });
});
