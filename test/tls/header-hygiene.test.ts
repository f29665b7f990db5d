/** What is known of a header by its name is remembered: that must change no answer. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expect, test } from "vitest";
import {
  isSpoofable,
  lowerName,
  requestHeadersToForward,
  responseHeadersToForward,
} from "../../tls/header-hygiene.ts";

const NAMES = ["X-Real-IP", "x_forwarded_FOR", "Connection", "Stile-Agent", "Accept", "x.y", "é"];

function judged(): unknown[] {
  return NAMES.map((name) => [
    isSpoofable(name),
    lowerName(name),
    requestHeadersToForward([name, "v"], ["accept"]),
    responseHeadersToForward([
      name,
      "v",
      "CONNECTION",
      "x.y, Content-Length",
      "content-length",
      "1",
    ]),
  ]);
}

test("gives the same answers once more names have come than are remembered", () => {
  const first = judged();
  expect(first).toStrictEqual(judged());
  for (let i = 0; i < 5_000; i += 1) {
    expect(isSpoofable(`X-Forwarded-${i}`)).toBe(true);
    expect(isSpoofable(`n${i}`)).toBe(false);
  }
  expect(judged()).toStrictEqual(first);
});

test("takes no name for another that has the same low bytes", () => {
  expect(isSpoofable("Accept\u0100")).toBe(false);
  // U+2160 and others fold to letters of more than a byte; \u212a, the kelvin sign, folds to k.
  expect(requestHeadersToForward(["\u0178-real-ip", "v", "X-Real-IP", "v"], [])).toStrictEqual([]);
  expect(isSpoofable("X-Real-IP")).toBe(true);
  expect(lowerName("Accept")).toBe("accept");
});

test("does not keep the heads that names were cut from", () => {
  setFlagsFromString("--expose-gc");
  const collectGarbage = runInNewContext("gc") as () => void;
  collectGarbage();
  const before = process.memoryUsage().heapUsed;
  for (let i = 0; i < 1_000; i += 1) {
    const head = `a-name-that-is-sliced-${i}: ${"x".repeat(100_000)}`;
    lowerName(Buffer.from(head, "latin1").toString("latin1").slice(0, head.indexOf(":")));
  }
  collectGarbage();
  expect(process.memoryUsage().heapUsed - before).toBeLessThan(20_000_000);
});
