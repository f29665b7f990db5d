/** Admission rules: what matches, every known way to spell a path past a rule, and the edge that obeys them. */
import { isIP, BlockList } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { EdgeRuleConfig } from "../../service/config/index.ts";
import { ADDRESS_BYTES, isInNetwork, parseNetwork, readAddress } from "../../tls/index.ts";
import { compileRules, type JudgedRequest } from "../../service/edge/rules.ts";
import { openRaw, rawGet } from "../support/raw-client.ts";
import { problemIn, startTestSidecar, type TestSidecar } from "../support/sidecar.ts";
import { readUntil } from "../support/tls-edge.ts";
import { EXAMPLE_KEY } from "../support/websocket-example.ts";

const HOSTS = ["a.example", "b.example:8443"];
const rule = (
  name: string,
  action: EdgeRuleConfig["action"],
  match: Omit<EdgeRuleConfig, "name" | "action"> = {},
): EdgeRuleConfig => ({ name, action, ...match });

function judge(rules: readonly EdgeRuleConfig[], request: Partial<JudgedRequest> = {}): string {
  const { action, rule: name } = compileRules(rules, HOSTS).judge({
    host: "a.example",
    method: "GET",
    target: "/",
    remoteAddress: "192.0.2.1",
    isMethodOverridden: false,
    ...request,
  });
  return `${action} ${name}`;
}

describe("rules", () => {
  it("ask for a token where none matches, and let the first that matches decide", () => {
    expect(judge([])).toBe("token default");
    const rules = [
      rule("login", "token", { paths: ["/admin/login"] }),
      rule("admin", "block", { paths: ["/admin"] }),
      rule("rest", "open"),
    ];
    expect(judge(rules, { target: "/admin/login?next=/admin" })).toBe("token login");
    expect(judge(rules, { target: "/admin/x" })).toBe("block admin");
    expect(judge(rules, { target: "/" })).toBe("open rest");
  });

  it("match whole segments, with or without the slash at the end", () => {
    for (const path of ["/a", "/a/"]) {
      const rules = [rule("r", "open", { paths: [path] })];
      for (const target of ["/a", "/a/", "/a/b", "/a?x=/b", "/a/b.c?"]) {
        expect(judge(rules, { target }), target).toBe("open r");
      }
      for (const target of ["/ab", "/", "/b/a", "/a.html", "/?/a"]) {
        expect(judge(rules, { target }), target).toBe("token default");
      }
    }
    const root = [rule("r", "open", { paths: ["/"] })];
    expect(judge(root, { target: "/anything" })).toBe("open r");
    expect(judge(root, { target: "*", method: "OPTIONS" })).toBe("token default");
  });

  it("match by host, method and network, and only where all that is said holds", () => {
    const rules = [
      rule("r", "open", {
        hosts: ["B.example:8443"],
        methods: ["GET", "HEAD"],
        networks: ["10.0.0.0/8", "2001:db8::/32"],
      }),
    ];
    const matching = { host: "b.example:8443", remoteAddress: "::ffff:10.9.8.7" };
    expect(judge(rules, matching)).toBe("open r");
    expect(judge(rules, { ...matching, remoteAddress: "2001:db8:1::5" })).toBe("open r");
    expect(judge(rules, { ...matching, host: "a.example" })).toBe("token default");
    expect(judge(rules, { ...matching, method: "POST" })).toBe("token default");
    expect(judge(rules, { ...matching, remoteAddress: "11.0.0.1" })).toBe("token default");
  });

  it("rejects a peer without an address and an overridden method where a rule goes by them", () => {
    const networks = [rule("r", "block", { networks: ["10.0.0.0/8"] })];
    expect(judge(networks, { remoteAddress: undefined })).toBe("ambiguous default");
    expect(judge(networks, { remoteAddress: "nonsense" })).toBe("ambiguous default");
    expect(judge([rule("r", "open", { methods: ["GET"] })], { isMethodOverridden: true })).toBe(
      "ambiguous default",
    );
    expect(judge([rule("r", "open")], { isMethodOverridden: true })).toBe("open r");
  });

  it.each([
    ["a rule named default", [rule("default", "open")]],
    ["two rules of one name", [rule("r", "open"), rule("r", "block")]],
    ["a host that is not served", [rule("r", "open", { hosts: ["c.example"] })]],
    ["an encoded path", [rule("r", "open", { paths: ["/%61"] })]],
    ["a path with a query", [rule("r", "open", { paths: ["/a?b"] })]],
    ["a path with dot segments", [rule("r", "open", { paths: ["/a/../b"] })]],
    ["a path with an empty segment", [rule("r", "open", { paths: ["//a"] })]],
    ["a path that ends in a dot", [rule("r", "open", { paths: ["/a./"] })]],
    ["no network", [rule("r", "open", { networks: ["10.0.0.0/33"] })]],
    ["a network with bits behind its prefix", [rule("r", "open", { networks: ["10.0.0.1/8"] })]],
  ])("rejects %s", (_, rules) => {
    expect(() => compileRules(rules, HOSTS)).toThrow(RangeError);
  });
});

