/** IMA logs: real ones, built ones in both forms, and every way in which one is refused. */
import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { type ImaLogCheck, parseImaLog, verifyImaLog } from "../../../attest/ima/index.ts";
import type { PcrValue } from "../../../attest/index.ts";
import { createNodeAttestCrypto } from "../../../attest/node/index.ts";
import { codeOf } from "../../support/reject.ts";
import { readShared, sharedMissing } from "../../support/shared.ts";

const crypto = createNodeAttestCrypto();
const hash = (name: string, ...parts: Uint8Array[]): Buffer =>
  createHash(name).update(Buffer.concat(parts)).digest();

describe.skipIf(sharedMissing)("lists of keylime", () => {
  const load = (name: string): Uint8Array => readShared(`corpora/ima/ima-log-${name}`);

  it.each(["sha1", "sha256", "sha384", "sha512", "sm3_256"])("reads files hashed by %s", (name) => {
    const entries = parseImaLog(load(name), "ascii");
    expect(entries).toHaveLength(2);
    expect(entries.map(({ fileHash }) => fileHash)).toEqual([name, name]);
    expect(entries.map(({ path }) => path)).toEqual(["boot_aggregate", "/data"]);
  });

  it.each(["sha1", "sha256", "sha384", "sha512"])(
    "E11: recomputes the template hash of files hashed by %s",
    (name) => {
      const entry = parseImaLog(load(name), "ascii")[1]!;
      expect(hash("sha1", entry.templateData)).toEqual(Buffer.from(entry.templateHash));
    },
  );

  it("E11: refuses a hash that it does not know", () => {
    expect(codeOf(() => parseImaLog(load("unknown"), "ascii"))).toBe("ATTEST_EVENT_LOG_INVALID");
  });
});

const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};
const vec = (...parts: Uint8Array[]): Buffer => {
  const bytes = Buffer.concat(parts);
  return Buffer.concat([u32(bytes.length), bytes]);
};

interface Entry {
  readonly template: "ima" | "ima-ng" | "ima-sig" | "ima-buf";
  readonly path: string;
  readonly digest: Buffer;
  readonly signature?: Buffer;
  readonly buffer?: Buffer;
  readonly violation?: boolean;
}

function templateData({ template, path, digest, signature, buffer }: Entry): Buffer {
  if (template === "ima") return Buffer.concat([digest, Buffer.from(path.padEnd(256, "\0"))]);
  const fields = [vec(Buffer.from("sha256:\0"), digest), vec(Buffer.from(`${path}\0`))];
  if (template === "ima-sig") fields.push(vec(signature ?? Buffer.alloc(0)));
  if (template === "ima-buf") fields.push(vec(buffer ?? Buffer.alloc(0)));
  return Buffer.concat(fields);
}
const templateHash = (entry: Entry): Buffer =>
  entry.violation === true ? Buffer.alloc(20) : hash("sha1", templateData(entry));

function binary(entries: readonly Entry[]): Uint8Array {
  const parts = entries.map((entry) => {
    const { digest, path, template } = entry;
    const head = [u32(10), templateHash(entry), vec(Buffer.from(template))];
    const data = template === "ima" ? [digest, vec(Buffer.from(path))] : [vec(templateData(entry))];
    return Buffer.concat([...head, ...data]);
  });
  return new Uint8Array(Buffer.concat(parts));
}

function ascii(entries: readonly Entry[]): Uint8Array {
  const lines = entries.map((entry) => {
    const digest = `${entry.template === "ima" ? "" : "sha256:"}${entry.digest.toString("hex")}`;
    const last = entry.template === "ima-buf" ? entry.buffer : entry.signature;
    const hasLast = entry.template === "ima-sig" || entry.template === "ima-buf";
    const signature = hasLast ? ` ${last?.toString("hex") ?? ""}` : "";
    const hashText = templateHash(entry).toString("hex");
    return `10 ${hashText} ${entry.template} ${digest} ${entry.path}${signature}\n`;
  });
  return new Uint8Array(Buffer.from(lines.join("")));
}

