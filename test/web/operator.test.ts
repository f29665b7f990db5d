/** The operator's view in real Chromium: live, complete, accessible, and without a name of anyone. */
import { readFileSync } from "node:fs";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTestSidecar, type TestSidecar } from "../support/sidecar.ts";
import { chromiumMissing, launchBrowser, newVisitor } from "./browser.ts";

const axe = readFileSync("node_modules/axe-core/axe.min.js", "utf8");

describe.skipIf(chromiumMissing)("the operator's view", () => {
  let browser: Browser;
  let target: TestSidecar;
  beforeAll(async () => {
    [browser, target] = await Promise.all([launchBrowser(), startTestSidecar()]);
  });
  afterAll(async () => {
    await browser.close();
    await target.stop();
  });

  it("shows admissions, challenges and keys as they happen", async () => {
    const { context, errors, page, session } = await newVisitor(browser);
    await page.goto(`${target.sidecar.operatorAddress}/`);
    await page.getByText("ready", { exact: true }).waitFor();
    await page.getByText("active").waitFor();
    for (let i = 0; i < 7; i += 1) await target.get("/", { cookie: "a-visitor=1" });
    const authorization = await target.mint();
    await target.get("/private-path", { authorization });
    await page.getByText(/^SERVICE_TOKEN_REQUIRED: 8 /).waitFor();
    await page.getByText(/^token: 1 /).waitFor();
    await page.getByText(/^fresh: 1 /).waitFor();
    expect(await page.locator("#challenges polyline").count()).toBe(1);
    const shown = await page.content();
    for (const name of ["127.0.0.1", "private-path", "a-visitor", authorization]) {
      expect(shown).not.toContain(name);
    }
    await session.send("Runtime.evaluate", { expression: axe });
    const { result } = await session.send("Runtime.evaluate", {
      expression:
        "axe.run().then(({ violations }) => JSON.stringify(violations.map(({ id }) => id)))",
      awaitPromise: true,
    });
    expect(result.value).toBe("[]");
    expect(errors).toEqual([]);
    await context.close();
  });
});
