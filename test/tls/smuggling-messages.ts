/**
 * Requests by which two servers have been made to see different ones (RFC 9112 §11.2, and what was published since),
 * each whole, with a second request where one of the two would see it. What the edge is to do with each is said.
 */

export interface Smuggling {
  readonly name: string;
  /** The first request; `inner` is the one that must not be taken for a request of its own. Latin-1. */
  readonly text: (at: SmugglingPlace) => string;
  /**
   * refused: 400 or the like, and the upstream untouched. cut: the fault is in a body that is under way, so that the
   * upstream has its head, and never its end. once: one request, and what is behind it is judged anew.
   */
  readonly outcome: "refused" | "cut" | "once";
}

export interface SmugglingPlace {
  readonly host: string;
  /** Of the first request; it is admitted by the clearance in `lines`. */
  readonly path: string;
  /** Host and Cookie. */
  readonly lines: string;
  /** A whole request without a clearance. */
  readonly inner: string;
}

const post = ({ lines, path }: SmugglingPlace, more: string, body: string): string =>
  `POST ${path} HTTP/1.1\r\n${lines}${more}\r\n${body}`;
const get = ({ lines, path }: SmugglingPlace, more = ""): string =>
  `GET ${path} HTTP/1.1\r\n${lines}${more}\r\n`;

const TE = "Transfer-Encoding: chunked\r\n";
const END = "0\r\n\r\n";
const chunk = (data: string): string => `${data.length.toString(16)}\r\n${data}\r\n`;

/** Framing headers before a body that ends at once for a reader of chunks, and holds a request for one of lengths. */
const both = (lines: (length: number) => string) => (at: SmugglingPlace) => {
  const body = `${END}${at.inner}`;
  return post(at, lines(body.length), body);
};
/** The same, of readers that agree on chunks or on nothing. */
const framed = (lines: string) => (at: SmugglingPlace) => post(at, lines, `${END}${at.inner}`);
/** One chunk, and all of `inner` behind the last one. */
const chunked = (data: string) => (at: SmugglingPlace) => post(at, TE, `${data}${at.inner}`);
const header = (line: string) => (at: SmugglingPlace) => get(at, line) + at.inner;

function refused(name: string, text: Smuggling["text"]): Smuggling {
  return { name, text, outcome: "refused" };
}
function cut(name: string, text: Smuggling["text"]): Smuggling {
  return { name, text, outcome: "cut" };
}
function once(name: string, text: Smuggling["text"]): Smuggling {
  return { name, text, outcome: "once" };
}

