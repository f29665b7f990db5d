/** Real Chromium with a virtual authenticator, on a development sidecar whose demo upstream answers. */
import { existsSync } from "node:fs";
import {
  type Browser,
  type BrowserContext,
  type CDPSession,
  chromium,
  type Page,
} from "playwright-core";

export const CHROMIUM: string | undefined = ["/usr/bin/chromium", "/usr/bin/chromium-browser"].find(
  (path) => existsSync(path),
);
export const chromiumMissing: boolean = CHROMIUM === undefined;

export function launchBrowser(): Promise<Browser> {
  return chromium.launch({
    ...(CHROMIUM === undefined ? {} : { executablePath: CHROMIUM }),
    args: ["--no-sandbox"],
  });
}

export interface Visitor {
  readonly context: BrowserContext;
  readonly page: Page;
  /** What the console said that is an error, and what was thrown. */
  readonly errors: string[];
  /** Of the page; the authenticator lives as long as it does. */
  readonly session: CDPSession;
  /** Whether a touch of the authenticator succeeds. */
  readonly setTouch: (isGiven: boolean) => Promise<void>;
}

/** A browser profile of its own, with an authenticator that touches itself. */
export async function newVisitor(
  browser: Browser,
  options: { readonly locale?: string; readonly dark?: boolean; readonly width?: number } = {},
): Promise<Visitor> {
  const { dark = false, locale = "en-US", width = 800 } = options;
  const context = await browser.newContext({
    ignoreHTTPSErrors: true,
    locale,
    colorScheme: dark ? "dark" : "light",
    viewport: { width, height: 720 },
  });
  const page = await context.newPage();
  const errors: string[] = [];
  watch(page, errors);
  const session = await context.newCDPSession(page);
  await session.send("WebAuthn.enable");
  const { authenticatorId } = await session.send("WebAuthn.addVirtualAuthenticator", {
    options: {
      protocol: "ctap2",
      transport: "internal",
      hasResidentKey: true,
      hasUserVerification: true,
      isUserVerified: true,
      automaticPresenceSimulation: true,
    },
  });
  return {
    context,
    page,
    errors,
    session,
    setTouch: async (isGiven) => {
      await session.send("WebAuthn.setUserVerified", { authenticatorId, isUserVerified: isGiven });
    },
  };
}

/** A 401 of the page itself is what the test is about; everything else counts. */
export function watch(page: Page, errors: string[]): void {
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => {
    if (message.type() !== "error" || /status of (401|429|403|503)/.test(message.text())) return;
    errors.push(message.text());
  });
}

/** Until the page shows this state. */
export async function stateIs(page: Page, state: string): Promise<void> {
  await page.locator(`body[data-state="${state}"]`).waitFor({ timeout: 10_000 });
}

/** Until what the application says is there. */
export async function isAdmitted(page: Page): Promise<void> {
  await page.getByText("you were let in").waitFor({ timeout: 10_000 });
}
