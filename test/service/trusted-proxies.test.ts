/** Who is believed when it says whose request it forwards: `listen.trustedProxies`, and nobody else. */
import { IncomingMessage } from "node:http";
import { Socket } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ExchangeAnswer } from "../../service/agent/exchange.ts";
import { createTrustedProxies } from "../../service/edge/trusted-proxies.ts";
import { exchangeRaw } from "../support/tls-edge.ts";
import { problemIn, startTestSidecar, type TestSidecar } from "../support/sidecar.ts";

const CLIENT = "198.51.100.9";
const BLOCKED = "203.0.113.5";
const rules = [{ name: "bad-network", action: "block", networks: ["203.0.113.0/24"] }] as const;

function seenBy(answer: ExchangeAnswer): Record<string, string> {
  const body = JSON.parse(Buffer.from(answer.body).toString()) as {
    headers: Record<string, string>;
  };
  return body.headers;
}

describe("the client's address", () => {
  const proxies = createTrustedProxies(["10.0.0.0/8", "2001:db8::/32", "127.0.0.1"]);
  const addressOf = (remote: string | undefined, told?: string): string | undefined => {
    const socket = new Socket();
    Object.defineProperty(socket, "remoteAddress", { value: remote });
    const request = new IncomingMessage(socket);
    if (told !== undefined) request.headers["x-forwarded-for"] = told;
    return proxies.clientAddress(request);
  };

  it("is the connection's, whatever somebody who is not trusted says", () => {
    expect(addressOf(CLIENT, "10.0.0.1")).toBe(CLIENT);
    expect(addressOf("11.0.0.1", BLOCKED)).toBe("11.0.0.1");
    expect(addressOf(undefined, BLOCKED)).toBeUndefined();
  });

  it("is read from the end of the list, and only as far as trust reaches", () => {
    for (const [told, client] of [
      [CLIENT, CLIENT],
      [`${BLOCKED}, ${CLIENT}`, CLIENT],
      [`${BLOCKED},${CLIENT}, 10.1.2.3`, CLIENT],
      [`garbage, ${CLIENT} ,10.1.2.3`, CLIENT],
      ["2001:db8::7, 10.0.0.9", "2001:db8::7"],
      ["2001:dead::7, 10.0.0.9", "2001:dead::7"],
    ] as const) {
      for (const proxy of ["10.0.0.1", "::ffff:10.0.0.1", "127.0.0.1", "2001:db8::1"]) {
        expect(addressOf(proxy, told), `${proxy}: ${told}`).toBe(client);
      }
    }
  });

  it("is not known where a trusted proxy says nothing that can be read", () => {
    for (const told of [undefined, "", "unknown", `${CLIENT}:80`, `${CLIENT},`, "_hidden"]) {
      expect(addressOf("10.0.0.1", told), told).toBeUndefined();
    }
  });
});

describe("an edge that trusts other proxies than this client", () => {
  let target: TestSidecar;
  beforeAll(async () => {
    target = await startTestSidecar({
      listen: { trustedProxies: ["192.0.2.0/24"] },
      edge: { authorize: { headers: "forwarded" } },
    });
  });
  afterAll(() => target.stop());

  it("rejects its question about another's request, with a good token, too", async () => {
    const headers = { "x-forwarded-host": target.host, "x-forwarded-for": CLIENT };
    const authorization = await target.mint();
    const refused = await target.get("/.stile/authorize", { ...headers, authorization });
    expect([refused.status, problemIn(refused).type]).toEqual([
      403,
      "urn:stile:problem:service-proxy-untrusted",
    ]);
    // And nothing was spent.
    expect((await target.get("/", { authorization })).status).toBe(200);
  });

  it("gives the upstream the connection's address and host, not those that the client names", async () => {
    const answer = await target.get("/", {
      authorization: await target.mint(),
      "x-forwarded-for": BLOCKED,
      "x-forwarded-host": "evil.example",
      "x-forwarded-proto": "gopher",
      "x-original-url": "/admin",
      forwarded: `for=${BLOCKED}`,
      "stile-admission": "open",
    });
    const seen = seenBy(answer);
    expect(seen).toMatchObject({
      "x-forwarded-for": "127.0.0.1",
      "x-forwarded-host": target.host,
      "x-forwarded-proto": "https",
      "stile-admission": "token",
    });
    expect(seen).not.toHaveProperty("forwarded");
    expect(seen).not.toHaveProperty("x-original-url");
  });
});

