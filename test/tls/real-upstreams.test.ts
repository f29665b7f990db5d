/**
 * Request smuggling and header spoofing through a whole sidecar to real servers: nginx and HAProxy say what they took
 * for a request. Each message starts with a request that a clearance admits; what hides in it has none, and no reader
 * may take it for a request that was admitted.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  hasUpstream,
  type LoggingUpstream,
  LOGGING_UPSTREAMS,
  startLoggingUpstream,
} from "../support/logging-upstreams.ts";
import { openRaw } from "../support/raw-client.ts";
import { startTestSidecar, type TestSidecar } from "../support/sidecar.ts";
import { readAll } from "../support/tls-edge.ts";
import { SMUGGLING, type SmugglingPlace } from "./smuggling-messages.ts";
import { waitFor } from "../support/wait-for.ts";

const BOUND_MS = 10_000;

const CASES = SMUGGLING.map((one, i) => ({ ...one, tag: `case-${i}-` }));

/** All that the edge says to the message and a last request behind it, until it closes. */
async function answerTo(
  target: TestSidecar,
  cookie: string,
  tag: string,
  text: (at: SmugglingPlace) => string,
): Promise<string> {
  const { host } = target;
  const lines = `Host: ${host}\r\nCookie: ${cookie}\r\n`;
  const inner = `GET /inner-${tag} HTTP/1.1\r\nHost: ${host}\r\n\r\n`;
  const last = `GET /last-${tag} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`;
  const socket = await openRaw(target);
  socket.on("error", () => undefined);
  const answer = readAll(socket);
  socket.write(Buffer.from(text({ host, lines, path: `/${tag}`, inner }) + last, "latin1"));
  let isCut = false;
  const cut = setTimeout(() => {
    isCut = true;
    socket.destroy();
  }, BOUND_MS);
  const all = await answer;
  clearTimeout(cut);
  return isCut ? `still open after ${all}` : all;
}

describe.each(LOGGING_UPSTREAMS)("before %s", (name) => {
  const isHere = hasUpstream(name);
  describe.each(["fast", "general"] as const)("on the %s path", (path) => {
    const dir = mkdtempSync(join(tmpdir(), "stile-upstream-"));
    let upstream: LoggingUpstream;
    let target: TestSidecar;
    /** What the edge answered to each message, by its tag. */
    const answers = new Map<string, string>();

    beforeAll(async () => {
      if (!isHere) return;
      upstream = await startLoggingUpstream(name, dir);
      target = await startTestSidecar({
        upstreamUrl: `http://127.0.0.1:${upstream.port}`,
        edge: { fastPath: path === "fast" },
      });
      const admitted = await target.get("/first", { authorization: await target.mint() });
      const cookie = admitted.headers["set-cookie"]?.[0]?.split(";")[0] ?? "";
      const send = async ({ tag, text }: (typeof CASES)[number]): Promise<void> => {
        answers.set(tag, await answerTo(target, cookie, tag, text));
      };
      await Promise.all(CASES.map(send));
      // A server writes its log behind its answer.
      const logged = (): boolean => upstream.requests().some(({ uri }) => uri === "/plain");
      expect((await target.get("/plain", { cookie })).status).toBe(200);
      await waitFor(() => expect(logged()).toBe(true));
    });
    afterAll(async () => {
      await target?.stop();
      await upstream?.stop();
      rmSync(dir, { recursive: true });
    });

    it.skipIf(!isHere).each(CASES)("$name: $outcome", ({ outcome, tag }) => {
      const text = answers.get(tag) ?? "";
      const statuses = [...text.matchAll(/HTTP\/1\.1 ([1-5]\d\d) /g)].map(([, code]) => code);
      const seen = upstream.requests().filter(({ uri }) => uri.includes(tag));
      expect(text).not.toContain("still open");
      if (outcome !== "once") {
        expect(statuses).toHaveLength(1);
        expect(["400", "421", "501", "505"]).toContain(statuses[0]);
        const uris = seen.map(({ uri }) => uri);
        if (outcome === "refused") expect(uris).toEqual([]);
        else expect([[], [`/${tag}`]]).toContainEqual(uris);
        return;
      }
      // Whatever follows is answered as what it is: without a clearance.
      expect(statuses[0]).toBe("200");
      expect(new Set(statuses.slice(1))).toEqual(new Set(["401"]));
      expect(seen).toHaveLength(1);
      expect(seen[0]?.uri).toMatch(new RegExp(`^/${tag}`));
      expect(seen[0]).toMatchObject({
        host: target.host,
        admission: "clearance",
        forwardedFor: "127.0.0.1",
        cookie: "",
      });
    });

    it.skipIf(!isHere)("nothing else has reached it", () => {
      const { length } = CASES.filter(({ outcome }) => outcome !== "refused");
      expect(upstream.requests().length).toBeLessThanOrEqual(length + 2);
      const others = upstream.requests().filter(({ admission }) => admission !== "clearance");
      expect(others.map(({ uri }) => uri)).toEqual(["/first"]);
    });
  });
});
