/** Every state of the page and the operator's view as pictures, for people to look at: `npm run screenshots`. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Page, Route } from "playwright-core";
import { startTestSidecar } from "../test/support/sidecar.ts";
import { launchBrowser, newVisitor, stateIs, type Visitor } from "../test/web/browser.ts";

const folder = process.argv[2] ?? join(".stile", "screenshots");
mkdirSync(folder, { recursive: true });

const answer =
  (status: number, headers: Record<string, string> = {}) =>
  (route: Route): Promise<void> =>
    route.fulfill({ status, headers, body: "{}" });

/** What makes the page fail, by its state. */
const FAILURES: Readonly<Record<string, (visitor: Visitor) => Promise<unknown>>> = {
  "failed-cancelled": ({ setTouch }) => setTouch(false),
  "failed-offline": ({ context }) => context.setOffline(true),
  "failed-refused": ({ context }) => context.route("**/attest/webauthn/evidence", answer(403)),
  "failed-exhausted": ({ context }) =>
    context.route("**/token-request", answer(429, { "retry-after": "3600" })),
  "failed-busy": ({ context }) => context.route("**/token-request", answer(503)),
  "failed-cookies": ({ context }) => context.route("**/.stile/clearance", answer(204)),
};
const LOOKS = {
  light: {},
  dark: { dark: true },
  phone: { width: 340, locale: "de-DE" },
  chinese: { locale: "zh-CN" },
} as const;

const browser = await launchBrowser();
const target = await startTestSidecar();
try {
  const shoot = async (page: Page, name: string): Promise<void> => {
    await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
    console.log(join(folder, `${name}.png`));
  };
  for (const [look, options] of Object.entries(LOOKS)) {
    const { context, page } = await newVisitor(browser, options);
    await page.goto(target.url);
    await stateIs(page, "ready");
    await shoot(page, `ready-${look}`);
    await context.close();
  }
  for (const [state, cause] of Object.entries(FAILURES)) {
    const visitor = await newVisitor(browser);
    await visitor.page.goto(target.url);
    await stateIs(visitor.page, "ready");
    await cause(visitor);
    await visitor.page.locator("#continue").click();
    await stateIs(visitor.page, state);
    await shoot(visitor.page, state);
    await visitor.context.close();
  }
  const visitor = await newVisitor(browser, { width: 1_000 });
  await visitor.page.addInitScript("delete window.PublicKeyCredential");
  await visitor.page.goto(target.url);
  await stateIs(visitor.page, "failed-unsupported");
  await shoot(visitor.page, "failed-unsupported");
  await visitor.page.goto(target.sidecar.operatorAddress);
  for (let i = 0; i < 6; i += 1) {
    for (let visit = 0; visit < 5 + 3 * i; visit += 1) await target.get("/");
    await visitor.page.waitForTimeout(2_000);
  }
  await shoot(visitor.page, "operator");
} finally {
  await browser.close();
  await target.stop();
}