/** `/admin` is blocked, `/open` is open, the rest needs a token. */
const guarded = [
  rule("admin", "block", { paths: ["/admin"] }),
  rule("open", "open", { paths: ["/open"] }),
];

describe("a path spelled to pass a rule by", () => {
  it.each([
    "/open/../admin",
    "/open/..",
    "/open/./../admin",
    "/./admin",
    "/open/%2e%2e/admin",
    "/open/.%2E/admin",
    "/open/..;/admin",
    "/open/..;x=1/admin",
    "/open/..%3b/admin",
    "/open%2f..%2fadmin",
    "/open/..%2fadmin",
    "/open%5c..%5cadmin",
    "/open/..\\admin",
    "\\admin",
    "//admin",
    "/open//admin",
    "/;x/admin",
    "/%2fadmin",
    "/admin%2fx",
    "/open/%252e%252e/admin",
    "/%2561dmin",
    "/%u0061dmin",
    "/%c1%a1dmin",
    "/%e0%80%af",
    "/open/%c0%ae%c0%ae/admin",
    "/admin%",
    "/admin%0",
    "/admin%0a",
    "/admin%00",
    "/open/%EF%BC%8E%EF%BC%8E/admin",
    "/open%EF%BC%8F..%EF%BC%8Fadmin",
    "/open/%E2%80%A5/admin",
    "/open/.../admin",
    "/open/..%20/admin",
    "/open/...",
    "/open/%20",
  ])("rejects %s", (target) => {
    expect(judge(guarded, { target })).toBe("ambiguous default");
  });

  it.each([
    "/%61dmin",
    "/%41dmin",
    "/ADMIN",
    "/Admin/x",
    "/admin;x",
    "/admin;x=1/y",
    "/admin%3bx",
    "/admin%3fx",
    "/admin%23x",
    "/admin.",
    "/admin%20",
    "/admin./x",
    "/ADMIN;x",
    "/ad%EF%BD%8Din",
    "/admin?/../open",
  ])("is still blocked as %s", (target) => {
    expect(judge(guarded, { target })).toBe("block admin");
  });

  it("opens nothing that only some upstreams read as open", () => {
    for (const target of ["/OPEN", "/open;x", "/open.", "/open%3fx", "/open%20"]) {
      expect(judge(guarded, { target }), target).toBe("token default");
    }
    for (const target of ["/open", "/%6fpen", "/open/%C3%A9", "/open/a;v=1/B.c", "/open/100%25"]) {
      expect(judge(guarded, { target }), target).toBe("open open");
    }
  });

  it("is left as it is where no rule goes by paths", () => {
    expect(judge([rule("r", "open", { methods: ["GET"] })], { target: "/a/../b" })).toBe("open r");
  });
});

