/**
 * What an operator decides of WebAuthn: off by default, trust from files, limits, and the one unsafe setting,
 * with which Chromium's virtual authenticator is admitted in development and never by default elsewhere.
 */
import { existsSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { decodeJwt } from "jose";
import { chromium } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createNodeAttestCrypto } from "../../attest/node/index.ts";
import { loadWebAuthnTrust, webauthnPolicy } from "../../service/attester/webauthn-trust.ts";
import { createTrustWatch } from "../../service/attester/webauthn-trust-watch.ts";
import type { WebAuthnConfig } from "../../service/config/webauthn.ts";
import { codeOfAsync } from "../support/reject.ts";
import { problemIn, startTestSidecar, type TestSidecar } from "../support/sidecar.ts";
import { createSoftAuthenticator } from "../support/webauthn-authenticator.ts";
import {
  jsonOf,
  newPageKey,
  openCeremony,
  postJson,
  requestTokens,
  sendEvidence,
} from "../support/webauthn-page.ts";
import { blobOf, fido } from "../attest/webauthn/support/metadata.ts";
import { pemOf } from "../attest/webauthn/support/registration.ts";

const CHROMIUM = "/usr/bin/chromium";
const folder = mkdtempSync(join(tmpdir(), "stile-webauthn-"));
const soft = createSoftAuthenticator();
const fileOf = (name: string, content: string): string => {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
};
const rootFile = fileOf("packed.pem", soft.rootPem);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function withSidecar(
  webauthn: Partial<WebAuthnConfig> | undefined,
  work: (target: TestSidecar) => Promise<void>,
): Promise<void> {
  const target = await startTestSidecar(webauthn === undefined ? {} : { attester: { webauthn } });
  try {
    await work(target);
  } finally {
    await target.stop();
  }
}

describe("WebAuthn attestation", () => {
  it("is not there unless it is switched on", async () => {
    await withSidecar({}, async (target) => {
      const body = { deviceKey: newPageKey().jwk, purpose: "registration" };
      for (const path of ["/attest/webauthn/options", "/attest/webauthn/evidence"]) {
        expect((await postJson(target, path, body)).status).toBe(404);
      }
      expect(target.lines.join("\n")).not.toContain("webauthn");
    });
  });

  it("believes nobody without an anchor, where no setting says unsafe", async () => {
    await withSidecar({ enabled: true, rootFiles: { tpm: rootFile } }, async (target) => {
      const { publicKey, session } = await openCeremony(target, newPageKey());
      const { challenge } = publicKey;
      const input = { challenge, rpId: "localhost", origin: target.url };
      const answer = await sendEvidence(target, session, soft.register(input));
      expect(problemIn(answer)).toMatchObject({
        status: 403,
        type: "urn:stile:problem:attest-webauthn-chain-untrusted",
      });
      expect(target.lines.join("\n")).not.toContain("unsafe");
    });
  });

  it("is limited for a network in each window, for registrations and assertions together", async () => {
    const settings = { enabled: true, rootFiles: { packed: rootFile }, attestationsPerNetwork: 2 };
    await withSidecar(settings, async (target) => {
      const attest = async (credentialId?: string): ReturnType<typeof sendEvidence> => {
        const { publicKey, session } = await openCeremony(target, newPageKey(), credentialId);
        const { challenge } = publicKey;
        const input = { challenge, rpId: "localhost", origin: target.url };
        const credential =
          credentialId === undefined ? soft.register(input) : soft.authenticate(input);
        return sendEvidence(target, session, credential);
      };
      expect((await attest()).status).toBe(200);
      expect((await attest(soft.credentialId())).status).toBe(200);
      const [first, second] = [await attest(soft.credentialId()), await attest()];
      for (const answer of [first, second]) {
        expect(problemIn(answer)).toMatchObject({
          status: 429,
          type: "urn:stile:problem:attest-webauthn-network-limit",
        });
        expect(Number(answer.headers["retry-after"])).toBeGreaterThan(0);
      }
      // What was refused was not stored: its id is unknown.
      await expect(openCeremony(target, newPageKey(), soft.credentialId())).rejects.toThrow(
        "credential-unknown",
      );
      target.clock.offsetMs += 86_400_000;
      expect((await attest()).status).toBe(200);
    });
  });
});

