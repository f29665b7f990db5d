/**
 * The fast path's parser against Node's own and a real nginx: what either of them reads in another way, or
 * refuses, the fast path must not take. Behind each request comes a second one, so that a body or a head
 * that is read too far, or not far enough, shows.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parseRequestHead, type RequestHead } from "../../../tls/splice/request-head.ts";
import { HOSTILE, PLAIN } from "./hostile-heads.ts";
import { waitFor } from "../../support/wait-for.ts";

const LIMITS = { maxHeaderBytes: 16_384, maxHeaders: 100 };
const NGINX = "/usr/sbin/nginx";
const MARKER = "GET /marker HTTP/1.1\r\nHost: marker\r\nConnection: close\r\n\r\n";

/** One line for each request that was read: method, target, Host, X-A, Cookie, Content-Length. */
type Reading = readonly string[];

function lineOf(method: string, target: string, field: (name: string) => string): string {
  return [method, target, ...["host", "x-a", "cookie", "content-length"].map(field)].join("|");
}

/** Undefined where the fast path does not take all of it. */
function ourReading(text: string): Reading | undefined {
  let bytes = Buffer.from(text + MARKER, "latin1");
  const lines: string[] = [];
  while (bytes.length > 0) {
    const head = parseRequestHead(bytes, LIMITS);
    if (head.kind !== "head") return undefined;
    lines.push(lineOf(head.method, head.target, (name) => head.fields.get(name) ?? ""));
    bytes = bytes.subarray(head.length + (head.contentLength ?? 0));
  }
  return lines;
}

const nodeLines = new Map<number | undefined, string[]>();
let node: Server;
let nginx: ChildProcess | undefined;
let dir: string;

const nginxConfig = (folder: string): string => `
daemon off; master_process off; pid ${folder}/pid; error_log ${folder}/error.log crit;
events {}
http {
  access_log off;
  client_body_temp_path ${folder}/a; proxy_temp_path ${folder}/b; fastcgi_temp_path ${folder}/c;
  uwsgi_temp_path ${folder}/d; scgi_temp_path ${folder}/e;
  large_client_header_buffers 4 16k; client_header_timeout 2s;
  server {
    listen unix:${folder}/nginx.sock;
    location / {
      default_type text/plain;
      return 200 "@$request_method|$request_uri|$http_host|$http_x_a|$http_cookie|$content_length@";
    }
  }
}`;

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "stile-heads-"));
  node = createServer((request, response) => {
    const { headers, method = "", socket, url = "" } = request;
    const lines = nodeLines.get(socket.remotePort) ?? [];
    lines.push(lineOf(method, url, (name) => String(headers[name] ?? "")));
    nodeLines.set(socket.remotePort, lines);
    request.resume().once("end", () => response.end());
  });
  await new Promise<void>((resolve) => node.listen(0, "127.0.0.1", resolve));
  if (!existsSync(NGINX)) return;
  writeFileSync(join(dir, "nginx.conf"), nginxConfig(dir));
  nginx = spawn(NGINX, ["-c", join(dir, "nginx.conf"), "-p", dir], { stdio: "ignore" });
  await waitFor(() => expect(existsSync(join(dir, "nginx.sock"))).toBe(true));
});
afterAll(async () => {
  node.close();
  node.closeAllConnections();
  if (nginx !== undefined) {
    nginx.kill();
    await once(nginx, "exit");
  }
  rmSync(dir, { recursive: true });
});

/** Everything that comes back for a request and the marker behind it. */
async function send(
  text: string,
  to: { port: number } | { path: string },
): Promise<[string, number | undefined]> {
  const socket = connect(to);
  const chunks: Buffer[] = [];
  socket.on("data", (chunk) => chunks.push(Buffer.from(chunk)));
  socket.on("error", () => undefined);
  const closed = once(socket, "close");
  await once(socket, "connect");
  const { localPort } = socket;
  socket.end(Buffer.from(text + MARKER, "latin1"));
  await closed;
  return [Buffer.concat(chunks).toString("latin1"), localPort];
}