describe("a path as two other parsers read it", () => {
  /** The WHATWG URL parser (Node, browsers) and a case-folding, parameter-cutting container. */
  const resolvers: ((target: string) => string)[] = [
    (target) => decodeURIComponent(new URL(target, "http://u").pathname),
    (target) => decodeURIComponent(new URL(decodeURIComponent(target), "http://u").pathname),
    (target) =>
      decodeURIComponent(new URL(target.replaceAll(/;[^/]*/g, ""), "http://u").pathname)
        .toLowerCase()
        .replaceAll(/\/+/g, "/"),
  ];

  it("never reaches what is blocked, over seeded mixtures of every trick", () => {
    const parts = ["/", "admin", "ADMIN", "open", "..", ".", "%2e", "%2f", "%61dmin", ";x", "%5c"];
    const rules = compileRules(guarded, HOSTS);
    let seed = 20_261_123;
    const next = (below: number): number => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
      return (seed >>> 8) % below;
    };
    let reached = 0;
    for (let i = 0; i < 40_000; i += 1) {
      let target = "/";
      for (let n = next(8); n >= 0; n -= 1) target += parts[next(parts.length)] ?? "";
      const read = resolvers.map((resolve) => {
        try {
          return resolve(target);
        } catch {
          return "";
        }
      });
      if (!read.some((path) => /^\/admin(?:\/|$)/.test(path))) continue;
      reached += 1;
      const { action } = rules.judge({
        host: "a.example",
        method: "GET",
        target,
        remoteAddress: "192.0.2.1",
        isMethodOverridden: false,
      });
      expect(["block", "ambiguous"], target).toContain(action);
    }
    expect(reached).toBeGreaterThan(1_000);
  });
});

describe("networks", () => {
  it("answer as Node's BlockList does", () => {
    const networks = ["10.0.0.0/8", "192.0.2.128/25", "0.0.0.0/0", "198.51.100.7", "2001:db8::/33"];
    networks.push("::/0", "fe80::/10", "2001:db8::1:0:0:1", "::1/128", "::ffff:10.1.0.0/112");
    const addresses = ["10.255.0.1", "11.0.0.0", "192.0.2.127", "192.0.2.129", "198.51.100.7"];
    addresses.push("2001:db8:7fff::1", "2001:db8:8000::1", "::", "::1", "1::", "febf::1", "fec0::");
    addresses.push("2001:db8:0:0:1:0:0:1", "1:2:3:4:5:6:7:8", "::ffff:10.1.2.3", "2001:DB8::A");
    const into = new Uint8Array(ADDRESS_BYTES);
    for (const text of networks) {
      const network = parseNetwork(text);
      const [base = "", bits] = text.split("/");
      const list = new BlockList();
      const family = isIP(base) === 4 ? "ipv4" : "ipv6";
      list.addSubnet(base, Number(bits ?? (family === "ipv4" ? 32 : 128)), family);
      for (const address of addresses) {
        if ((isIP(address) === 4) !== (family === "ipv4")) continue;
        expect(readAddress(address, into)).toBe(true);
        expect(isInNetwork(into, network), `${address} in ${text}`).toBe(
          list.check(address, family),
        );
      }
    }
    expect(readAddress("fe80::1%eth0", into)).toBe(true);
    expect(isInNetwork(into, parseNetwork("fe80::/10"))).toBe(true);
  });

  it.each([
    "",
    "10.0.0.0/",
    "10.0.0/8",
    "10.0.0.0/8/8",
    "::/129",
    "10.0.0.0/-1",
    "x",
    "fe80::1/10",
  ])("rejects %j", (text) => {
    expect(() => parseNetwork(text)).toThrow(RangeError);
  });
});

