/** What an issuer can do wrong, one thing each, and the checks that have to find it. */
import { encodeUtf8 } from "../../wire/index.ts";
import type { Fault, ProxiedAnswer, ProxiedRequest } from "../support/fault-proxy.ts";

/** A name for people, the fault, the checks that are run, and those of them that must fail. */
export type NamedFault = readonly [
  name: string,
  fault: Fault,
  only: readonly string[],
  failing: readonly string[],
];

const isDirectory = ({ path }: ProxiedRequest): boolean => path.startsWith("/.well-known/");
const isIssuance = ({ method }: ProxiedRequest): boolean => method === "POST";

const onDirectory = (change: (answer: ProxiedAnswer, request: ProxiedRequest) => void): Fault => ({
  after: (answer, request) => {
    if (isDirectory(request)) change(answer, request);
  },
});
const onIssued = (change: (answer: ProxiedAnswer) => void): Fault => ({
  after: (answer, request) => {
    if (isIssuance(request) && answer.status === 200) change(answer);
  },
});

type Members = Record<string, unknown> & { "token-keys": Record<string, unknown>[] };

const rewritten = (change: (members: Members) => void): Fault =>
  onDirectory((answer) => {
    const members = JSON.parse(Buffer.from(answer.body).toString("utf8")) as Members;
    change(members);
    answer.body = encodeUtf8(JSON.stringify(members));
  });

const found = (name: string, fault: Fault, ...ids: readonly string[]): NamedFault => [
  name,
  fault,
  ids,
  ids,
];

/** What signs whatever it is given would say so with any bytes. */
const issuedAnyway = (answer: ProxiedAnswer): void => {
  answer.status = 200;
  answer.headers = { "content-type": "application/private-token-response" };
  answer.body = new Uint8Array(256).fill(1);
};

const lastByteFlipped = (answer: ProxiedAnswer): void => {
  const at = answer.body.length - 1;
  answer.body = answer.body.with(at, (answer.body[at] ?? 0) ^ 1);
};

export const DIRECTORY_FAULTS: readonly NamedFault[] = [
  found(
    "directory as application/json",
    onDirectory(({ headers }) => {
      headers["content-type"] = "application/json";
    }),
    "directory.media-type",
  ),
  found(
    "no directory at all",
    { before: () => ({ status: 404, headers: {}, body: new Uint8Array(0) }) },
    "directory.status",
  ),
  found(
    "directory without issuer-request-uri",
    rewritten((members) => delete members["issuer-request-uri"]),
    "directory.json",
    "directory.request-uri",
  ),
  found(
    "request endpoint in the clear",
    rewritten((members) => {
      members["issuer-request-uri"] = "http://localhost/token-request";
    }),
    "directory.request-uri",
  ),
  found(
    "request endpoint of another origin",
    rewritten((members) => {
      members["issuer-request-uri"] = "https://elsewhere.example/token-request";
    }),
    "directory.same-origin",
  ),
  found(
    "keys without padding",
    rewritten((members) => {
      for (const key of members["token-keys"]) {
        key["token-key"] = String(key["token-key"]).replaceAll("=", "");
      }
    }),
    "directory.padded-keys",
  ),
  found(
    "keys with the algorithm rsaEncryption",
    rewritten((members) => {
      const [key = {}] = members["token-keys"].filter((one) => one["token-type"] === 2);
      const spki = Buffer.from(String(key["token-key"]), "base64url");
      const [rsa, pss] = [Buffer.from("2a864886f70d010101", "hex"), spki.indexOf("\u002a")];
      rsa.copy(spki, pss);
      key["token-key"] = spki.toString("base64url");
    }),
    "directory.keys-parse",
  ),
  found(
    "a P-384 key that is not on the curve",
    rewritten((members) => {
      const [key = {}] = members["token-keys"].filter((one) => one["token-type"] === 1);
      key["token-key"] = `${Buffer.alloc(49, 0xff).toString("base64url")}==`;
    }),
    "directory.keys-parse",
  ),
  found(
    "not-before as text",
    rewritten((members) => {
      for (const key of members["token-keys"]) key["not-before"] = "1700000000";
    }),
    "directory.not-before",
  ),
  found(
    "token types as text",
    rewritten((members) => {
      for (const key of members["token-keys"]) key["token-type"] = "2";
    }),
    "directory.token-type",
  ),
  found(
    "only keys for later",
    rewritten((members) => {
      for (const key of members["token-keys"]) key["not-before"] = 9_999_999_999;
    }),
    "directory.usable-key",
  ),
  found(
    "two keys that end alike",
    rewritten((members) => members["token-keys"].push(...members["token-keys"].slice(0, 1))),
    "directory.truncated-ids",
  ),
];