describe("an edge behind a proxy that it trusts", () => {
  let target: TestSidecar;
  beforeAll(async () => {
    target = await startTestSidecar({
      listen: { trustedProxies: ["127.0.0.0/8"] },
      edge: { rules, redemptionContext: "window+network" },
      limits: { requestsPerMinute: 3 },
    });
  });
  afterAll(() => target.stop());
  const from = (address: string): Record<string, string> => ({ "x-forwarded-for": address });

  /** A token for the network that it is asked for from. */
  async function mintFrom(address: string): Promise<string> {
    const answer = await target.get("/", from(address));
    return target.mintFor(answer);
  }

  it("judges and forwards by the client that the proxy names", async () => {
    const authorization = await mintFrom(CLIENT);
    expect((await target.get("/", { ...from(BLOCKED), authorization })).status).toBe(403);
    const spoofed = `${BLOCKED}, ${CLIENT}`;
    const answer = await target.get("/", { ...from(spoofed), authorization });
    expect(seenBy(answer)["x-forwarded-for"]).toBe(CLIENT);
  });

  it("binds challenges to the client's network, and rejects a proxy that does not say it", async () => {
    const authorization = await mintFrom(CLIENT);
    const elsewhere = await target.get("/", { ...from("192.0.2.77"), authorization });
    expect(problemIn(elsewhere).type).toBe("urn:stile:problem:token-challenge-mismatch");
    for (const told of [undefined, "unknown"]) {
      const headers: Record<string, string> = told === undefined ? {} : from(told);
      expect((await target.get("/", headers)).status).toBe(400);
    }
    expect((await target.get("/", { ...from(CLIENT), authorization })).status).toBe(200);
  });

  it("takes nothing from the proxy's TLS connection: a second use of a token there is no repeat", async () => {
    const authorization = await mintFrom(CLIENT);
    const request = `GET / HTTP/1.1\r\nHost: ${target.host}\r\nX-Forwarded-For: ${CLIENT}\r\nAuthorization: ${authorization}\r\n`;
    const answers = await exchangeRaw(
      target.port,
      target.ca,
      `${request}\r\n${request}Connection: close\r\n\r\n`,
    );
    const statuses = [...answers.matchAll(/^HTTP\/1\.1 (\d+)/gm)].map((match) => match[1]);
    expect(statuses).toEqual(["200", "401"]);
  });

  it("counts the requests of each client apart", async () => {
    const ask = async (address: string): Promise<number> =>
      (await target.get("/.well-known/jwks.json", from(address))).status;
    const statuses = [];
    for (let i = 0; i < 4; i += 1) statuses.push(await ask("198.51.100.1"));
    expect(statuses).toEqual([200, 200, 200, 429]);
    expect(await ask("198.51.100.2")).toBe(200);
  });
});

describe("the configuration of what is before the listener", () => {
  it("rejects settings that would believe nobody, everybody, or what is not a network", async () => {
    const trusted = { trustedProxies: ["127.0.0.1"] };
    for (const options of [
      { edge: { authorize: { headers: "forwarded" } } },
      { listen: trusted, edge: { redemptionContext: "connection" } },
      { listen: { trustedProxies: ["10.1.2.3/8"] } },
      { listen: { trustedProxies: ["proxy.example"] } },
    ] as const) {
      await expect(startTestSidecar(options)).rejects.toMatchObject({
        code: "SERVICE_CONFIG_INVALID",
      });
    }
  });
});
