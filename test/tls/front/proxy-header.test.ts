/** The PROXY header that we write: bytes that HAProxy and nginx wrote, and what a real nginx reads of ours. */
import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  encodeProxyHeader,
  type ProxiedConnection,
  type ProxyVersion,
} from "../../../tls/index.ts";
import { freePort } from "../../support/free-port.ts";
import {
  hasProgram,
  nginxFolders,
  type ProxyProcess,
  startProxy,
} from "../../support/proxy-process.ts";
import { readAll } from "../../support/tls-edge.ts";

const between = (from: string, to: string, ports = [4_242, 443]): ProxiedConnection => ({
  source: { address: from, port: ports[0] ?? 0 },
  destination: { address: to, port: ports[1] ?? 0 },
});
const textOf = (version: ProxyVersion, of?: ProxiedConnection): string =>
  Buffer.from(encodeProxyHeader(version, of)).toString(version === "v1" ? "latin1" : "hex");

describe("a written header", () => {
  test("is what nginx and HAProxy write", () => {
    expect(textOf("v1", between("172.19.0.1", "172.19.0.3", [42_272, 80]))).toBe(
      "PROXY TCP4 172.19.0.1 172.19.0.3 42272 80\r\n",
    );
    expect(textOf("v2", between("172.19.0.1", "172.19.0.3", [42_578, 80]))).toBe(
      "0d0a0d0a000d0a515549540a2111000cac130001ac130003a6520050",
    );
  });

  test("says nothing of a connection whose ends are not known", () => {
    expect(textOf("v1")).toBe("PROXY UNKNOWN\r\n");
    expect(textOf("v2")).toBe("0d0a0d0a000d0a515549540a20000000");
  });

  test("has both ends in one family", () => {
    expect(textOf("v1", between("::ffff:192.0.2.1", "127.0.0.1"))).toContain("TCP4 192.0.2.1 127");
    expect(textOf("v1", between("192.0.2.1", "2001:db8::1"))).toBe(
      "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 4242 443\r\n",
    );
    expect(textOf("v2", between("192.0.2.1", "2001:db8::1"))).toContain(
      "2121002400000000000000000000ffffc000020120010db8",
    );
  });

  test("rejects what is no address and no port", () => {
    for (const version of ["v1", "v2"] as const) {
      for (const address of ["", "a.example", "1.2.3", "1.2.3.4 5.6.7.8"]) {
        expect(() => encodeProxyHeader(version, between(address, "::1"))).toThrow(RangeError);
        expect(() => encodeProxyHeader(version, between("::1", address))).toThrow(RangeError);
      }
      for (const port of [-1, 65_536, 1.5, Number.NaN]) {
        expect(() => encodeProxyHeader(version, between("::1", "::2", [port, 1]))).toThrow(
          RangeError,
        );
      }
    }
  });
});

describe.skipIf(!hasProgram("nginx"))("a written header, to a real nginx", () => {
  let dir: string;
  let port: number;
  let nginx: ProxyProcess;
  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), "stile-proxy-"));
    port = await freePort();
    const told =
      "$proxy_protocol_addr|$proxy_protocol_port|$proxy_protocol_server_addr|$proxy_protocol_server_port";
    const server = `server { listen 127.0.0.1:${port} proxy_protocol; return 200 "${told}\\n"; }`;
    const http = `http { access_log off; ${nginxFolders(dir)} ${server} }`;
    nginx = await startProxy("nginx", dir, http, port);
  });
  afterAll(async () => {
    await nginx.stop();
    rmSync(dir, { recursive: true });
  });

  test.each(["v1", "v2"] as const)("tells both ends (%s)", async (version) => {
    const read = async (of?: ProxiedConnection): Promise<string | undefined> => {
      const socket = connect(port, "127.0.0.1");
      socket.write(encodeProxyHeader(version, of));
      socket.write("GET / HTTP/1.0\r\n\r\n");
      return (await readAll(socket)).split("\r\n\r\n")[1]?.trim();
    };
    expect(await read(between("192.0.2.1", "198.51.100.2"))).toBe(
      "192.0.2.1|4242|198.51.100.2|443",
    );
    const v6 = await read(between("2001:db8::1", "2001:db8:2::5", [65_535, 1]));
    expect(v6?.split("|").filter((_, i) => i % 2 === 1)).toStrictEqual(["65535", "1"]);
    expect(v6).toMatch(/^2001:db8:(?::|0:0:0:0:0:)1\|.*2001:db8:2:(?::|0:0:0:0:)5\|/);
    expect(await read()).toBe("|||");
  });
});
