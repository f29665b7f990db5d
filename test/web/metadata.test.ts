/** Tokens with an expiration in real Chromium: the page and the client for applications. */
import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { DevelopmentOverrides } from "../../service/dev/development.ts";
import {
  encodeExtensions,
  encodeExtensionSet,
  expirationExtension,
  latestExpiration,
  parseAuthorization,
  parseToken,
} from "../../tokens/index.ts";
import { encodeBase64Url, encodeHex } from "../../wire/index.ts";
import { metadataVectors } from "../tokens/metadata-fixtures.ts";
import { bytesOf } from "../tokens/vectors.ts";
import { storeMetadataKey } from "../support/metadata-key.ts";
import { sharedMissing } from "../support/shared.ts";
import { startTestSidecar, type TestSidecar } from "../support/sidecar.ts";
import {
  chromiumMissing,
  isAdmitted,
  launchBrowser,
  newVisitor,
  stateIs,
  type Visitor,
} from "./browser.ts";

const TYPE = 0xda7a;
const DAY = 86_400;
const GRID = { precisionSeconds: DAY, maxLifetimeSeconds: 2 * DAY };

const start = (
  tokenTypes: readonly number[],
  publicMetadata = { expirationPrecisionSeconds: DAY, maxLifetimeSeconds: 2 * DAY },
  attester: NonNullable<DevelopmentOverrides["attester"]> = {},
): Promise<TestSidecar> =>
  startTestSidecar({
    prepare: async (dir) => {
      const passphrase = Buffer.from(randomBytes(32).toString("base64url"));
      writeFileSync(join(dir, "passphrase"), passphrase);
      await storeMetadataKey(join(dir, "state"), passphrase);
    },
    attester,
    edge: { redemptionContext: "none", challengeMaxAgeSeconds: 3 * DAY },
    issuer: { tokenTypes: [...tokenTypes], publicMetadata },
  });

/** What the page presents, as it is sent. */
function presentedBy(page: Page): { type: number; extensions: string }[] {
  const presented: { type: number; extensions: string }[] = [];
  page.on("request", (request) => {
    const header = request.headers()["authorization"] ?? "";
    const read = header.startsWith("PrivateToken") ? parseAuthorization(header) : undefined;
    if (read === undefined) return;
    const { tokenType } = parseToken(read.token);
    presented.push({ type: tokenType, extensions: encodeHex(read.extensions ?? new Uint8Array()) });
  });
  return presented;
}

/** The one value that every client has: of this instant, or of one just before a midnight of UTC. */
const expected = (): string[] =>
  [0, 60_000].map((ago) => encodeHex(latestExpiration(GRID, Date.now() - 300_000 - ago)));

describe.skipIf(chromiumMissing || sharedMissing)("tokens with an expiration in Chromium", () => {
  let browser: Browser;
  let target: TestSidecar;
  beforeAll(async () => {
    [browser, target] = await Promise.all([launchBrowser(), start([TYPE, 2])]);
  });
  afterAll(async () => {
    await browser.close();
    await target.stop();
  });

  it("cannot be verified by the browser itself: its keys have short exponents", async () => {
    // Why the page has arithmetic of its own.
    const visitor = await newVisitor(browser);
    await visitor.page.goto(`${target.url}/`);
    const [vector] = metadataVectors();
    const modulus = bytesOf(vector!, "pkS").subarray(-261, -5);
    const importing = (e: Uint8Array): string =>
      `crypto.subtle.importKey("jwk", { kty: "RSA", n: "${encodeBase64Url(modulus)}", e: "${encodeBase64Url(e)}" },
        { name: "RSA-PSS", hash: "SHA-384" }, false, ["verify"]).then(() => "imported", () => "refused")`;
    const long = new Uint8Array(128).fill(1);
    expect(await visitor.page.evaluate(importing(Uint8Array.of(1, 0, 1)))).toBe("imported");
    expect(await visitor.page.evaluate(importing(long))).toBe("refused");
    await visitor.context.close();
  });

  it("let a person in with one touch, are kept, and let them in again", async () => {
    const visitor = await newVisitor(browser);
    const { page } = visitor;
    const presented = presentedBy(page);
    const requests: string[] = [];
    page.on("request", (request) => requests.push(new URL(request.url()).pathname));
    await page.goto(`${target.url}/`);
    await stateIs(page, "ready");
    const started = performance.now();
    await page.locator("#continue").click();
    await isAdmitted(page);
    console.log(`page: ${Math.round(performance.now() - started)} ms from the click to the site`);
    expect(requests.filter((path) => path === "/token-request")).toHaveLength(10);
    await visitor.context.clearCookies();
    await page.goto(`${target.url}/again`);
    await isAdmitted(page);
    expect(requests.filter((path) => path === "/token-request")).toHaveLength(10);
    expect(presented.map(({ type }) => type)).toEqual([TYPE, TYPE]);
    for (const { extensions } of presented) expect(expected()).toContain(extensions);
    expect(visitor.errors).toEqual([]);
    await visitor.context.close();
  });

  it("are passed over once they have expired, and dropped", async () => {
    const visitor = await newVisitor(browser);
    const { page } = visitor;
    const presented = presentedBy(page);
    await page.goto(`${target.url}/`);
    await stateIs(page, "ready");
    await page.locator("#continue").click();
    await isAdmitted(page);
    // As if the midnight had passed: two of the nine that are left stay good.
    const left = await page.evaluate(`new Promise((resolve) => {
      indexedDB.open("stile").onsuccess = ({ target: { result: database } }) => {
        const store = database.transaction("tokens", "readwrite").objectStore("tokens");
        const ends = [];
        store.openCursor().onsuccess = ({ target: { result: cursor } }) => {
          if (cursor === null) return database.close(), resolve(ends);
          ends.push(cursor.value.expiresAtMs);
          if (ends.length <= 7) cursor.update({ ...cursor.value, expiresAtMs: Date.now() - 1 });
          cursor.continue();
        };
      };
    })`);
    const midnights = new Set(left as number[]);
    expect([...midnights].every((end) => end % (DAY * 1_000) === 0)).toBe(true);
    expect(left).toHaveLength(9);
    await visitor.context.clearCookies();
    await page.goto(`${target.url}/later`);
    await isAdmitted(page);
    // One try, with one of the two; of the others none is left.
    expect(presented).toHaveLength(2);
    const count = await page.evaluate(`new Promise((resolve) => {
      indexedDB.open("stile").onsuccess = ({ target: { result: database } }) => {
        database.transaction("tokens").objectStore("tokens").count().onsuccess = (counted) =>
          (database.close(), resolve(counted.target.result));
      };
    })`);
    expect(count).toBe(1);
    await visitor.context.close();
  });
});