describe("an edge with rules", () => {
  let target: TestSidecar;
  beforeAll(async () => {
    target = await startTestSidecar({ edge: { rules: guarded } });
  });
  afterAll(() => target.stop());

  it("forwards what is open without a token, and leaves a token that came with it unspent", async () => {
    const authorization = await target.mint();
    const open = await target.get("/open/x", { authorization });
    expect(open.status).toBe(200);
    const { headers } = JSON.parse(Buffer.from(open.body).toString()) as {
      headers: Record<string, string>;
    };
    expect(headers["stile-admission"]).toBe("open");
    expect(headers["authorization"]).toBeUndefined();
    expect(open.headers["set-cookie"]).toBeUndefined();
    expect((await target.get("/other", { authorization })).status).toBe(200);
  });

  it("rejects what is blocked with SERVICE_REQUEST_BLOCKED, with a token too, and keeps it unspent", async () => {
    const authorization = await target.mint();
    const before = target.upstream.hits();
    const blocked = await target.get("/admin", { authorization });
    expect(blocked.status).toBe(403);
    expect(blocked.headers["www-authenticate"]).toBeUndefined();
    expect(problemIn(blocked).type).toBe("urn:stile:problem:service-request-blocked");
    expect(target.upstream.hits()).toBe(before);
    expect((await target.get("/other", { authorization })).status).toBe(200);
  });

  it("rejects what it cannot judge with SERVICE_PATH_AMBIGUOUS, upgrades too", async () => {
    const before = target.upstream.hits();
    const handshake = {
      Connection: "Upgrade",
      Upgrade: "websocket",
      "Sec-WebSocket-Key": EXAMPLE_KEY,
    };
    for (const [path, upgrade, status] of [
      ["/open/../admin", {}, 400],
      ["/open/%2e%2e/admin", {}, 400],
      ["//admin", {}, 400],
      ["/open/..;/admin", handshake, 400],
      ["/%61dmin", handshake, 403],
    ] as const) {
      const socket = await openRaw(target);
      socket.write(rawGet(target, path, upgrade));
      // Head and body may come in pieces.
      const problem = status === 400 ? "service-path-ambiguous" : "service-request-blocked";
      const answer = await readUntil(socket, problem);
      socket.destroy();
      expect(answer, path).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    }
    expect(target.upstream.hits()).toBe(before);
    const text = await target.sidecar.metrics.registry.metrics();
    expect(text).toMatch(/stile_rule_verdicts_total\{rule="default",verdict="ambiguous"\} 4/);
    expect(text).toMatch(/stile_rule_verdicts_total\{rule="admin",verdict="block"\} 2/);
  });

  it("asks for a token for the rest", async () => {
    expect((await target.get("/")).status).toBe(401);
  });
});

describe("an edge that monitors", () => {
  let target: TestSidecar;
  beforeAll(async () => {
    const rules = [rule("api", "token", { paths: ["/api"] }), ...guarded];
    target = await startTestSidecar({ edge: { rules, mode: "monitor" } });
  });
  afterAll(() => target.stop());

  it("forwards what it would have challenged, counts it by rule, and blocks what is blocked", async () => {
    for (const path of ["/api/1", "/api/2", "/"]) {
      const answer = await target.get(path, { authorization: 'PrivateToken token="AAI="' });
      expect(answer.status).toBe(200);
      expect(Buffer.from(answer.body).toString()).toContain('"stile-admission": "monitor"');
    }
    expect((await target.get("/admin")).status).toBe(403);
    const text = await target.sidecar.metrics.registry.metrics();
    expect(text).toMatch(/stile_rule_verdicts_total\{rule="api",verdict="monitor"\} 2/);
    expect(text).toMatch(/stile_rule_verdicts_total\{rule="default",verdict="monitor"\} 1/);
  });
});

describe("the configuration of an edge", () => {
  it("rejects rules where another proxy forwards, and a rule that cannot be compiled", async () => {
    const authorize = { headers: "original" } as const;
    for (const edge of [
      { rules: guarded, authorize },
      { rules: [rule("r", "open", { networks: ["10.0.0.1/8"] })] },
    ]) {
      const listen = { trustedProxies: ["127.0.0.0/8"] };
      await expect(startTestSidecar({ listen, edge })).rejects.toMatchObject({
        code: "SERVICE_CONFIG_INVALID",
      });
    }
  });
});
