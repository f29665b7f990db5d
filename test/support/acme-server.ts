/**
 * An ACME server that answers what a test tells it to, true or hostile. By itself it finds every name proved and gives
 * out a certificate that it was made with, for whichever key that is.
 */
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import type { TestCertificates } from "./tls-edge.ts";

export interface ScriptedAnswer {
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** An object as JSON. */
  readonly body?: object | string;
}

/** By path: an answer, or what makes it of how often the path was asked before. */
export type Script = Readonly<Record<string, ScriptedAnswer | ((asked: number) => ScriptedAnswer)>>;

export interface AcmeServer {
  readonly origin: string;
  /** Paths that were asked for, in order. */
  readonly asked: string[];
  /** What was last posted to a path, out of its JWS. */
  readonly payloads: Readonly<Record<string, unknown>>;
  /** Replaces what it does by itself. */
  readonly script: (script: Script) => void;
  readonly close: () => Promise<void>;
}

/** What a server of good will answers. Test scripts change some of it. */
function goodWill(origin: string, certificate: string): Script {
  const at = (path: string): string => `${origin}${path}`;
  const order = (status: string): object => ({
    status,
    authorizations: [at("/authorization")],
    finalize: at("/finalize"),
    certificate: at("/certificate"),
  });
  return {
    "/directory": {
      body: { newNonce: at("/nonce"), newAccount: at("/account"), newOrder: at("/new-order") },
    },
    "/nonce": {},
    "/account": { status: 201, headers: { location: at("/account/1") }, body: {} },
    "/new-order": { status: 201, headers: { location: at("/order") }, body: order("pending") },
    "/authorization": { body: { status: "valid" } },
    "/challenge": { body: { status: "processing" } },
    "/order": (asked) => ({ body: order(asked === 0 ? "ready" : "valid") }),
    "/finalize": { body: order("processing") },
    "/certificate": { body: certificate },
  };
}

export async function startAcmeServer(files: TestCertificates): Promise<AcmeServer> {
  const [cert, key] = [files.certificateFile, files.keyFile].map((file) => readFileSync(file));
  const asked: string[] = [];
  let script: Script = {};
  const payloads: Record<string, unknown> = {};
  let nonces = 0;
  const server = createServer({ cert, key }, (request, response) => {
    const path = request.url ?? "";
    const answer = script[path] ?? { status: 404 };
    const before = asked.filter((other) => other === path).length;
    asked.push(path);
    const {
      status = 200,
      headers = {},
      body = "",
    } = typeof answer === "function" ? answer(before) : answer;
    const parts: Buffer[] = [];
    request.on("data", (part: Buffer) => parts.push(part));
    request.once("end", () => {
      if (parts.length > 0) payloads[path] = payloadIn(Buffer.concat(parts).toString());
      // With the directory, none has to come.
      const nonce = path === "/directory" ? {} : { "replay-nonce": `nonce-${(nonces += 1)}` };
      response.writeHead(status, { ...nonce, ...headers });
      response.end(typeof body === "string" ? body : JSON.stringify(body));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
  const origin = `https://localhost:${(server.address() as AddressInfo).port}`;
  const own = goodWill(origin, String(cert));
  script = own;
  return {
    origin,
    asked,
    payloads,
    script: (changes) => {
      asked.length = 0;
      script = { ...own, ...changes };
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function payloadIn(jws: string): unknown {
  const { payload } = JSON.parse(jws) as { payload: string };
  return payload === "" ? "" : JSON.parse(Buffer.from(payload, "base64url").toString());
}