describe.skipIf(chromiumMissing || sharedMissing)("an application with public metadata", () => {
  let browser: Browser;
  let target: TestSidecar;
  beforeAll(async () => {
    [browser, target] = await Promise.all([launchBrowser(), start([TYPE])]);
  });
  afterAll(async () => {
    await browser.close();
    await target.stop();
  });

  const application = (options: object): string => `<!doctype html><title>app</title>
<button id="enter">enter</button><script type="module">
  import { createStileClient } from "/.stile/client.js";
  const made = (options) => {
    try { return createStileClient(options); } catch ({ name }) { document.title = name; throw name; }
  };
  const client = made(${JSON.stringify({ batch: 3, ...options })});
  window.call = async () => (await client.fetch("/api", { credentials: "omit" })).status;
  window.client = client;
  document.getElementById("enter").onclick = () =>
    client.enter().then(() => (document.title = "entered"), ({ kind }) => (document.title = kind));
  document.title = "loaded";
</script>`;

  async function open(options: object = {}, title = "loaded"): Promise<Visitor> {
    const visitor = await newVisitor(browser);
    const body = application(options);
    await visitor.page.route(`${target.url}/app`, (route) =>
      route.fulfill({ contentType: "text/html", body }),
    );
    await visitor.page.goto(`${target.url}/app`);
    await titleIs(visitor, title);
    return visitor;
  }
  const titleIs = async ({ page }: Visitor, title: string): Promise<void> => {
    await expect.poll(() => page.title(), { timeout: 10_000 }).toBe(title);
  };

  it("answers with the expiration that all clients have", async () => {
    const visitor = await open();
    const { page } = visitor;
    const presented = presentedBy(page);
    expect(await page.evaluate("window.call()")).toBe(401);
    await page.getByRole("button").click();
    await titleIs(visitor, "entered");
    expect(await page.evaluate("window.call()")).toBe(200);
    expect(presented).toHaveLength(1);
    expect(presented[0]!.type).toBe(TYPE);
    expect(expected()).toContain(presented[0]!.extensions);
    await visitor.context.close();
  });

  it("does not answer an API that wants metadata of its own choice", async () => {
    const visitor = await open();
    const { page } = visitor;
    const presented = presentedBy(page);
    await page.evaluate("window.call()");
    await page.getByRole("button").click();
    await titleIs(visitor, "entered");
    const answer = await target.get("/api");
    const honest = answer.headers["www-authenticate"] ?? "";
    const tomorrow = BigInt((Math.floor(Date.now() / 1_000 / DAY) + 7) * DAY);
    const marked = encodeExtensions([
      expirationExtension({ timestamp: tomorrow, timestampPrecision: BigInt(DAY) }),
    ]);
    const unknown = encodeExtensionSet([{ isRequired: true, extensionType: 9 }]);
    let header = "";
    await page.route(`${target.url}/api`, (route) =>
      route.fulfill({ status: 401, headers: { "www-authenticate": header } }),
    );
    for (const param of [
      `extensions="${encodeBase64Url(marked, "padded")}"`,
      `extension-set="${encodeBase64Url(unknown, "padded")}"`,
    ]) {
      header = `${honest}, ${param}`;
      expect(await page.evaluate("window.call()")).toBe(401);
    }
    expect(presented).toEqual([]);
    header = honest;
    await page.evaluate("window.call()");
    expect(presented).toHaveLength(1);
    await visitor.context.close();
  });

  it("does not start with a grid that is too fine", async () => {
    const expirationGrid = { precisionSeconds: 60, maxLifetimeSeconds: 120 };
    const visitor = await open({ expirationGrid }, "RangeError");
    await visitor.context.close();
  });
});

describe.skipIf(chromiumMissing || sharedMissing)("a person whose allowance is small", () => {
  it("is let in with what there is", async () => {
    const allowance = { tokens: 2, windowSeconds: DAY };
    const grid = { expirationPrecisionSeconds: DAY, maxLifetimeSeconds: 2 * DAY };
    const [browser, target] = await Promise.all([
      launchBrowser(),
      start([TYPE], grid, { allowance }),
    ]);
    const { page } = await newVisitor(browser);
    await page.goto(`${target.url}/`);
    await stateIs(page, "ready");
    await page.locator("#continue").click();
    await isAdmitted(page);
    await browser.close();
    await target.stop();
  });

  it("gets no page where the grid is too fine for any of our clients, and there is no other type", async () => {
    const target = await start([TYPE], {
      expirationPrecisionSeconds: 60,
      maxLifetimeSeconds: 120,
    });
    const answer = await target.get("/", { accept: "text/html" });
    expect(answer.status).toBe(401);
    expect(Buffer.from(answer.body).toString()).not.toContain("tokenKey");
    await target.stop();
  });
});
