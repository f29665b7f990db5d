/** The translation by itself: what nghttp2 would refuse before it is refused here as well. */
import { describe, expect, test } from "vitest";
import { translateHead } from "../../../tls/h2/request-head.ts";
import { codeOf } from "../../support/reject.ts";

type Fields = readonly (readonly [string, string])[];
const GET: Fields = [
  [":method", "GET"],
  [":scheme", "https"],
  [":authority", "a.example"],
  [":path", "/a"],
];
const CONNECT: Fields = [[":method", "CONNECT"], ...GET.slice(1), [":protocol", "websocket"]];
const translate = (fields: Fields, hasBody = false): ReturnType<typeof translateHead> =>
  translateHead(fields.flat(), hasBody, () => "key");

describe("a head of HTTP/2", () => {
  test("becomes one of HTTP/1.1", () => {
    const fields: Fields = [
      ...GET,
      ["cookie", "a=1"],
      ["accept", "x"],
      ["cookie", "b=2"],
      ["accept", "y"],
      ["te", "trailers"],
      ["user-agent", "first"],
      ["user-agent", "second"],
      ["__proto__", "x"],
    ];
    expect(translate(fields)).toMatchObject({
      method: "GET",
      url: "/a",
      isTunnel: false,
      rawHeaders: (
        "host,a.example,cookie,a=1; b=2,accept,x,accept,y," +
        "te,trailers,user-agent,first,user-agent,second,__proto__,x"
      ).split(","),
    });
    const { headers } = translate(fields);
    expect(headers).toMatchObject({ accept: "x, y", "user-agent": "first", cookie: "a=1; b=2" });
    expect(Object.getPrototypeOf(headers)).toBeNull();
  });

  test("says of a body without a length that it has none", () => {
    expect(translate(GET, true).headers).toHaveProperty("transfer-encoding", "chunked");
    expect(translate([...GET, ["content-length", "1"]], true).headers).not.toHaveProperty(
      "transfer-encoding",
    );
    expect(translate(GET).headers).not.toHaveProperty("transfer-encoding");
  });

  test("takes Host in the place of :authority, and beside it where they are one", () => {
    const without = GET.filter(([name]) => name !== ":authority");
    expect(translate([...without, ["host", "b.example"]]).headers.host).toBe("b.example");
    const both = translate([...GET, ["host", "A.example"]]).rawHeaders;
    expect(both.filter((name) => name === "host")).toHaveLength(1);
  });

  test("becomes a handshake where it is an extended CONNECT, with a key of ours or the client's", () => {
    expect(translate(CONNECT, true)).toMatchObject({
      method: "GET",
      isTunnel: true,
      headers: { connection: "Upgrade", upgrade: "websocket", "sec-websocket-key": "key" },
    });
    const own = translate([...CONNECT, ["sec-websocket-key", "own"]], true);
    expect(own.headers["sec-websocket-key"]).toBe("own");
  });

  test.each<readonly [string, Fields]>([
    ["another scheme", [[":scheme", "http"], ...GET.filter(([name]) => name !== ":scheme")]],
    [
      "plain CONNECT",
      [
        [":method", "CONNECT"],
        [":authority", "a.example"],
      ],
    ],
    ["CONNECT without a protocol", CONNECT.slice(0, -1)],
    ["another protocol", [...CONNECT.slice(0, -1), [":protocol", "connect-ip"]]],
    ["a protocol without CONNECT", [...GET, [":protocol", "websocket"]]],
    ["two hosts", [...GET, ["host", "b.example"]]],
    [
      "Host twice",
      [...GET.filter(([name]) => name !== ":authority"), ["host", "a"], ["host", "b"]],
    ],
    ["TE", [...GET, ["te", "gzip"]]],
    ...["connection", "http2-settings", "keep-alive", "proxy-connection", "transfer-encoding"].map(
      (name): [string, Fields] => [name, [...GET, [name, "x"]]],
    ),
    ["upgrade", [...GET, ["upgrade", "websocket"]]],
  ])("rejects %s", (_name, fields) => {
    expect(codeOf(() => translate(fields))).toBe("TLS_HEAD_REJECTED");
  });
});