const firmware: PcrValue[] = Array.from({ length: 10 }, (_, pcr) => ({
  hash: "sha256",
  pcr,
  value: new Uint8Array(hash("sha256", Buffer.from(`PCR ${pcr}`))),
}));
const aggregate = (count: number): Buffer =>
  hash("sha256", ...firmware.slice(0, count).map(({ value }) => value));

/** PCR 10 of the SHA-256 bank after these entries. */
function pcr10(entries: readonly Entry[], padded = false): PcrValue {
  let value: Buffer = Buffer.alloc(32);
  for (const entry of entries) {
    let digest = hash("sha256", templateData(entry));
    if (padded) digest = Buffer.concat([hash("sha1", templateData(entry)), Buffer.alloc(12)]);
    if (entry.violation === true) digest = Buffer.alloc(32, 0xff);
    value = hash("sha256", value, digest);
  }
  return { hash: "sha256", pcr: 10, value: new Uint8Array(value) };
}

const entries: Entry[] = [
  { template: "ima-ng", path: "boot_aggregate", digest: aggregate(10) },
  { template: "ima-ng", path: "/usr/bin/a program", digest: hash("sha256", Buffer.from("a")) },
  {
    template: "ima-sig",
    path: "/usr/bin/signed",
    digest: hash("sha256", Buffer.from("b")),
    signature: Buffer.from("030204aabbccdd", "hex"),
  },
  { template: "ima-sig", path: "/usr/bin/unsigned", digest: hash("sha256", Buffer.from("c")) },
  {
    template: "ima-buf",
    path: "kexec-cmdline",
    digest: hash("sha256", Buffer.from("quiet")),
    buffer: Buffer.from("quiet"),
  },
  { template: "ima", path: "/old", digest: hash("sha1", Buffer.from("d")) },
  { template: "ima-ng", path: "/changing", digest: Buffer.alloc(32), violation: true },
];

const check = (change: Partial<ImaLogCheck> = {}): ImaLogCheck => ({
  log: binary(entries),
  form: "binary",
  quote: { kind: "verified-quote", pcrValues: [...firmware, pcr10(entries)] },
  crypto,
  ...change,
});
const quoteOf = (...values: PcrValue[]): ImaLogCheck["quote"] => ({
  kind: "verified-quote",
  pcrValues: values,
});

describe("a log", () => {
  it.each(["binary", "ascii"] as const)("verifies in its %s form", (form) => {
    const log = form === "binary" ? binary(entries) : ascii(entries);
    const verified = verifyImaLog(check({ log, form }));
    expect(verified).toMatchObject({ later: 0, extension: "bank", bootAggregate: "matches" });
    expect(verified.entries.map(({ path }) => path)).toEqual(entries.map(({ path }) => path));
    expect(verified.violations.map(({ path }) => path)).toEqual(["/changing"]);
    expect(verified.entries[2]?.signature).toEqual(
      new Uint8Array([3, 2, 4, 0xaa, 0xbb, 0xcc, 0xdd]),
    );
    expect(verified.entries[3]?.signature).toBeUndefined();
    expect(Buffer.from(verified.entries[4]!.buffer!).toString()).toBe("quiet");
  });

  it("E11: may have grown since the quote; what is later is left out", () => {
    for (let count = 0; count <= entries.length; count += 1) {
      const quote = quoteOf(pcr10(entries.slice(0, count)));
      const verified = verifyImaLog(check({ quote }));
      expect(verified.entries).toHaveLength(count);
      expect(verified.later).toBe(entries.length - count);
    }
  });

  it("E11: may be of a kernel that pads SHA-1 into the other banks", () => {
    const verified = verifyImaLog(check({ quote: quoteOf(pcr10(entries, true)) }));
    expect(verified.extension).toBe("padded-sha1");
    expect(verified.bootAggregate).toBe("unknown");
  });

  it("E11: is of this boot by PCRs 0 to 9, or 0 to 7", () => {
    const withAggregate = (digest: Buffer): string => {
      const other = [{ ...entries[0]!, digest }, ...entries.slice(1)];
      const quote = quoteOf(...firmware, pcr10(other));
      return verifyImaLog(check({ log: binary(other), quote })).bootAggregate;
    };
    expect(withAggregate(aggregate(8))).toBe("matches");
    expect(withAggregate(aggregate(9))).toBe("differs");
    const without = entries.slice(1);
    const quote = quoteOf(...firmware, pcr10(without));
    expect(verifyImaLog(check({ log: binary(without), quote })).bootAggregate).toBe("differs");
  });
});

