/** Requests that parsers have been known to read differently, and plain ones: each in full, with its body. */

export interface Case {
  readonly name: string;
  /** Latin-1. */
  readonly text: string;
}

const HOST = "Host: a.example\r\n";
const get = (lines: string, target = "/"): string => `GET ${target} HTTP/1.1\r\n${lines}\r\n`;
const post = (lines: string, body = ""): string => `POST / HTTP/1.1\r\n${HOST}${lines}\r\n${body}`;
const list = (prefix: string, texts: readonly string[]): Case[] =>
  texts.map((text) => ({ name: `${prefix}: ${JSON.stringify(text.slice(0, 90))}`, text }));

/** What a browser, curl or a library sends: the fast path takes all of them. */
export const PLAIN: readonly Case[] = list("plain", [
  get(HOST),
  get(`${HOST}Connection: keep-alive\r\n`),
  get(`${HOST}Connection: Keep-Alive\r\nUser-Agent: curl/8\r\nAccept: */*\r\n`),
  get("host: a.example:8443\r\n"),
  get("HOST:a.example\r\n"),
  get("Host: 192.0.2.1:443\r\n"),
  get(`${HOST}X-A: \r\n`),
  get(`${HOST}X-A:\r\n`),
  get(`${HOST}X-A:   b c   \r\n`),
  get(`${HOST}X-A: "a, b"; c=d\r\n`),
  get(`${HOST}Cookie: a=b; __Host-stile=c.d.e; f="g"\r\n`),
  get(`${HOST}Content-Length: 0\r\n`),
  get(HOST, "/a/b.c/d-e_f~g"),
  get(HOST, "/?a=b&c=%2F&d[]=e"),
  get(HOST, "/%C3%A9/%20?q=a+b"),
  get(HOST, "/;a=b/(c)!$'*,:@"),
  get(HOST, "/a..b/...c"),
  get(HOST).replace("GET", "HEAD"),
  get(HOST).replace("GET", "DELETE"),
  post("Content-Length: 5\r\n", "hello"),
  post("Content-Length: 0\r\nX-A: 1\r\n"),
  post("").replace("POST", "PUT"),
  post("Content-Length: 3\r\n", "abc").replace("POST", "PATCH"),
]);

const BYTES = [...Array(32).keys(), 0x7f, 0x80, 0x85, 0xa0, 0xad, 0xff].map((code) =>
  String.fromCodePoint(code),
);

/** Every control character and some above ASCII, in every place that a token or a value can stand in. */
const PLACES: readonly ((byte: string) => string)[] = [
  (byte) => get(`${HOST}X-A: b${byte}c\r\n`),
  (byte) => get(`${HOST}X${byte}A: b\r\n`),
  (byte) => get(`${HOST}X-A${byte}: b\r\n`),
  (byte) => get(HOST, `/a${byte}b`),
  (byte) => get(`Host: a${byte}.example\r\n`),
  (byte) => post(`Content-Length: 1${byte}\r\n`, "x"),
];

const TARGETS = [
  "*",
  "a",
  "//a.example/b",
  "http://b.example/",
  "https://a.example/",
  "/a b",
  "/a#b",
  "/a\\b",
  "/a%00b",
  "/a%0d%0ab",
  "/a%zz",
  "/a%",
  "/a%2",
  "/../a",
  "/a/../../b",
  "/a/%2e%2E/b",
  "/./a",
  "/a/.",
  "/a/..;/b",
  '/a"b',
  "/a<b>",
  "/a|b",
  "/a{b}",
  "/a^b",
  "/a`b",
  "/\u00e9",
];

const START_LINES = [
  "GET / HTTP/1.0",
  "GET / HTTP/1.2",
  "GET / HTTP/2.0",
  "GET / HTTP/0.9",
  "GET / HTTP/01.1",
  "GET / HTTP/1.01",
  "GET / HTTP/1.1 ",
  "GET / http/1.1",
  "GET / ICE/1.0",
  "GET /",
  "GET  / HTTP/1.1",
  "GET /  HTTP/1.1",
  "GET\t/ HTTP/1.1",
  " GET / HTTP/1.1",
  "get / HTTP/1.1",
  "G?T / HTTP/1.1",
  "FOO / HTTP/1.1",
  "TRACE / HTTP/1.1",
  "CONNECT / HTTP/1.1",
  "CONNECT a.example:443 HTTP/1.1",
  "OPTIONS * HTTP/1.1",
  "PRI * HTTP/2.0",
  "PROPFIND / HTTP/1.1",
  "M-SEARCH / HTTP/1.1",
  "\r\nGET / HTTP/1.1",
  "\nGET / HTTP/1.1",
  "GET / HTTP/1.1\r",
  "GET / HTTP/1.1\n",
  "\ufeffGET / HTTP/1.1",
];