export const CACHE_FAULTS: readonly NamedFault[] = [
  found(
    "another directory for each fetch",
    onDirectory((answer, { index }) => {
      answer.body = Uint8Array.from([...answer.body, ...encodeUtf8(" ".repeat(index))]);
    }),
    "directory.same-bytes",
  ),
  found(
    "a directory of one's own for each client",
    onDirectory((answer, { headers }) => {
      answer.body = encodeUtf8(
        Buffer.from(answer.body).toString("utf8") +
          " ".repeat((headers["user-agent"] ?? "").length),
      );
    }),
    "directory.same-bytes",
  ),
  found(
    "another ETag for each fetch",
    onDirectory(({ headers }, { index }) => {
      headers["etag"] = `"${index}"`;
    }),
    "directory.etag",
    "directory.not-modified",
  ),
  found(
    "a weak ETag",
    onDirectory(({ headers }) => {
      headers["etag"] = `W/${headers["etag"] ?? ""}`;
    }),
    "directory.etag",
  ),
  found(
    "If-None-Match passed over",
    {
      before: (request) => {
        delete request.headers["if-none-match"];
        return undefined;
      },
    },
    "directory.not-modified",
  ),
  found(
    "304 whatever the ETag",
    {
      before: ({ headers }) =>
        headers["if-none-match"] === undefined
          ? undefined
          : { status: 304, headers: {}, body: new Uint8Array(0) },
    },
    "directory.not-modified",
  ),
  found(
    "HEAD with other headers",
    onDirectory(({ headers }, { method }) => {
      if (method === "HEAD") headers["content-type"] = "text/html";
    }),
    "directory.head",
  ),
  found(
    "no Cache-Control",
    onDirectory(({ headers }) => delete headers["cache-control"]),
    "directory.cache-control",
  ),
];

export const ISSUANCE_FAULTS: readonly NamedFault[] = [
  found(
    "wrong signatures and proofs",
    onIssued(lastByteFlipped),
    "issuance.valid-type-2",
    "issuance.valid-type-1",
    "issuance.valid-type-5",
    "issuance.generic-batch",
    "issuance.amortized-batch-type-1",
    "issuance.amortized-batch-type-5",
  ),
  found(
    "a byte behind the response",
    onIssued((answer) => {
      answer.body = Uint8Array.from([...answer.body, 0]);
    }),
    "issuance.valid-type-2",
    "issuance.valid-type-1",
    "issuance.valid-type-5",
  ),
  found(
    "response of another media type",
    onIssued(({ headers }) => {
      headers["content-type"] = "application/octet-stream";
    }),
    "issuance.valid-type-2",
    "issuance.generic-batch",
  ),
  found(
    "200 for what cannot be issued",
    {
      after: (answer, request) => {
        if (isIssuance(request) && answer.status === 422) issuedAnyway(answer);
      },
    },
    "issuance.unknown-key",
    "issuance.unknown-type",
    "issuance.unusable-message",
    "issuance.message-range",
  ),
  found(
    "500 for what is no element, where blind RSA is strict",
    {
      after: (answer, { body, method }) => {
        if (method === "POST" && body.length === 52 && answer.status === 422) answer.status = 500;
      },
    },
    "issuance.unusable-message",
  ),
  found(
    "a byte before a request passed over",
    {
      before: (request) => {
        if (isIssuance(request) && request.body.length === 260) {
          request.body = request.body.subarray(1);
        }
        return undefined;
      },
    },
    "issuance.leading-byte",
  ),
  found(
    "400 for what is 422",
    {
      after: (answer, request) => {
        if (isIssuance(request) && answer.status === 422) answer.status = 400;
      },
    },
    "issuance.unknown-key",
  ),
  found(
    "trailing bytes accepted",
    {
      before: (request) => {
        if (isIssuance(request)) request.body = request.body.subarray(0, 259);
        return undefined;
      },
    },
    "issuance.trailing-byte",
  ),
  found(
    "500 for a truncated request",
    {
      after: (answer, { body, method }) => {
        if (method === "POST" && body.length < 259) answer.status = 500;
      },
    },
    "issuance.truncated",
  ),
  found(
    "any media type accepted",
    {
      before: (request) => {
        if (isIssuance(request))
          request.headers["content-type"] = "application/private-token-request";
        return undefined;
      },
    },
    "issuance.media-type",
  ),
  found(
    "GET answered at the request endpoint",
    {
      before: ({ method, path }) =>
        method === "GET" && path === "/token-request"
          ? { status: 200, headers: {}, body: new Uint8Array(0) }
          : undefined,
    },
    "issuance.get",
  ),
  found(
    "trailing bytes behind a batch accepted",
    {
      before: (request) => {
        const isBatch = request.headers["content-type"]?.includes("generic-batch") === true;
        // A varint of two bytes, then two requests.
        if (isBatch) request.body = request.body.subarray(0, 2 + 2 * 259);
        return undefined;
      },
    },
    "issuance.generic-batch-malformed",
  ),
];
