/** The client for single-page applications, in real Chromium. */
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTestSidecar, type TestSidecar } from "../support/sidecar.ts";
import { chromiumMissing, launchBrowser, newVisitor, type Visitor } from "./browser.ts";

/** An application that calls its API, and asks for a touch where its client says so. */
const APPLICATION = `<!doctype html><title>app</title><button id="enter">enter</button>
<script type="module">
  import { createStileClient } from "/.stile/client.js";
  const client = createStileClient({ batch: 5 });
  window.call = async (init) => {
    const answer = await client.fetch("/api?a=1", init);
    return { status: answer.status, body: await answer.text() };
  };
  window.client = client;
  document.getElementById("enter").onclick = () =>
    client.enter().then(() => (document.title = "entered"), ({ kind }) => (document.title = kind));
  document.title = "loaded";
</script>`;

describe.skipIf(chromiumMissing)("an application in Chromium", () => {
  let browser: Browser;
  let target: TestSidecar;
  beforeAll(async () => {
    [browser, target] = await Promise.all([launchBrowser(), startTestSidecar()]);
  });
  afterAll(async () => {
    await browser.close();
    await target.stop();
  });

  async function openApplication(): Promise<Visitor> {
    const visitor = await newVisitor(browser);
    await visitor.page.route(`${target.url}/app`, (route) =>
      route.fulfill({ contentType: "text/html", body: APPLICATION }),
    );
    await visitor.page.goto(`${target.url}/app`);
    await titleIs(visitor, "loaded");
    return visitor;
  }
  const titleIs = async ({ page }: Visitor, title: string): Promise<void> => {
    await expect.poll(() => page.title(), { timeout: 10_000 }).toBe(title);
  };
  const call = ({ page }: Visitor, init = ""): Promise<{ status: number; body: string }> =>
    page.evaluate(`window.call(${init})`);

  it("hands a 401 on until its person was asked, then answers them by itself", async () => {
    const visitor = await openApplication();
    expect((await call(visitor)).status).toBe(401);
    await visitor.page.getByRole("button").click();
    await titleIs(visitor, "entered");
    expect(await visitor.page.evaluate("window.client.count()")).toBe(5);
    const posted = await call(visitor, `{ method: "POST", body: "what is sent" }`);
    expect(posted.status).toBe(200);
    expect(posted.body).toContain('"method": "POST"');
    // The token is the edge's: the application behind it never sees it.
    expect(posted.body).not.toContain("PrivateToken");
    // The clearance cookie carries the next ones.
    expect((await call(visitor)).status).toBe(200);
    expect(await visitor.page.evaluate("window.client.count()")).toBe(4);
    expect(visitor.errors).toEqual([]);
    await visitor.context.close();
  });

  it("renews ahead of need, gives no token twice, and forgets when it is told to", async () => {
    const visitor = await openApplication();
    await call(visitor);
    await visitor.page.getByRole("button").click();
    await titleIs(visitor, "entered");
    await visitor.context.clearCookies();
    const used = new Set<string>();
    visitor.page.on("request", (request) => {
      const { authorization } = request.headers();
      if (authorization?.startsWith("PrivateToken") !== true) return;
      expect(used.has(authorization)).toBe(false);
      used.add(authorization);
    });
    // At once, and without a cookie: each answers its own 401.
    const together = await visitor.page.evaluate(
      `Promise.all(Array.from({ length: 4 }, () => window.call({ credentials: "omit" })))`,
    );
    expect((together as { status: number }[]).map(({ status }) => status)).toEqual([
      200, 200, 200, 200,
    ]);
    expect(used.size).toBe(4);
    await expect
      .poll(() => visitor.page.evaluate("window.client.count()"), { timeout: 10_000 })
      .toBeGreaterThanOrEqual(5);
    await visitor.page.evaluate("window.client.clear()");
    await visitor.context.clearCookies();
    expect((await call(visitor)).status).toBe(401);
    await visitor.context.close();
  });

  it("tells its person's no from other failures", async () => {
    const visitor = await openApplication();
    await visitor.page.getByRole("button").click();
    await titleIs(visitor, "refused");
    await call(visitor);
    await visitor.setTouch(false);
    await visitor.page.getByRole("button").click();
    await titleIs(visitor, "cancelled");
    await visitor.context.close();
  });
});
