/** Settings of the stage before TLS that are refused before anything starts. */
import { expect, it } from "vitest";
import { checkConfig } from "../../service/config/index.ts";
import type { PassthroughConfig } from "../../service/config/passthrough.ts";
import { createTrustedProxies } from "../../service/edge/trusted-proxies.ts";
import { composeFront } from "../../service/front.ts";

/** What the start would say. */
function refusalOf(listen: object): string {
  try {
    const config = checkConfig({
      publicUrl: "https://www.example.org",
      passphraseFile: "/run/secrets/pass",
      tls: { certificateFile: "/etc/tls.pem", keyFile: "/etc/tls.key" },
      edge: { hosts: ["a.hosts.example:8443"], issuerName: "x", upstream: "http://127.0.0.1:8080" },
      attester: { manufacturerRootsFile: "/etc/roots.pem" },
      listen,
    });
    const log = { write: () => undefined, flush: () => undefined };
    composeFront({ config, log, proxies: createTrustedProxies([]) });
  } catch (error) {
    expect(error).toMatchObject({ code: "SERVICE_CONFIG_INVALID" });
    return (error as Error).message;
  }
  return "";
}

const route = (change: Partial<PassthroughConfig>): Partial<PassthroughConfig> => ({
  names: ["*.pass.example"],
  upstream: "127.0.0.1:1",
  ...change,
});

it("accepts networks, and upstreams of each kind", () => {
  const upstreams = [
    "127.0.0.1:80",
    "[2001:db8::1]:443",
    "app.internal:65535",
    "unix:/run/app.sock",
  ];
  const passthrough = upstreams.map((upstream, i) => route({ names: [`${i}.example`], upstream }));
  expect(refusalOf({ passthrough, proxyProtocol: ["10.0.0.0/8", "2001:db8::/32", "::1"] })).toBe(
    "",
  );
});

it.each(["10.1.2.3/8", "proxy.example", "::1/129", ""])("rejects %j as a network", (network) => {
  expect(refusalOf({ proxyProtocol: [network] })).toContain("listen.proxyProtocol");
});

it.each<[string, readonly Partial<PassthroughConfig>[], string]>([
  ["a name in two routes", [route({}), route({})], "*.pass.example is there twice"],
  [
    "the host of publicUrl",
    [route({ names: ["www.example.org"] })],
    "www.example.org is a host of",
  ],
  ["a host of the edge", [route({ names: ["a.hosts.example"] })], "a.hosts.example is a host of"],
  ["a wildcard over one", [route({ names: ["*.hosts.example"] })], "a.hosts.example is a host of"],
  ["a URL", [route({ upstream: "http://127.0.0.1:1" })], "listen.passthrough.0.upstream"],
  ["no port", [route({ upstream: "127.0.0.1" })], "listen.passthrough.0.upstream"],
  ["a port too large", [route({ upstream: "127.0.0.1:65536" })], "listen.passthrough.0.upstream"],
  ["a path", [route({ upstream: "127.0.0.1:1/x" })], "listen.passthrough.0.upstream"],
  ["a user", [route({ upstream: "a@127.0.0.1:1" })], "listen.passthrough.0.upstream"],
  ["a relative socket", [route({ upstream: "unix:x" })], "listen.passthrough.0.upstream"],
  ["a name in upper case", [route({ names: ["A.example"] })], "listen.passthrough.0.names.0"],
  ["a wildcard in a name", [route({ names: ["a.*.example"] })], "listen.passthrough.0.names.0"],
  ["no name", [route({ names: [] })], "listen.passthrough.0.names"],
])("rejects %s", (_name, passthrough, message) => {
  expect(refusalOf({ passthrough })).toContain(message);
});
