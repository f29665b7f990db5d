/** Session tickets over changing keys, renewed certificates and several processes; openssl's client resumes. */
import { execFile } from "node:child_process";
import { chmodSync, copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { createTicketKeys, type TicketKeySource } from "../../tls/index.ts";
import { type IssuedFiles, type OpensslCa, opensslCa } from "../support/openssl-ca.ts";
import { codeOf } from "../support/reject.ts";
import { startEdge, type TestEdge } from "../support/tls-edge.ts";
import { waitFor } from "../support/wait-for.ts";

const HOUR_MS = 3_600_000;
/** In units of 12 hours since 1970. */
const PERIOD = 41_667;
let ca: OpensslCa;
let dir: string;
let one: IssuedFiles;
let two: IssuedFiles;
const closers: (() => Promise<void> | void)[] = [];

beforeAll(() => {
  ca = opensslCa();
  dir = mkdtempSync(join(tmpdir(), "stile-tickets-"));
  one = ca.issue({ name: "one", subjectAltName: "DNS:one.example" });
  two = ca.issue({ name: "two", subjectAltName: "DNS:two.example" });
});
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});
afterAll(() => {
  ca.remove();
  rmSync(dir, { recursive: true });
});

interface Keys {
  readonly source: TicketKeySource;
  readonly clock: { ms: number };
  readonly seen: string[];
}

function keys(file?: string, startMs = PERIOD * 12 * HOUR_MS): Keys {
  const clock = { ms: startMs };
  const seen: string[] = [];
  let drawn = 0;
  const source = createTicketKeys({
    seconds: 12 * 3_600,
    ...(file === undefined ? {} : { file }),
    pollMs: 3_600_000,
    clock: () => clock.ms,
    random: (length) => new Uint8Array(length).fill((drawn += 1)),
    observe: (event) => void seen.push(event),
  });
  closers.push(() => source.close());
  return { source, clock, seen };
}

async function start(ticketKeys: TicketKeySource, first = one): Promise<TestEdge> {
  const certificates = { dir, ca: ca.pem, ...first, further: [two], remove: () => undefined };
  const edge = await startEdge({ upstream: "http://127.0.0.1:9", certificates, ticketKeys });
  closers.push(edge.close);
  return edge;
}