describe("development mode", () => {
  let target: TestSidecar;
  beforeAll(async () => {
    target = await startTestSidecar();
    return () => target.stop();
  });

  it("says at its start that it believes what has no anchor", () => {
    expect(target.lines.map((line) => JSON.parse(line) as unknown)).toContainEqual({
      level: "warn",
      event: "webauthn.unsafe-accept-unanchored",
      formats: "packed",
    });
  });

  it.skipIf(!existsSync(CHROMIUM))(
    "admits Chromium with its virtual authenticator, and its result claims no hardware",
    { timeout: 60_000 },
    async () => {
      const browser = await chromium.launch({
        executablePath: CHROMIUM,
        args: ["--no-sandbox"],
      });
      try {
        const page = await browser.newPage({ ignoreHTTPSErrors: true });
        // The page of another part of the service is not this test's business.
        await page.route("**/*", (route) =>
          route.fulfill({ contentType: "text/html", body: "<p>test" }),
        );
        await page.goto(`${target.url}/`);
        const devtools = await page.context().newCDPSession(page);
        await devtools.send("WebAuthn.enable");
        await devtools.send("WebAuthn.addVirtualAuthenticator", {
          options: {
            protocol: "ctap2",
            transport: "internal",
            hasUserVerification: true,
            isUserVerified: true,
            automaticPresenceSimulation: true,
          },
        });
        let credentialId: string | undefined;
        for (const method of ["create", "get"] as const) {
          const key = newPageKey();
          const { publicKey, session } = await openCeremony(target, key, credentialId);
          const credential = (await page.evaluate(
            `(${CEREMONY})(${JSON.stringify(method)}, ${JSON.stringify(publicKey)})`,
          )) as { id: string };
          credentialId = credential.id;
          const answer = await sendEvidence(target, session, credential);
          expect(answer.status, Buffer.from(answer.body).toString()).toBe(200);
          const { attestationResult } = jsonOf(answer) as { attestationResult: string };
          expect(decodeJwt(attestationResult)).toMatchObject({
            submods: {
              webauthn: {
                "ear.appraisal-policy-id": "urn:stile:policy:webauthn-unanchored",
                "ear.trustworthiness-vector": { hardware: 0 },
              },
            },
          });
          const { tokens } = await requestTokens(target, key, attestationResult);
          const [authorization = ""] = await tokens();
          expect((await target.get("/", { authorization })).status).toBe(200);
        }
      } finally {
        await browser.close();
      }
    },
  );
});

/** Runs in the browser: the JSON forms of WebAuthn Level 3, both ways. */
const CEREMONY = `async (method, json) => {
  const publicKey = method === "create"
    ? PublicKeyCredential.parseCreationOptionsFromJSON(json)
    : PublicKeyCredential.parseRequestOptionsFromJSON(json);
  return (await navigator.credentials[method]({ publicKey })).toJSON();
}`;

