/** Where certificates and pending challenges lie: file names that hold for every DNS name, and across upgrades. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { createPendingChallenges } from "../../service/acme/challenges.ts";
import {
  challengeCertificates,
  pendingFile,
  pendingFolder,
  wantedCertificates,
} from "../../service/acme/files.ts";
import type { AcmeConfig } from "../../service/config/index.ts";
import { makeFolderDurably, replaceFileDurably } from "../../service/stores/durable-file.ts";

const stateDir = mkdtempSync(join(tmpdir(), "stile-acme-files-"));
afterAll(() => rmSync(stateDir, { recursive: true, force: true }));

/** A DNS name of so many characters; each label within 63. */
function nameOf(length: number): string {
  const end = ".example";
  const labels = "b".repeat(length - end.length).replace(/.{60}/g, (label) => `${label.slice(1)}.`);
  return `a${labels.slice(1)}${end}`;
}

const LONGEST = nameOf(253);
/** The same in all that a shortened name shows. */
const LIKE_IT = `${LONGEST.slice(0, -8)}.exampl2`;

function configOf(
  certificates: AcmeConfig["certificates"],
): Parameters<typeof wantedCertificates>[0] {
  const acme: AcmeConfig = {
    directoryUrl: "https://ca.example/dir",
    termsAgreed: true,
    contact: [],
    certificates,
    challenge: "tls-alpn-01",
  };
  return { acme, stateDir };
}

function filesOf(certificates: AcmeConfig["certificates"]): readonly string[] {
  return wantedCertificates(configOf(certificates)).map(({ file }) => file);
}

it("keeps the files of certificates where they were before", () => {
  const names = ["shop.example", "www.shop.example"];
  const files = filesOf([
    { names, keyType: "ecdsa" },
    { names: ["shop.example"], keyType: "rsa" },
    { names: [nameOf(211)], keyType: "ecdsa" },
    { names: [nameOf(213)], keyType: "rsa" },
  ]);
  expect(files.map((file) => basename(file))).toEqual([
    "shop.example-ecdsa-d72fc7ee.pem",
    "shop.example-rsa-c66f8e0e.pem",
    `${nameOf(211)}-ecdsa-474a69a7.pem`,
    `${nameOf(213)}-rsa-1b80c202.pem`,
  ]);
});

it("writes a certificate of every length of names, each set to a file of its own", async () => {
  await makeFolderDurably(join(stateDir, "acme"));
  const lengths = [211, 212, 213, 214, 230, 236, 253];
  const certificates = (["ecdsa", "rsa"] as const).flatMap((keyType) => [
    ...lengths.map((length) => ({ names: [nameOf(length)], keyType })),
    { names: [LIKE_IT], keyType },
    { names: [LONGEST, "shop.example"], keyType },
  ]);
  const files = filesOf(certificates);
  for (const file of files) await replaceFileDurably(file, Buffer.from(file));
  expect(new Set(files).size).toBe(certificates.length);
  for (const file of files) expect(readFileSync(file, "utf8")).toBe(file);
});

it("answers tls-alpn-01 for the longest names, each with its own", async () => {
  const config = configOf([{ names: [LONGEST, LIKE_IT, "shop.example"], keyType: "ecdsa" }]);
  const folder = pendingFolder(config);
  const pending = await createPendingChallenges(folder, Date.now);
  const find = challengeCertificates(config);
  const answer = (name: string): Promise<() => Promise<void>> =>
    pending.answer({ type: "tls-alpn-01", name, token: "t", keyAuthorization: `t.${name}` });
  expect([LONGEST, LIKE_IT].map((name) => name.length)).toEqual([253, 253]);
  const done = await answer(LONGEST);
  const like = await answer(LIKE_IT);
  const short = await answer("shop.example");
  expect(readdirSync(folder)).toContain("shop.example.pem");
  expect(find?.(LONGEST)?.names).toEqual([LONGEST]);
  expect(find?.(LIKE_IT)?.cert).not.toBe(find?.(LONGEST)?.cert);
  await done();
  expect(find?.(LONGEST)).toBeUndefined();
  expect(find?.(LIKE_IT)).toBeDefined();
  await like();
  await short();
  expect(readdirSync(folder)).toEqual([]);
});

it("gives a shortened name to no other DNS name", () => {
  const file = pendingFile("/pending", LONGEST);
  const labels = basename(file, ".pem").split(".");
  expect(dirname(file)).toBe("/pending");
  // RFC 1035 §2.3.4: a label has 63 octets at most.
  expect(Math.max(...labels.map((label) => label.length))).toBeGreaterThan(63);
});