export const SMUGGLING: readonly Smuggling[] = [
  refused(
    "CL.TE",
    both((length) => `Content-Length: ${length}\r\n${TE}`),
  ),
  refused(
    "TE.CL",
    both((length) => `${TE}Content-Length: ${length}\r\n`),
  ),
  refused("TE.CL, with the length of the first chunk's line", (at) => {
    return post(at, `${TE}Content-Length: 4\r\n`, chunk(at.inner) + END);
  }),
  refused(
    "CL.CL, two lengths",
    both((n) => `Content-Length: 0\r\nContent-Length: ${n}\r\n`),
  ),
  refused(
    "CL.CL, twice the same",
    both((n) => `Content-Length: ${n}\r\nContent-Length: ${n}\r\n`),
  ),
  refused(
    "CL as a list",
    both((n) => `Content-Length: 0, ${n}\r\n`),
  ),
  refused(
    "CL with a sign",
    both((n) => `Content-Length: +${n}\r\n`),
  ),
  refused(
    "CL in hexadecimal",
    both((n) => `Content-Length: 0x${n.toString(16)}\r\n`),
  ),
  refused(
    "CL with white space before its colon",
    both((n) => `Content-Length : ${n}\r\n`),
  ),
  refused(
    "CL and TE with an underscore",
    both((n) => `Content-Length: ${n}\r\nTransfer_Encoding: chunked\r\n`),
  ),
  refused(
    "CL with a vertical tab",
    both((n) => `Content-Length: \u000b${n}\r\n`),
  ),
  refused("TE.TE, identity behind chunked", framed(`${TE}Transfer-Encoding: identity\r\n`)),
  refused("TE.TE, chunked behind identity", framed(`Transfer-Encoding: identity\r\n${TE}`)),
  refused("TE.TE, a word that is none", framed(`${TE}Transfer-encoding: cow\r\n`)),
  refused("TE: xchunked", framed("Transfer-Encoding: xchunked\r\n")),
  refused("TE: chunked, chunked", framed("Transfer-Encoding: chunked, chunked\r\n")),
  refused("TE: gzip, chunked", framed("Transfer-Encoding: gzip, chunked\r\n")),
  refused("TE: chunked with a quote", framed('Transfer-Encoding: "chunked"\r\n')),
  refused("TE with a vertical tab", framed("Transfer-Encoding:\u000bchunked\r\n")),
  refused("TE with white space before its colon", framed("Transfer-Encoding : chunked\r\n")),
  refused("TE folded", framed("Transfer-Encoding:\r\n chunked\r\n")),
  refused("TE behind a bare LF", framed("X-A: b\nTransfer-Encoding: chunked\r\n")),
  refused("TE behind a bare CR", framed("X-A: b\rTransfer-Encoding: chunked\r\n")),
  refused("TE with a NUL", framed("Transfer-Encoding: chunked\u0000\r\n")),
  refused("TE in HTTP/1.0", (at) => framed(TE)(at).replace("HTTP/1.1", "HTTP/1.0")),

  refused("bare LF everywhere", (at) => get(at).replaceAll("\r\n", "\n") + at.inner),
  refused("bare LF behind the request line", (at) => get(at).replace("\r\n", "\n") + at.inner),
  refused("bare LF at the end of the head", (at) => `${get(at).slice(0, -2)}\n${at.inner}`),
  refused("bare CR everywhere", (at) => get(at).replaceAll("\r\n", "\r") + at.inner),
  refused("a request in a value behind bare CRs", (at) => {
    return get(at, `X-A: b\r\r${at.inner.replaceAll("\r\n", "\r")}\r\n`);
  }),
  refused("a line that is folded", header("X-A: b\r\n c: d\r\n")),
  refused(
    "a first line that is folded",
    (at) => get(at).replace("\r\n", "\r\n X: y\r\n") + at.inner,
  ),
  refused("a line without a colon", header("X-A\r\n")),
  refused("a line without a name", header(": b\r\n")),
  refused("a NUL in a value", header("X-A: b\u0000c\r\n")),
  refused("HTTP/0.9 before another", (at) => `GET ${at.path}\r\n${at.lines}\r\n${at.inner}`),
  refused(
    "a version with more digits",
    (at) => get(at).replace("HTTP/1.1", "HTTP/1.10") + at.inner,
  ),
  once("two spaces in the request line", (at) => get(at).replace(" HTTP", "  HTTP") + at.inner),
  refused("the preface of HTTP/2", (at) => `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n${at.inner}`),

  refused("two Hosts", header("Host: evil.example\r\n")),
  refused("the same Host twice", (at) => get(at, `Host: ${at.host}\r\n`) + at.inner),
  refused(
    "another Host in front",
    (at) => get({ ...at, lines: `Host: evil.example\r\n${at.lines}` }) + at.inner,
  ),
  refused(
    "absolute form with another host",
    (at) => get({ ...at, path: `https://evil.example${at.path}` }) + at.inner,
  ),
  refused(
    "absolute form with this host",
    (at) => get({ ...at, path: `https://${at.host}${at.path}` }) + at.inner,
  ),
  refused("a target with a fragment", (at) => get({ ...at, path: `${at.path}#x` }) + at.inner),
  refused("a target with a backslash", (at) => get({ ...at, path: `${at.path}\\x` }) + at.inner),
  refused("CONNECT", (at) => get(at).replace("GET", "CONNECT") + at.inner),
  refused("TRACE", (at) => get(at).replace("GET", "TRACE") + at.inner),

  refused("a chunk size with a sign", chunked(`+0\r\n\r\n`)),
  refused("a chunk size in 0x", chunked(`0x0\r\n\r\n`)),
  refused("a chunk size with white space in front", chunked(` 0\r\n\r\n`)),
  refused("a chunk size that overflows 64 bits", chunked(`10000000000000000\r\nx\r\n${END}`)),
  refused("a chunk size that is negative", chunked(`-1\r\nx\r\n${END}`)),
  refused("a chunk size behind a bare LF", chunked(`1\nx\r\n${END}`)),
  refused("a chunk size behind a bare CR", chunked(`1\rx\r\n${END}`)),
  refused("an extension with a bare LF", chunked(`1;a\nb\r\nx\r\n${END}`)),
  refused("an extension with a bare CR", chunked(`1;a\rb\r\nx\r\n${END}`)),
  cut("data that is longer than its chunk", chunked(`1\r\nxy\r\n${END}`)),
  cut("data that ends in a bare LF", chunked(`1\r\nx\n${END}`)),
  cut("data that ends in two other bytes", chunked(`1\r\nxab${END}`)),
  refused("trailers that end in a bare LF", chunked(`0\r\nX-A: b\n\n`)),

  once("a length, and a request as the body", (at) =>
    post(at, `Content-Length: ${at.inner.length}\r\n`, at.inner),
  ),
  once(
    "a GET with a request as its body",
    (at) => get(at, `Content-Length: ${at.inner.length}\r\n`) + at.inner,
  ),
  once("chunks with a request in one", (at) => post(at, TE, chunk(at.inner) + END)),
  once("a request behind another", (at) => get(at) + at.inner),
  once("a request behind a body", (at) => post(at, "Content-Length: 1\r\n", `x${at.inner}`)),
  once("a request behind chunks", chunked(chunk("x") + END)),
  once("an extension of a chunk", chunked(`1;a=b\r\nx\r\n${END}`)),
  once("leading zeros of a chunk size", chunked(`0001\r\nx\r\n${END}`)),
  refused(
    "trailers that are not for the application",
    chunked(`0\r\nStile-Admission: forged\r\nContent-Length: 9\r\n\r\n`),
  ),
  refused("the length among the connection's own", (at) => {
    return post(
      at,
      `Connection: Content-Length\r\nContent-Length: ${at.inner.length}\r\n`,
      at.inner,
    );
  }),
  refused("the coding among the connection's own", (at) => {
    return post(at, `Connection: Transfer-Encoding\r\n${TE}`, chunk(at.inner) + END);
  }),
  once("an encoded request in the target", (at) => {
    return get({ ...at, path: `${at.path}?%20HTTP/1.1%0d%0aX:%20y%0d%0a%0d%0aGET%20/` }) + at.inner;
  }),
  refused(
    "h2c",
    header("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"),
  ),

  once("an admission of its own", header("Stile-Admission: forged\r\nSTILE-ADMISSION: forged\r\n")),
  refused("an admission of its own, with an underscore", header("Stile_Admission: forged\r\n")),
  refused("an admission among the connection's own", header("Connection: Stile-Admission\r\n")),
  once(
    "an address of its own",
    header("X-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.1\r\n"),
  ),
];
