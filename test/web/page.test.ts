/** The interstitial in real Chromium: from a first visit to every state that can go wrong. */
import { readFileSync } from "node:fs";
import { brotliCompressSync } from "node:zlib";
import type { Browser, Page, Route } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createPageRenderer } from "../../service/web/page.ts";
import { loadPageAssets } from "../../service/web/assets.ts";
import { chooseLanguage, LANGUAGES, textsOf } from "../../service/web/texts.ts";
import { startSidecar } from "../../service/sidecar.ts";
import { codeOf } from "../support/reject.ts";
import { startTestSidecar, type TestSidecar } from "../support/sidecar.ts";
import {
  chromiumMissing,
  isAdmitted,
  launchBrowser,
  newVisitor,
  stateIs,
  type Visitor,
  watch,
} from "./browser.ts";

const BUDGET_BYTES = 60_000;
const axe = readFileSync("node_modules/axe-core/axe.min.js", "utf8");

describe("the page", () => {
  const assets = loadPageAssets();
  const render = createPageRenderer(assets);
  const request = {
    method: "GET",
    acceptLanguage: undefined,
    challenge: new Uint8Array(60),
    tokenKey: new Uint8Array(300),
    maxAgeSeconds: 60,
  };

  it("has under 60 kB of HTML, CSS and scripts, compressed", () => {
    const html = brotliCompressSync(render(request).html).length;
    const used = assets.files.filter(({ name }) => !name.startsWith("client-"));
    const scripts = used.reduce((sum, { br }) => sum + br.length, 0);
    console.log(`page: ${html} bytes of HTML and CSS, ${scripts} of scripts, compressed`);
    expect(html + scripts).toBeLessThan(BUDGET_BYTES);
  });

  it("has every text in every language, and chooses by Accept-Language", () => {
    const names = Object.keys(textsOf("en"));
    for (const language of LANGUAGES) {
      const texts = textsOf(language);
      expect(Object.keys(texts)).toEqual(names);
      for (const name of names) expect(texts[name], `${language} ${name}`).not.toBe("");
      expect(texts["retry-at"]).toContain("{time}");
    }
    expect(chooseLanguage("fr-CH, fr;q=0.9, en;q=0.8")).toBe("fr");
    expect(chooseLanguage("pt-BR, zh-Hant-TW;q=0.5, de;q=0.4")).toBe("zh");
    expect(chooseLanguage("de;q=0, en;q=0.1")).toBe("en");
    for (const odd of [undefined, "", ";;;", "x".repeat(5_000), "de;q=9"]) {
      expect(LANGUAGES).toContain(chooseLanguage(odd));
    }
  });

  it("runs nothing but its own scripts, and holds no text that could end them", () => {
    const [first, second] = [render(request), render({ ...request, method: "</script><script>" })];
    const policy = first.headers["content-security-policy"] ?? "";
    expect(policy).toContain("default-src 'none'");
    expect(policy).toContain("require-trusted-types-for 'script'");
    expect(policy).not.toMatch(/unsafe|https?:|\*/);
    expect(policy).not.toBe(second.headers["content-security-policy"]);
    expect(second.html.match(/<\/script>/g)).toHaveLength(2);
  });

  it("offers another way where the operator has one", () => {
    const { html } = createPageRenderer(assets, 'https://help.example/?a="b"&c=d')(request);
    expect(html).toContain(
      '<a href="https://help.example/?a=&quot;b&quot;&amp;c=d">Another way in</a>',
    );
    expect(render(request).html).not.toContain("<a ");
  });

  it("is not served where its scripts were not built", () => {
    expect(codeOf(() => loadPageAssets("/nowhere"))).toBe("SERVICE_CONFIG_INVALID");
  });
});

