/**
 * What a person waits for, in real Chromium with a virtual authenticator, which touches at once: from the
 * navigation to a page that can be touched, and from the touch, with a batch of ten, to the site.
 */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { prepareDevelopment } from "../service/dev/development.ts";
import { startDemoUpstream } from "../service/dev/demo-upstream.ts";
import { startSidecar } from "../service/sidecar.ts";
import { CHROMIUM, launchBrowser, newVisitor, stateIs } from "../test/web/browser.ts";
import { freePort } from "../test/support/free-port.ts";

export interface PageFigures {
  /** Milliseconds, medians. */
  readonly interactiveMs: number;
  readonly admittedMs: number;
  readonly worstAdmittedMs: number;
  readonly visits: number;
}

const VISITS = 10;

/** @returns undefined where Chromium is missing */
export async function benchPage(): Promise<PageFigures | undefined> {
  if (CHROMIUM === undefined || !existsSync(CHROMIUM)) return undefined;
  const dir = mkdtempSync(join(tmpdir(), "stile-bench-page-"));
  const upstream = await startDemoUpstream();
  const port = await freePort();
  const { config } = await prepareDevelopment({
    dir,
    port,
    operatorListen: "127.0.0.1:0",
    upstream: upstream.url,
    logLevel: "silent",
    clock: Date.now,
  });
  const log = { write: (): void => undefined, flush: (): void => undefined };
  const sidecar = await startSidecar(config, { clock: Date.now, log });
  const browser = await launchBrowser();
  try {
    const interactive: number[] = [];
    const admitted: number[] = [];
    // The first visit warms up.
    for (let visit = 0; visit <= VISITS; visit += 1) {
      const { context, page } = await newVisitor(browser);
      const started = performance.now();
      await page.goto(config.publicUrl);
      await stateIs(page, "ready");
      const ready = performance.now();
      // A listener in the page says when, without what a poll would add.
      const arrived = page.getByText("you were let in").waitFor();
      await page.keyboard.press("Enter");
      await arrived;
      const ended = performance.now();
      await context.close();
      if (visit === 0) continue;
      interactive.push(ready - started);
      admitted.push(ended - ready);
    }
    return {
      interactiveMs: median(interactive),
      admittedMs: median(admitted),
      worstAdmittedMs: Math.max(...admitted),
      visits: VISITS,
    };
  } finally {
    await browser.close();
    await sidecar.stop();
    await upstream.stop();
    rmSync(dir, { recursive: true, force: true });
  }
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}