describe("refusals", () => {
  const refusal = (change: Partial<ImaLogCheck>): string =>
    codeOf(() => verifyImaLog(check(change)));

  it("E11: refuses a log with an entry less, more, changed or in another order", () => {
    const [first, second, ...rest] = entries as [Entry, Entry, ...Entry[]];
    for (const other of [
      [second, ...rest],
      [second, first, ...rest],
      [first, { ...second, path: "/usr/bin/another" }, ...rest],
      [first, { ...second, digest: Buffer.alloc(32, 1) }, ...rest],
      [first, second, second, ...rest],
      [first, { ...second, violation: true }, ...rest],
    ]) {
      expect(refusal({ log: binary(other) })).toBe("ATTEST_EVENT_LOG_MISMATCH");
    }
  });

  it("E11: refuses a template hash that is not of its entry, and an entry of another PCR", () => {
    const wrong = binary(entries);
    wrong[4] = (wrong[4] ?? 0) ^ 1;
    expect(refusal({ log: wrong })).toBe("ATTEST_EVENT_LOG_MISMATCH");
    const other = binary(entries);
    other[0] = 11;
    expect(refusal({ log: other })).toBe("ATTEST_EVENT_LOG_MISMATCH");
  });

  it("E11: refuses a quote without PCR 10, and banks that do not agree", () => {
    expect(refusal({ quote: quoteOf(...firmware) })).toBe("ATTEST_EVENT_LOG_MISMATCH");
    const sha1 = { hash: "sha1", pcr: 10, value: new Uint8Array(20).fill(1) } as const;
    expect(refusal({ quote: quoteOf(pcr10(entries), sha1) })).toBe("ATTEST_EVENT_LOG_MISMATCH");
  });

  it.each([
    ["no end of the last line", "10 00"],
    ["another template", `10 ${"0".repeat(40)} ima-modsig sha256:00 x\n`],
    [
      "a buffer that is not hexadecimal",
      `10 ${"0".repeat(40)} ima-buf sha1:${"0".repeat(40)} a b\n`,
    ],
    ["no buffer", `10 ${"0".repeat(40)} ima-buf sha1:${"0".repeat(40)} ab\n`],
    ["a digest of another size", `10 ${"0".repeat(40)} ima-ng sha256:00 x\n`],
    ["a PCR that does not exist", `99 ${"0".repeat(40)} ima ${"0".repeat(40)} x\n`],
    ["no path", `10 ${"0".repeat(40)} ima ${"0".repeat(40)} \n`],
    ["an empty line", "\n"],
    ["bytes that are no UTF-8", Buffer.from([0xff, 0x0a])],
  ])("refuses %s", (_name, text) => {
    const log = new Uint8Array(Buffer.from(text));
    expect(codeOf(() => parseImaLog(log, "ascii"))).toBe("ATTEST_EVENT_LOG_INVALID");
  });

  it("G3: refuses a binary log cut anywhere, or with bytes changed, by our errors only", () => {
    // The entry of a violation is extended as all ones: nothing covers what it says.
    const sound = entries.filter(({ violation }) => violation !== true);
    const quote = quoteOf(pcr10(sound));
    const log = binary(sound);
    expect(verifyImaLog(check({ log, quote })).entries).toHaveLength(sound.length);
    for (let length = 1; length < log.length; length += 1) {
      const code = codeOf(() => parseImaLog(log.subarray(0, length), "binary"));
      expect(code).not.toContain("not a StileError");
    }
    for (let at = 0; at < log.length; at += 1) {
      const changed = Uint8Array.from(log, (byte, index) => (index === at ? byte ^ 0x81 : byte));
      const code = codeOf(() => verifyImaLog(check({ log: changed, quote })));
      expect(code, `byte ${at}`).toMatch(/^(ATTEST|WIRE)_/);
    }
  });
});