/** `New` or `Reused`, as openssl says it, of a connection that also gets an HTTP answer. */
function connection(port: number, name: string, ...args: string[]): Promise<string> {
  const to = ["s_client", "-connect", `127.0.0.1:${port}`, "-CAfile", ca.caFile, "-ign_eof"];
  const sni = name === "" ? ["-noservername"] : ["-servername", name];
  return new Promise((resolve, reject) => {
    const child = execFile("openssl", [...to, ...sni, ...args], (_error, stdout) => {
      const kinds = [...stdout.matchAll(/^(New|Reused), TLSv1\.3/gm)].map((match) => match[1]);
      const [kind] = kinds;
      if (kind === undefined || !stdout.includes("HTTP/1.1 502")) reject(new Error(stdout));
      else resolve(kind);
    });
    // Tickets come behind the handshake: the answer, which there is none for upstream, is behind them.
    child.stdin?.end("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  });
}

const session = (name: string): string => join(dir, `${name}.session`);

describe("a ticket", () => {
  test("resumes under its key by every name, and no more when the key has changed", async () => {
    const { clock, seen, source } = keys();
    const { port } = await start(source);
    for (const name of ["one.example", "two.example", ""]) {
      const file = session(`name-${name}`);
      expect(await connection(port, name, "-sess_out", file)).toBe("New");
      expect(await connection(port, name, "-sess_in", file), name).toBe("Reused");
    }
    clock.ms += 12 * HOUR_MS;
    source.reload();
    expect(seen).toStrictEqual(["ticket-keys-changed"]);
    for (const name of ["one.example", "two.example", ""]) {
      // A full handshake, and an answer.
      expect(await connection(port, name, "-sess_in", session(`name-${name}`)), name).toBe("New");
    }
    expect(await connection(port, "two.example", "-sess_out", session("next"))).toBe("New");
    expect(await connection(port, "two.example", "-sess_in", session("next"))).toBe("Reused");
  });

  test("outlives the renewal of a certificate", async () => {
    const { source } = keys();
    const files = ca.issue({ name: "renewed", subjectAltName: "DNS:renewed.example" });
    const edge = await start(source, files);
    const file = session("renewal");
    expect(await connection(edge.port, "two.example", "-sess_out", file)).toBe("New");
    const next = ca.issue({ name: "renewed", subjectAltName: "DNS:renewed.example" });
    copyFileSync(next.keyFile, files.keyFile);
    copyFileSync(next.certificateFile, files.certificateFile);
    await waitFor(() => expect(edge.events).toContain("certificate-reloaded"));
    expect(await connection(edge.port, "two.example", "-sess_in", file)).toBe("Reused");
  });

  test("resumes at another process with the same file, in the same period", async () => {
    const file = join(dir, "shared");
    writeFileSync(file, Buffer.alloc(32, 7), { mode: 0o600 });
    const [here, there] = [keys(file), keys(file, PERIOD * 12 * HOUR_MS + HOUR_MS)];
    const [a, b] = [await start(here.source), await start(there.source)];
    expect(await connection(a.port, "two.example", "-sess_out", session("shared"))).toBe("New");
    const again = ["-sess_in", session("shared")] as const;
    expect(await connection(b.port, "two.example", ...again)).toBe("Reused");
    there.clock.ms += 12 * HOUR_MS;
    there.source.reload();
    expect(await connection(b.port, "two.example", ...again)).toBe("New");
    expect(await connection(a.port, "two.example", ...again)).toBe("Reused");
  });
});

describe("the keys", () => {
  test("are drawn anew in each period without a file, and change at no other time", () => {
    const { clock, seen, source } = keys();
    const first = Uint8Array.from(source.current());
    expect(first.length).toBe(48);
    clock.ms += 12 * HOUR_MS - 1;
    source.reload();
    expect(source.current()).toStrictEqual(first);
    clock.ms += 1;
    source.reload();
    expect(source.current()).toStrictEqual(new Uint8Array(48).fill(2));
    // A clock that goes back gets no old key back.
    clock.ms -= 12 * HOUR_MS;
    source.reload();
    expect(source.current()).toStrictEqual(new Uint8Array(48).fill(3));
    expect(seen).toStrictEqual(["ticket-keys-changed", "ticket-keys-changed"]);
  });

  test("of a file are HKDF of its content and the period, as openssl computes it", async () => {
    const file = join(dir, "kdf");
    writeFileSync(file, Buffer.alloc(40, 0x5a), { mode: 0o640 });
    const { source } = keys(file);
    const info = `stile ticket key 43200 ${PERIOD}`;
    const options = ["digest:SHA256", `hexkey:${"5a".repeat(40)}`, `info:${info}`];
    const args = options.flatMap((option) => ["-kdfopt", option]);
    const out = await new Promise<string>((resolve) => {
      execFile("openssl", ["kdf", "-keylen", "48", ...args, "HKDF"], (_e, stdout) =>
        resolve(stdout),
      );
    });
    const expected = out.trim().replaceAll(":", "").toLowerCase();
    expect(Buffer.from(source.current()).toString("hex")).toBe(expected);
  });

  test("follow the file, and stay through a broken one", () => {
    const file = join(dir, "changing");
    writeFileSync(file, Buffer.alloc(32, 1), { mode: 0o600 });
    const { clock, seen, source } = keys(file);
    const first = Uint8Array.from(source.current());
    writeFileSync(file, "short");
    source.reload();
    expect(source.current()).toStrictEqual(first);
    clock.ms += 12 * HOUR_MS;
    source.reload();
    expect(source.current()).not.toStrictEqual(first);
    writeFileSync(file, Buffer.alloc(32, 2));
    source.reload();
    const failed = "ticket-keys-failed";
    const changed = "ticket-keys-changed";
    expect(seen).toStrictEqual([failed, failed, changed, changed]);
  });

  test("rejects a file that is missing, short, long or open to everybody", () => {
    const file = join(dir, "bad");
    const code = (): string => codeOf(() => keys(file));
    expect(code()).toBe("TLS_TICKET_KEYS_INVALID");
    for (const length of [0, 31, 4_097]) {
      writeFileSync(file, Buffer.alloc(length), { mode: 0o600 });
      expect(code(), String(length)).toBe("TLS_TICKET_KEYS_INVALID");
    }
    writeFileSync(file, Buffer.alloc(32));
    expect(code()).toBe("nothing was thrown");
    chmodSync(file, 0o604);
    expect(code()).toBe("TLS_TICKET_KEYS_INVALID");
  });
});