async function nodeReading(text: string): Promise<Reading> {
  const address = node.address();
  const port = typeof address === "object" ? (address?.port ?? 0) : 0;
  const [answer, localPort] = await send(text, { port });
  const lines = nodeLines.get(localPort) ?? [];
  nodeLines.delete(localPort);
  return answer.includes("HTTP/1.1 4") ? [...lines, "refused"] : lines;
}

async function nginxReading(text: string): Promise<Reading> {
  const [answer] = await send(text, { path: join(dir, "nginx.sock") });
  const answers = answer.split(/(?=HTTP\/1\.[01] [0-9]{3} )|(?=<html>)/);
  // An answer to HEAD has no body to say what was read.
  return answers.flatMap(
    (one) => /@(.*)@/.exec(one)?.[1] ?? (/^HTTP.* 200 /.test(one) ? "HEAD" : "refused"),
  );
}

const isSame = (ours: Reading, theirs: Reading): boolean =>
  ours.length === theirs.length &&
  ours.every((line, i) => line === theirs[i] || (theirs[i] === "HEAD" && line.startsWith("HEAD|")));

const all = [...PLAIN, ...HOSTILE];

describe("the parser of the fast path", () => {
  test("takes what clients send", () => {
    for (const { name, text } of PLAIN) expect(ourReading(text), name).toHaveLength(2);
  });

  test("reads nothing that Node reads otherwise, in over 300 requests", async () => {
    const taken = all.flatMap(({ name, text }) => {
      const ours = ourReading(text);
      return ours === undefined ? [] : [{ name, text, ours }];
    });
    for (const { name, ours, text } of taken) {
      expect(await nodeReading(text), name).toStrictEqual(ours);
    }
    expect(HOSTILE.length).toBeGreaterThan(300);
    // It could take some of the hostile ones, which all read alike; it does not have to.
    expect(taken).toHaveLength(PLAIN.length);
  });

  test.skipIf(!existsSync(NGINX))("reads nothing that nginx reads otherwise", async () => {
    let different = 0;
    const readings = await Promise.all(
      all.map(async (one) => ({
        ...one,
        theirs: await nginxReading(one.text),
        nodes: await nodeReading(one.text),
      })),
    );
    for (const { name, nodes, text, theirs } of readings) {
      const ours = ourReading(text);
      if (ours !== undefined) expect(isSame(ours, theirs), `${name}: ${theirs.join()}`).toBe(true);
      else if (!isSame(nodes, theirs)) different += 1;
    }
    // Otherwise the corpus would prove nothing.
    expect(different).toBeGreaterThan(50);
  });

  test("gives the same wherever its input is cut", () => {
    for (const { name, text } of all) {
      const bytes = Buffer.from(text, "latin1").subarray(0, 400);
      const whole = parseRequestHead(bytes, LIMITS);
      let isOther = false;
      for (let end = 0; end <= bytes.length; end += 1) {
        const { kind, ...rest } = parseRequestHead(bytes.subarray(0, end), LIMITS);
        // Once it has left, nothing that follows brings it back.
        if (isOther) expect(kind, name).not.toBe("head");
        isOther ||= kind === "other";
        if (kind !== "head") continue;
        expect(whole, name).toStrictEqual({ kind, ...rest });
        expect(end, name).toBeGreaterThanOrEqual((whole as RequestHead).length);
      }
      if (whole.kind === "other") expect(isOther, name).toBe(true);
    }
  });

  test("leaves a head above its limits, whole or not, to node:http", () => {
    const long = (bytes: number): Buffer =>
      Buffer.from(`GET / HTTP/1.1\r\nHost: a\r\nX-A: ${"x".repeat(bytes)}`);
    expect(parseRequestHead(long(16_000), LIMITS).kind).toBe("incomplete");
    expect(parseRequestHead(long(17_000), LIMITS).kind).toBe("other");
    const many = (count: number): Buffer => {
      const lines = Array.from({ length: count }, (_, i) => `X-${i}: 1\r\n`);
      return Buffer.from(`GET / HTTP/1.1\r\nHost: a\r\n${lines.join("")}\r\n`);
    };
    expect(parseRequestHead(many(99), LIMITS).kind).toBe("head");
    expect(parseRequestHead(many(100), LIMITS).kind).toBe("other");
  });
});