const HEADER_LINES = [
  "Host: b.example\r\n",
  "host: a.example\r\n",
  "Host : b.example\r\n",
  " Host: b.example\r\n",
  "X-A: 1\r\n 2\r\n",
  "X-A: 1\r\n\t2\r\n",
  "X-A: 1\r\n \r\n",
  "X-A: 1\nX-B: 2\r\n",
  "X-A: 1\rX-B: 2\r\n",
  "X-A: 1\r\r\n",
  "X-A\r\n",
  ": 1\r\n",
  "X_A: 1\r\n",
  "X A: 1\r\n",
  "X.A: 1\r\n",
  "X(A): 1\r\n",
  "X-A: 1\r\nX-A: 2\r\n",
  "Cookie: a=b\r\nCookie: c=d\r\n",
  "Authorization: a\r\nAuthorization: b\r\n",
  "Range: bytes=0-1\r\nRange: bytes=1-2\r\n",
  "If-Modified-Since: a\r\nIf-Modified-Since: b\r\n",
  "Connection: close, keep-alive\r\n",
  "Connection: X-A\r\nX-A: 1\r\n",
  "Connection: Host\r\n",
  "Connection: upgrade\r\nUpgrade: websocket\r\n",
  "Connection: close\r\nConnection: keep-alive\r\n",
  "Upgrade: h2c\r\n",
  "HTTP2-Settings: AAMAAABkAAQAAP__\r\n",
  "Expect: 100-continue\r\n",
  "Trailer: X-A\r\n",
  "Proxy-Connection: keep-alive\r\n",
  "Transfer-Encoding: chunked\r\n",
  "Transfer-Encoding: identity\r\n",
  "Transfer-Encoding:\r\n",
  "Content-Length: 5\r\n",
  `X-A: ${"x".repeat(20_000)}\r\n`,
  "X-A: 1\r\n".repeat(150),
];

const HOSTS = [
  "",
  "Host:\r\n",
  "Host: \r\n",
  "Host: a@b.example\r\n",
  "Host: a.example/b\r\n",
  "Host: a..b\r\n",
  "Host: .a.example\r\n",
  "Host: a.example.\r\n",
  "Host: a.example:\r\n",
  "Host: a.example:80:90\r\n",
  "Host: a.example:8x\r\n",
  "Host: a.example b.example\r\n",
  "Host: a.example, b.example\r\n",
  "Host: [::1]\r\n",
  "Host: [::1\r\n",
  "Host: a_b.example\r\n",
  "Host: a.example#b\r\n",
  "Host: a.example?b\r\n",
  "Host: a\\b.example\r\n",
  "Host: %61.example\r\n",
  `Host: ${"a".repeat(300)}\r\n`,
];

const LENGTHS = [
  "+5",
  "-5",
  "5,5",
  "5, 5",
  "5 5",
  "0x5",
  "05",
  "5.0",
  "5e0",
  "",
  "9007199254740993",
  "18446744073709551621",
  "5;",
  "'5'",
].map((value) => post(`Content-Length: ${value}\r\n`, "hello"));

const CHUNKED = "5\r\nhello\r\n0\r\n\r\n";
const CODINGS = [
  "chunked",
  "Chunked",
  "chunked ",
  "\tchunked",
  "\u000bchunked",
  "xchunked",
  "chunked, chunked",
  "gzip, chunked",
  "chunked, identity",
  "chunked;q=1",
  '"chunked"',
  "identity, chunked",
].map((value) => post(`Transfer-Encoding: ${value}\r\n`, CHUNKED));

const FRAMINGS = [
  post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
  post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"),
  post("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", CHUNKED),
  post("Transfer-Encoding: chunked\r\nContent-Length: 15\r\n", CHUNKED),
  post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", CHUNKED),
  post("Transfer-Encoding : chunked\r\n", CHUNKED),
  post("Transfer_Encoding: chunked\r\n", CHUNKED),
  post("Transfer-Encoding:\r\n chunked\r\n", CHUNKED),
  post("X: a\nTransfer-Encoding: chunked\r\n", CHUNKED),
  post("Content-Length : 5\r\n", "hello"),
  post("Content_Length: 5\r\n", "hello"),
  post("Content-Length: 5\n", "hello"),
  get(`${HOST}Content-Length: 5\r\n`).concat("hello"),
  get(`${HOST}Transfer-Encoding: chunked\r\n`).concat(CHUNKED),
  "GET / HTTP/1.1\nHost: a.example\n\n",
  "GET / HTTP/1.1\r\nHost: a.example\r\n\n",
  "GET / HTTP/1.1\r\nHost: a.example\n\r\n",
  "GET / HTTP/1.1\rHost: a.example\r\r",
  "GET / HTTP/1.1\r\nHost: a.example\r\n\r",
  "\u0016\u0003\u0001\u0002\u0000\u0001",
  "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
];

export const HOSTILE: readonly Case[] = [
  ...PLACES.flatMap((place, i) => list(`byte in place ${i}`, BYTES.map(place))),
  ...list(
    "target",
    TARGETS.map((target) => get(HOST, target)),
  ),
  ...list(
    "start line",
    START_LINES.map((line) => `${line}\r\n${HOST}\r\n`),
  ),
  ...list(
    "header",
    HEADER_LINES.map((lines) => get(`${HOST}${lines}`)),
  ),
  ...list(
    "header before Host",
    HEADER_LINES.map((lines) => get(`${lines}${HOST}`)),
  ),
  ...list(
    "Host",
    HOSTS.map((line) => get(line)),
  ),
  ...list("framing", [...LENGTHS, ...CODINGS, ...FRAMINGS]),
];
