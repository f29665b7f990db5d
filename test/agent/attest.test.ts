/** The whole attestation: our device against our attester, in memory and over TLS 1.3. */
import { readFileSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import { TLSSocket } from "node:tls";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { attest, connectTransport, type Device, openDevice } from "../../attest/agent/index.ts";
import type { AppraisedDevice, TpmAttester } from "../../attest/index.ts";
import { isStileError } from "../../wire/index.ts";
import { OpensslCa } from "../attest/support/openssl-ca.ts";
import {
  createTestAttester,
  memoryTransport,
  seededRandom,
  serveAttester,
} from "../support/attester.ts";
import { codeOfAsync } from "../support/reject.ts";
import { testNow, useSwtpm } from "../support/swtpm.ts";

const exporter = seededRandom("connection")(32);
const both = { device: exporter, server: exporter };
const clock = (): number => testNow;

const running = useSwtpm();
let device: Device;
let attester: TpmAttester;
beforeAll(async () => {
  device = await openDevice({ tcti: running.swtpm.tcti, ekAlgorithm: "ecc" });
  attester = await createTestAttester(running.ca.rootPem);
});
afterAll(() => device.close());

describe("an attestation", () => {
  it.each(["rsa", "ecc"] as const)("succeeds with an %s EK", async (ekAlgorithm) => {
    const own = await openDevice({ tcti: running.swtpm.tcti, ekAlgorithm });
    const transport = memoryTransport(attester, both);
    const result = await attest({ device: own, transport, clock });
    expect(result).toStrictEqual({
      attestationResult: "header.payload.signature",
      expiresAtMs: testNow + 300_000,
    });
    expect(transport.devices[0]).toMatchObject({
      channelBinding: "tls-exporter",
      deviceKey: own.deviceKeyJwk,
    });
    // The AK is in the endorsement hierarchy, so the TPM does not obfuscate these.
    expect(transport.devices[0]?.quote.firmwareVersion).toBe(0x2019_1023_0016_3636n);
    await own.close();
  });

  it("gives one pseudonym to a device, and another to another EK", async () => {
    const transport = memoryTransport(attester, both);
    await attest({ device, transport, clock });
    await attest({ device, transport, clock });
    const other = await openDevice({ tcti: running.swtpm.tcti, ekAlgorithm: "rsa" });
    await attest({ device: other, transport, clock });
    await other.close();
    const [a, b, c] = transport.devices.map(({ pseudonym }) => pseudonym);
    expect(b).toBe(a);
    expect(c).not.toBe(a);
  });

  it("D11: rejects evidence that was relayed to another connection", async () => {
    const relayed = memoryTransport(attester, { device: exporter, server: new Uint8Array(32) });
    expect(await codeOfAsync(() => attest({ device, transport: relayed, clock }))).toBe(
      "ATTEST_NONCE_MISMATCH",
    );
  });

  it("D11: rejects a connection without an exporter where the attester wants one", async () => {
    const plain = memoryTransport(attester, { device: undefined, server: exporter });
    expect(await codeOfAsync(() => attest({ device, transport: plain, clock }))).toBe(
      "ATTEST_AGENT_REFUSED",
    );
    const lenient = await createTestAttester(running.ca.rootPem, { channelBinding: "unsafeOff" });
    const unbound = memoryTransport(lenient, { device: undefined, server: undefined });
    await attest({ device, transport: unbound, clock });
    expect(unbound.devices[0]?.channelBinding).toBe("none");
  });

  it("C2, D1, D6: rejects evidence with one byte changed anywhere on the way", async () => {
    const codes = new Set<string>();
    const fields = [
      ["activatedSecret"],
      ["quote", "attest"],
      ["quote", "signature"],
      ["deviceKey", "public"],
      ["deviceKey", "attest"],
      ["deviceKey", "signature"],
      ["pcrValues", "3", "value"],
    ];
    for (const path of fields) {
      for (const place of [0, 0.3, 0.6, 0.9]) {
        const transport = memoryTransport(attester, both, (step, body) =>
          step === "/attest/tpm/evidence" ? changeByte(body, path, place) : body,
        );
        const code = await codeOfAsync(() => attest({ device, transport, clock }));
        expect(code, `${path.join(".")} at ${place}`).toMatch(/^(?:ATTEST|WIRE)_/);
        expect(transport.devices).toStrictEqual([]);
        codes.add(code);
      }
    }
    expect([...codes]).toEqual(
      expect.arrayContaining([
        "ATTEST_CREDENTIAL_MISMATCH",
        "ATTEST_SIGNATURE_INVALID",
        "ATTEST_PCR_DIGEST_MISMATCH",
      ]),
    );
  });

  it("rejects nonsense from the attester", async () => {
    const answers: readonly [unknown, string][] = [
      [undefined, "ATTEST_MESSAGE_INVALID"],
      [{}, "ATTEST_MESSAGE_INVALID"],
      [
        {
          session: "s",
          credentialBlob: "AAA",
          encryptedSecret: "AAA",
          nonce: "AAA",
          pcrSelection: "AAA",
          channelBinding: "none",
          eventLog: "off",
          expiresIn: 1,
        },
        "ATTEST_TSS_FAILED",
      ],
    ];
    for (const [answer, code] of answers) {
      const transport = { tlsExporter: () => exporter, postJson: () => Promise.resolve(answer) };
      expect(await codeOfAsync(() => attest({ device, transport, clock }))).toBe(code);
    }
  });

  it("quotes again where a PCR changes between reading and quoting, and gives up in the end", async () => {
    let changes = 2;
    const moving: Device = {
      ...device,
      pcrRead: async (hash, pcrs) => {
        const values = await device.pcrRead(hash, pcrs);
        return (changes -= 1) >= 0 ? values.with(0, new Uint8Array(32).fill(changes)) : values;
      },
    };
    const transport = memoryTransport(attester, both);
    await attest({ device: moving, transport, clock });
    expect(transport.devices).toHaveLength(1);
    changes = 1000;
    expect(await codeOfAsync(() => attest({ device: moving, transport, clock }))).toBe(
      "ATTEST_PCR_DIGEST_MISMATCH",
    );
  });
});

/** Flips one bit in a base64url field of a JSON body. */
function changeByte(body: unknown, path: readonly string[], place: number): unknown {
  const copy = JSON.parse(JSON.stringify(body)) as Record<string, unknown>;
  let holder = copy;
  for (const key of path.slice(0, -1)) holder = holder[key] as Record<string, unknown>;
  const last = path.at(-1) ?? "";
  const bytes = Buffer.from(String(holder[last]), "base64url");
  const index = Math.floor(bytes.length * place);
  bytes[index] = (bytes[index] ?? 0) ^ 1;
  holder[last] = bytes.toString("base64url");
  return copy;
}

describe("over TLS 1.3", () => {
  const openssl = new OpensslCa();
  const devices: AppraisedDevice[] = [];
  let behaviour: (request: IncomingMessage, response: ServerResponse) => boolean = () => false;
  let connections = 0;
  let server: Server;
  let origin: string;
  let ca: string;

  beforeAll(async () => {
    const issued = openssl.issue({
      subject: "/CN=localhost",
      extensions: [
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "basicConstraints=critical,CA:TRUE",
      ],
    });
    ca = issued.pem;
    server = createServer(
      { key: readFileSync(issued.key), cert: issued.pem, minVersion: "TLSv1.3" },
      (request, response) => void answer(request, response),
    );
    server.on("secureConnection", () => (connections += 1));
    await new Promise<void>((settle) => server.listen(0, "127.0.0.1", settle));
    origin = `https://localhost:${(server.address() as AddressInfo).port}`;
  });
  afterAll(() => {
    openssl.close();
    server.closeAllConnections();
    return new Promise((settle) => server.close(settle));
  });

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (behaviour(request, response)) return;
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const body: unknown = JSON.parse(Buffer.concat(parts).toString());
    const { socket } = request;
    if (!(socket instanceof TLSSocket)) throw new TypeError("no TLS");
    const value = socket.exportKeyingMaterial(32, "EXPORTER-Channel-Binding", Buffer.alloc(0));
    try {
      const path = request.url ?? "";
      const json = await serveAttester(attester, path, body, new Uint8Array(value), (appraised) =>
        devices.push(appraised),
      );
      response.setHeader("content-type", "application/json").end(JSON.stringify(json));
    } catch (error) {
      const code = isStileError(error) ? error.code : "INTERNAL";
      response.writeHead(422, { "content-type": "application/problem+json" });
      response.end(JSON.stringify({ type: "about:blank", status: 422, code }));
    }
  }

  const connect = (timeoutMs = 5_000) =>
    connectTransport({ origin, ca, connectHost: "127.0.0.1", timeoutMs });

  it("binds the evidence to the one connection that carries it", async () => {
    connections = 0;
    const transport = await connect();
    const first = await attest({ device, transport, clock });
    await attest({ device, transport, clock });
    transport.close();
    expect(first.attestationResult).toBe("header.payload.signature");
    expect(devices).toHaveLength(2);
    expect(devices[0]?.channelBinding).toBe("tls-exporter");
    expect(connections).toBe(1);
  });

  it("rejects evidence made for another connection of the same server", async () => {
    const [a, b] = [await connect(), await connect()];
    const mixed = { postJson: a.postJson, tlsExporter: b.tlsExporter };
    const error: unknown = await attest({ device, transport: mixed, clock }).catch(
      (cause: unknown) => cause,
    );
    expect(isStileError(error, "ATTEST_AGENT_REFUSED")).toBe(true);
    expect(String(error)).toContain("422: ATTEST_NONCE_MISMATCH");
    a.close();
    b.close();
  });

  it("rejects to go on with a second connection where the server ends the first", async () => {
    const transport = await connect();
    behaviour = (request, response) => {
      response.setHeader("connection", "close");
      return request.url === "/attest/tpm/evidence";
    };
    expect(await codeOfAsync(() => attest({ device, transport, clock }))).toBe(
      "ATTEST_AGENT_REFUSED",
    );
    behaviour = () => false;
    transport.close();
  });

  it.each([
    ["a large answer", (response: ServerResponse) => void response.end(`"${"a".repeat(70_000)}"`)],
    ["no JSON", (response: ServerResponse) => void response.end("<html>")],
    [
      "a redirect",
      (response: ServerResponse) => void response.writeHead(302, { location: "/" }).end(),
    ],
    ["an error page", (response: ServerResponse) => void response.writeHead(500).end("oops")],
    ["a broken connection", (response: ServerResponse) => void response.destroy()],
    ["silence", () => undefined],
  ])("rejects %s", async (_, respond) => {
    behaviour = (_request, response) => {
      respond(response);
      return true;
    };
    const transport = await connect(300);
    expect(await codeOfAsync(() => transport.postJson("/", {}))).toBe("ATTEST_AGENT_REFUSED");
    behaviour = () => false;
    transport.close();
  });

  it("rejects a server that its certificate does not name, or that nobody vouches for", async () => {
    const { port } = new URL(origin);
    const open = (options: { origin: string; ca?: string }) =>
      codeOfAsync(() =>
        connectTransport({ connectHost: "127.0.0.1", timeoutMs: 2_000, ...options }),
      );
    expect(await open({ origin: `https://other.example:${port}`, ca })).toBe(
      "ATTEST_AGENT_REFUSED",
    );
    expect(await open({ origin })).toBe("ATTEST_AGENT_REFUSED");
    expect(await open({ origin: "https://localhost:1", ca })).toBe("ATTEST_AGENT_REFUSED");
    await expect(connectTransport({ origin: "http://localhost", timeoutMs: 1 })).rejects.toThrow(
      TypeError,
    );
    const byAddress = await connectTransport({
      origin: `https://127.0.0.1:${port}`,
      ca,
      timeoutMs: 2_000,
    });
    expect(byAddress.tlsExporter()?.length).toBe(32);
    byAddress.close();
  });
});