describe("the files of a configuration", () => {
  const config: WebAuthnConfig = {
    enabled: true,
    formats: ["tpm", "packed"],
    rootFiles: { packed: rootFile },
    userVerification: "required",
    deniedAaguids: [],
    acceptSha1: [],
    tokens: 50,
    attestationsPerNetwork: 200,
    unsafeAcceptUnanchored: [],
  };
  const nowMs = Date.UTC(2026, 10, 23);
  const crypto = createNodeAttestCrypto();
  const load = (change: Partial<WebAuthnConfig>): ReturnType<typeof loadWebAuthnTrust> =>
    loadWebAuthnTrust({ config: { ...config, ...change }, crypto, clock: () => nowMs });

  it("become anchors of their own format alone, metadata and a revocation list", async () => {
    expect(Object.keys((await load({})).anchors)).toStrictEqual(["packed"]);
    // A format that is not accepted needs no root.
    expect(await codeOfAsync(() => load({ formats: ["tpm"] }))).toBe("SERVICE_CONFIG_INVALID");
    const list = fileOf("android.json", '{"entries": {"2c8cdddfd5e03bfc": {"status": "REVOKED"}}}');
    const trust = await load({ androidRevocationFile: list });
    expect(trust.androidRevocationList).toStrictEqual(new Set(["2c8cdddfd5e03bfc"]));
    const { metadata } = await load({
      rootFiles: {},
      metadataBlobFile: fileOf("blob.jwt", blobOf()),
      metadataRootsFile: fileOf("fido.pem", pemOf(fido.root)),
    });
    expect(metadata?.entries.has(soft.aaguid)).toBe(true);
  });

  it.each<[string, Partial<WebAuthnConfig>]>([
    ["nothing to trust", { rootFiles: {} }],
    ["a missing file", { rootFiles: { packed: join(folder, "none.pem") } }],
    ["a file that is no PEM", { rootFiles: { packed: fileOf("bad.pem", "bad") } }],
    ["a blob without its roots", { metadataBlobFile: rootFile }],
    ["roots without a blob", { metadataRootsFile: rootFile }],
    ["a blob that is none", { metadataBlobFile: rootFile, metadataRootsFile: rootFile }],
    ["a list that is none", { androidRevocationFile: rootFile }],
  ])("rejects %s", async (_name, change) => {
    expect(await codeOfAsync(() => load(change))).toBe("SERVICE_CONFIG_INVALID");
  });

  it("are read again when they change, and what cannot be used leaves the old ones in force", async () => {
    const metadataBlobFile = fileOf("watched.jwt", blobOf());
    const metadataRootsFile = fileOf("fido.pem", pemOf(fido.root));
    const lines: string[] = [];
    const watch = await createTrustWatch({
      config: { ...config, metadataBlobFile, metadataRootsFile },
      crypto,
      clock: () => nowMs,
      log: { write: (level, event) => lines.push(`${level} ${event}`), flush: () => undefined },
    });
    const number = (): number | undefined => watch.trust().metadata?.number;
    const change = async (content: string, mtime: number): Promise<void> => {
      writeFileSync(metadataBlobFile, content);
      utimesSync(metadataBlobFile, mtime, mtime);
      await watch.look();
    };
    await watch.look();
    expect([number(), lines]).toStrictEqual([42, []]);
    await change(blobOf({ payload: { no: 43 } }), 1_000);
    expect([number(), lines.at(-1)]).toStrictEqual([43, "info webauthn.trust-reloaded"]);
    // A broken file, then one that is older than what was seen: it would hide what came after it.
    for (const [content, mtime] of [
      ["no blob", 2_000],
      [blobOf(), 3_000],
    ] as const) {
      await change(content, mtime);
      expect([number(), lines.at(-1)]).toStrictEqual([43, "error webauthn.trust-reload-failed"]);
    }
    rmSync(metadataBlobFile);
    await watch.look();
    expect(number()).toBe(43);
    await change(blobOf({ payload: { no: 44 } }), 5_000);
    expect(number()).toBe(44);
  });

  it("become a policy that is as strict as it can be in the rest", () => {
    expect(webauthnPolicy(config)).toMatchObject({
      userPresence: "required",
      userVerification: "required",
      acceptSelfAttestation: false,
      acceptUnanchored: [],
      androidRevocation: "required",
      counterRegression: "refuse",
    });
  });

  it("stop the start where origins are not under the RP id", async () => {
    const wrong = { enabled: true, rootFiles: { packed: rootFile }, rpId: "example.org" };
    expect(await codeOfAsync(() => startTestSidecar({ attester: { webauthn: wrong } }))).toBe(
      "SERVICE_CONFIG_INVALID",
    );
  });
});
