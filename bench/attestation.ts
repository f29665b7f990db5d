/**
 * What the attestation verifiers cost, each as a ratio to its floor: the same hashes and signature checks
 * by node:crypto alone, with keys that are imported beforehand, in turns with the verifier in one run.
 * Rates are for a second of CPU on one core. Run by `npm run bench -- --only attest`.
 */
import { createPublicKey, generateKeyPairSync, hash, verify, X509Certificate } from "node:crypto";
import { parseTrustedRoots, verifyEkCertificate } from "../attest/ek/index.ts";
import { verifyEventLog } from "../attest/eventlog/index.ts";
import { type AttestCrypto, type SignatureCheck, verifyQuote } from "../attest/index.ts";
import { createNodeAttestCrypto } from "../attest/node/index.ts";
import { verifyRegistration } from "../attest/webauthn/index.ts";
import { createManufacturerCa } from "../swtpm/index.ts";
import { buildLog, quoteOf } from "../test/attest/eventlog/support/log-builder.ts";
import { createSoftwareAk } from "../test/attest/support/software-ak.ts";
import { registrationOf } from "../test/attest/webauthn/support/authenticator.ts";
import { createMakers, tpmPlan } from "../test/attest/webauthn/support/statements.ts";

export interface AttestationFigure {
  readonly name: string;
  /** For a second of CPU on one core. */
  readonly perSecond: number;
  readonly floorPerSecond: number;
}

interface Subject {
  readonly name: string;
  readonly run: () => Promise<void>;
  readonly floor: () => void;
}

const EVENTS = 100;
const ROUNDS = 12;
const SLICE_MS = 150;

/** About four seconds a figure. */
export async function benchAttestation(): Promise<AttestationFigure[]> {
  const figures: AttestationFigure[] = [];
  for (const subject of [await quoteWithLog(), await ekChain(), await webAuthnTpm()]) {
    figures.push(await measure(subject));
  }
  return figures;
}

/** In turns, so that what else the machine does falls on both; the first round warms up. */
async function measure({ name, run, floor }: Subject): Promise<AttestationFigure> {
  const own = { runs: 0, cpuSeconds: 0 };
  const bare = { runs: 0, cpuSeconds: 0 };
  for (let round = 0; round <= ROUNDS; round += 1) {
    const ours = await slice(run);
    const theirs = await slice(() => Promise.resolve(floor()));
    if (round === 0) continue;
    own.runs += ours.runs;
    own.cpuSeconds += ours.cpuSeconds;
    bare.runs += theirs.runs;
    bare.cpuSeconds += theirs.cpuSeconds;
  }
  return {
    name,
    perSecond: own.runs / own.cpuSeconds,
    floorPerSecond: bare.runs / bare.cpuSeconds,
  };
}

/** CPU of all threads: Web Crypto, which checks certificates, works on the pool's. */
async function slice(run: () => Promise<void>): Promise<{ runs: number; cpuSeconds: number }> {
  const before = process.cpuUsage();
  const end = performance.now() + SLICE_MS;
  let runs = 0;
  while (performance.now() < end) {
    await run();
    runs += 1;
  }
  const { user, system } = process.cpuUsage(before);
  return { runs, cpuSeconds: (user + system) / 1e6 };
}

/** The floor of what goes through `AttestCrypto`: one verification is recorded and done again bare. */
async function recordedFloor(run: (crypto: AttestCrypto) => Promise<void>): Promise<() => void> {
  const crypto = createNodeAttestCrypto();
  const hashes: (readonly [string, Uint8Array])[] = [];
  const signatures: SignatureCheck[] = [];
  await run({
    ...crypto,
    hash: (name, data) => {
      hashes.push([name, data.slice()]);
      return crypto.hash(name, data);
    },
    verifySignature: (check) => {
      signatures.push(check);
      return crypto.verifySignature(check);
    },
  });
  const checks = signatures.map(bareCheck);
  return () => {
    for (const [name, data] of hashes) hash(name, data, "buffer");
    for (const check of checks) check();
  };
}

function bareCheck(check: SignatureCheck): () => void {
  const key = createPublicKey({ key: Buffer.from(check.spki), format: "der", type: "spki" });
  const options = { key, dsaEncoding: "ieee-p1363" } as const;
  return () => {
    if (!verify(check.hash, check.message, options, check.signature)) throw new Error("no match");
  };
}

/** Each certificate by the key of the next. */
function bareChain(chain: readonly Uint8Array[]): () => void {
  const certificates = chain.map((der) => new X509Certificate(der));
  const links = certificates
    .slice(0, -1)
    .map((certificate, at) => [certificate, certificates[at + 1]?.publicKey] as const);
  return () => {
    for (const [certificate, key] of links) {
      if (key === undefined || !certificate.verify(key)) throw new Error("no match");
    }
  };
}

async function quoteWithLog(): Promise<Subject> {
  const events = Array.from({ length: EVENTS }, (_, index) => ({
    pcr: index % 8,
    type: index < 92 ? 0x8000_0008 : 4,
    data: new Uint8Array(index < 92 ? 64 : 4).fill(index < 92 ? index : 0),
  }));
  const log = buildLog(events);
  const pcrValues = quoteOf(log).pcrValues.filter(({ pcr }) => pcr < 8);
  const check = createSoftwareAk("ecdsa").quote(pcrValues, new Uint8Array(32).fill(1));
  const run = async (crypto: AttestCrypto): Promise<void> => {
    const quote = await verifyQuote({ ...check, crypto });
    verifyEventLog({ log, quote, crypto });
  };
  const floor = await recordedFloor(run);
  const crypto = createNodeAttestCrypto();
  return { name: `quote (ES256) with a log of ${EVENTS} events`, run: () => run(crypto), floor };
}

async function ekChain(): Promise<Subject> {
  const atMs = Date.now();
  const ca = await createManufacturerCa({ clock: () => atMs });
  const { publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const ekPublicKeySpki = new Uint8Array(publicKey.export({ type: "spki", format: "der" }));
  const leaf = await ca.issueEkCertificate(ekPublicKeySpki, "rsa");
  const roots = await parseTrustedRoots(ca.rootPem);
  const certificates = [leaf, ca.intermediate];
  const { signatureAlgorithm } = new X509Certificate(leaf);
  return {
    name: `EK certificate, two links (${signatureAlgorithm ?? "unknown"})`,
    run: async () => {
      await verifyEkCertificate({ certificates, ekPublicKeySpki, ekKeyType: "rsa", roots, atMs });
    },
    floor: bareChain([...certificates, ca.root]),
  };
}

async function webAuthnTpm(): Promise<Subject> {
  const check = registrationOf(tpmPlan(createMakers()));
  const run = async (crypto: AttestCrypto): Promise<void> => {
    await verifyRegistration({ ...check, crypto });
  };
  // The certificates' signatures go through the same interface, so they are recorded with the rest.
  const floor = await recordedFloor(run);
  const crypto = createNodeAttestCrypto();
  return { name: "WebAuthn registration of format tpm", run: () => run(crypto), floor };
}