describe.skipIf(chromiumMissing)("a person in Chromium", () => {
  let browser: Browser;
  let target: TestSidecar;
  beforeAll(async () => {
    [browser, target] = await Promise.all([launchBrowser(), startTestSidecar()]);
  });
  afterAll(async () => {
    await browser.close();
    await target.stop();
  });

  const visit = async (options?: Parameters<typeof newVisitor>[1]): Promise<Visitor> => {
    const visitor = await newVisitor(browser, options);
    await visitor.page.goto(`${target.url}/hello?a=1#part`);
    return visitor;
  };
  const enter = async (page: Page): Promise<void> => {
    await stateIs(page, "ready");
    await page.locator("#continue").click();
    await isAdmitted(page);
  };
  const forgetClearance = (visitor: Visitor): Promise<void> => visitor.context.clearCookies();

  it("is let in with one touch, and again without one", async () => {
    const visitor = await visit();
    const { page } = visitor;
    await stateIs(page, "ready");
    const started = performance.now();
    await page.locator("#continue").click();
    await isAdmitted(page);
    console.log(`page: ${Math.round(performance.now() - started)} ms from the click to the site`);
    expect(page.url()).toBe(`${target.url}/hello?a=1#part`);
    // While the clearance lasts, the page is not seen at all.
    await page.reload();
    await isAdmitted(page);
    await page.goto(`${target.url}/other`);
    await isAdmitted(page);
    await page.goBack();
    await isAdmitted(page);
    // Without it, a token that is left over does.
    await forgetClearance(visitor);
    await page.goto(`${target.url}/later`);
    await isAdmitted(page);
    expect(visitor.errors).toEqual([]);
    await visitor.context.close();
  });

  it("is let in in two tabs at once, with one touch", async () => {
    const visitor = await visit();
    const second = await visitor.context.newPage();
    watch(second, visitor.errors);
    await second.goto(`${target.url}/second`);
    await Promise.all([stateIs(visitor.page, "ready"), stateIs(second, "ready")]);
    // Only the first tab has an authenticator; the second waits, and finds the first one's tokens.
    await visitor.page.bringToFront();
    await visitor.page.locator("#continue").click();
    await second.evaluate("document.getElementById('continue').click()");
    await Promise.all([isAdmitted(visitor.page), isAdmitted(second)]);
    expect(visitor.errors).toEqual([]);
    await visitor.context.close();
  });

  it("gets new tokens when the old are used up, without a touch while the attestation holds", async () => {
    const visitor = await visit();
    await enter(visitor.page);
    for (let i = 0; i < 11; i += 1) {
      await forgetClearance(visitor);
      // Not as a return that shows that cookies are not kept.
      await visitor.page.evaluate("sessionStorage.clear()");
      await visitor.page.goto(`${target.url}/visit-${i}`);
      await isAdmitted(visitor.page);
    }
    await visitor.context.close();
  });

  it("gets new tokens from an attester that was restarted, without a touch", async () => {
    const own = await startTestSidecar();
    const visitor = await newVisitor(browser);
    const { page } = visitor;
    const statuses: number[] = [];
    page.on("response", (answer) => {
      if (answer.url().endsWith("/token-request")) statuses.push(answer.status());
    });
    await page.goto(`${own.url}/first`);
    await enter(page);
    expect(statuses).toEqual([200]);
    await own.sidecar.stop();
    const log = { write: () => undefined, flush: () => undefined };
    const next = await startSidecar(own.config, { clock: Date.now, log });
    for (let i = 0; statuses.length === 1 && i < 11; i += 1) {
      await forgetClearance(visitor);
      await page.evaluate("sessionStorage.clear()");
      await page.goto(`${own.url}/visit-${i}`);
      await isAdmitted(page);
    }
    // Refused with a nonce, and asked again with it (RFC 9449 §8).
    expect(statuses).toEqual([200, 401, 200]);
    await visitor.context.close();
    await next.stop();
    await own.stop();
  });

  it("is not sent away by a token that was spent elsewhere", async () => {
    const visitor = await visit();
    await enter(visitor.page);
    // The next token is spent before the page can, as a copy of this profile would spend it.
    let refused = 0;
    const url = "**/.stile/clearance";
    const spend = async (route: Route): Promise<void> => {
      const { authorization = "" } = route.request().headers();
      await target.post("/.stile/clearance", "", { authorization });
      const answer = await route.fetch();
      if (answer.status() === 401) refused += 1;
      await route.fulfill({ response: answer });
    };
    await visitor.context.route(url, spend, { times: 1 });
    await forgetClearance(visitor);
    await visitor.page.evaluate("sessionStorage.clear()");
    await visitor.page.goto(`${target.url}/again`);
    await isAdmitted(visitor.page);
    expect(refused).toBe(1);
    await visitor.context.close();
  });

  it("keeps what a form was sending", async () => {
    const visitor = await newVisitor(browser);
    const { page } = visitor;
    // A page of the site that a visitor has open from before.
    await page.route(`${target.url}/form`, (route) =>
      route.request().method() === "POST"
        ? route.continue()
        : route.fulfill({
            contentType: "text/html",
            body: "<form method=post><input name=a><button>go</button></form>",
          }),
    );
    await page.goto(`${target.url}/form`);
    await page.locator("input").fill("kept");
    await page.getByText("go").click();
    await stateIs(page, "ready");
    await page.locator("#continue").click();
    await stateIs(page, "resend");
    await violationsOf(visitor);
    await page.locator("#continue").click();
    await page.locator("input").waitFor();
    expect(await page.locator("input").inputValue()).toBe("kept");
    await page.getByText("go").click();
    await isAdmitted(page);
    expect(await page.innerText("body")).toContain('"method": "POST"');
    await visitor.context.close();
  });

  const failures: readonly (readonly [string, (visitor: Visitor) => Promise<void>])[] = [
    ["cancelled", ({ setTouch }) => setTouch(false)],
    ["offline", ({ context }) => context.setOffline(true)],
    ["refused", ({ context }) => answerWith(context, "**/attest/webauthn/evidence", 403)],
    ["exhausted", ({ context }) => answerWith(context, "**/token-request", 429, "3600")],
    ["busy", ({ context }) => answerWith(context, "**/token-request", 503)],
  ];
  async function answerWith(
    context: Visitor["context"],
    url: string,
    status: number,
    retryAfter?: string,
  ): Promise<void> {
    const headers = retryAfter === undefined ? {} : { "retry-after": retryAfter };
    await context.route(url, (route) => route.fulfill({ status, headers, body: "{}" }));
  }
  it.each(failures)("is told when it is %s, and has a way on", async (why, cause) => {
    const visitor = await visit();
    const { context, page, setTouch } = visitor;
    await stateIs(page, "ready");
    await cause(visitor);
    await page.locator("#continue").click();
    await stateIs(page, `failed-${why}`);
    await violationsOf(visitor);
    expect((await page.locator("#text").innerText()).length).toBeGreaterThan(20);
    await context.setOffline(false);
    await context.unrouteAll();
    await setTouch(true);
    await page.locator("#continue").click();
    if ((await page.locator("body").getAttribute("data-state")) === "ready") await enter(page);
    await expect
      .poll(
        async () => {
          const isReady = await page.locator('body[data-state="ready"]').count();
          if (isReady > 0) await page.locator("#continue").click();
          return page.getByText("you were let in").count();
        },
        { timeout: 10_000 },
      )
      .toBe(1);
    expect(visitor.errors.filter((text) => !/ERR_INTERNET_DISCONNECTED/.test(text))).toEqual([]);
    await context.close();
  });

  it("may have everything forgotten", async () => {
    const visitor = await visit();
    await enter(visitor.page);
    await forgetClearance(visitor);
    // The next visit finds a token of the first, and would be let in by it.
    await visitor.context.route("**/.stile/clearance", (route) => route.abort(), { times: 1 });
    await visitor.page.evaluate("sessionStorage.clear()");
    await visitor.page.goto(`${target.url}/later`);
    await stateIs(visitor.page, "failed-offline");
    await visitor.page.locator("#forget").click();
    await stateIs(visitor.page, "ready");
    await visitor.context.close();
  });

  it("is told when the browser cannot do it, or keeps no cookies", async () => {
    const visitor = await newVisitor(browser);
    await visitor.page.addInitScript("delete window.PublicKeyCredential");
    await visitor.page.goto(`${target.url}/`);
    await stateIs(visitor.page, "failed-unsupported");
    await violationsOf(visitor);
    await visitor.context.close();

    const other = await newVisitor(browser);
    await other.context.route("**/.stile/clearance", (route) => route.fulfill({ status: 204 }));
    await other.page.goto(`${target.url}/`);
    await stateIs(other.page, "ready");
    await other.page.locator("#continue").click();
    await stateIs(other.page, "failed-cookies");
    await violationsOf(other);
    await other.context.close();
  });

  it("finds no accessibility violation while it works", async () => {
    const held: readonly (readonly [state: string, url: string])[] = [
      ["working-touching", "**/attest/webauthn/options"],
      ["working-making", "**/token-request"],
      ["working-entering", "**/.stile/clearance"],
    ];
    for (const [state, url] of held) {
      const visitor = await visit();
      await stateIs(visitor.page, "ready");
      let release = (): void => undefined;
      const looked = new Promise<void>((resolve) => {
        release = resolve;
      });
      await visitor.context.route(url, (route) => looked.then(() => route.continue()));
      await visitor.page.locator("#continue").click();
      await stateIs(visitor.page, state);
      await violationsOf(visitor);
      release();
      await isAdmitted(visitor.page);
      await visitor.context.close();
    }
  });

  it("finds no accessibility violation in light, dark and on a phone", async () => {
    for (const options of [{}, { dark: true }, { width: 320, locale: "de-DE" }]) {
      const visitor = await visit(options);
      const { page } = visitor;
      await stateIs(page, "ready");
      await violationsOf(visitor);
      await visitor.setTouch(false);
      await page.keyboard.press("Enter");
      await stateIs(page, "failed-cancelled");
      await violationsOf(visitor);
      await visitor.context.close();
    }
  });
});

/** Evaluated beside the page's policy, which would rightly refuse it. */
async function violationsOf({ session }: Visitor): Promise<void> {
  await session.send("Runtime.evaluate", { expression: axe });
  const { result } = await session.send("Runtime.evaluate", {
    expression:
      "axe.run().then(({ violations }) => JSON.stringify(violations.map(({ id }) => id)))",
    awaitPromise: true,
  });
  expect(result.value).toBe("[]");
}
