/**
 * An independent client over the HTTP interface alone: `@cloudflare/privacypass-ts` reads our challenge and
 * directory, blinds, finalises and presents the token; our code only attests and proves possession.
 */
import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  AuthorizationHeader,
  type IssuerConfig,
  publicVerif,
  TOKEN_TYPES,
  WWWAuthenticateHeader,
} from "@cloudflare/privacypass-ts";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  attest,
  connectTransport,
  createDpopProof,
  type Device,
  openDevice,
} from "../../attest/agent/index.ts";
import { exchange, type ExchangeAnswer } from "../../service/agent/exchange.ts";
import { openManufacturerCa, startSwtpm, type Swtpm } from "../../swtpm/index.ts";
import { type ChildSidecar, startChildSidecar } from "../support/child-sidecar.ts";
import { freePort } from "../support/free-port.ts";

describe("privacypass-ts over HTTPS", () => {
  const dir = mkdtempSync(join(tmpdir(), "stile-client-"));
  let child: ChildSidecar;
  let tpm: Swtpm;
  let device: Device;
  let origin: string;
  let ca: string;

  beforeAll(async () => {
    const port = await freePort();
    child = await startChildSidecar(dir, port);
    origin = `https://localhost:${port}`;
    ca = readFileSync(join(dir, "dev", "tls", "ca.pem"), "utf8");
    const manufacturer = await openManufacturerCa({
      clock: Date.now,
      folder: join(dir, "dev", "manufacturer"),
    });
    tpm = await startSwtpm({ ca: manufacturer, ekAlgorithms: ["ecc"] });
    device = await openDevice({ tcti: tpm.tcti, ekAlgorithm: "ecc" });
  });

  afterAll(async () => {
    await device.close();
    await tpm.stop();
    await child.end("SIGTERM");
    rmSync(dir, { recursive: true, force: true });
  });

  const get = (path: string, headers: Record<string, string> = {}): Promise<ExchangeAnswer> =>
    exchange({ url: `${origin}${path}`, method: "GET", headers, ca });

  async function attested(): Promise<string> {
    const transport = await connectTransport({ origin, ca, timeoutMs: 10_000 });
    try {
      return (await attest({ device, transport, clock: Date.now })).attestationResult;
    } finally {
      transport.close();
    }
  }

  async function post(accessToken: string, body: Uint8Array): Promise<ExchangeAnswer> {
    const url = `${origin}/token-request`;
    const dpop = await createDpopProof({
      device,
      method: "POST",
      uri: url,
      accessToken,
      clock: Date.now,
      random: (length) => Uint8Array.from(randomBytes(length)),
    });
    const headers = {
      authorization: `DPoP ${accessToken}`,
      dpop,
      "content-type": "application/private-token-request",
    };
    return exchange({ url, method: "POST", headers, body, ca });
  }

  it("obtains a token and redeems it, once", async () => {
    const challenged = await get("/");
    expect(challenged.status).toBe(401);
    const [header] = WWWAuthenticateHeader.parse(challenged.headers["www-authenticate"] ?? "");
    const { challenge, tokenKey } = header!;
    expect(challenge.tokenType).toBe(TOKEN_TYPES.BLIND_RSA.value);

    const directory = await get("/.well-known/private-token-issuer-directory");
    const config = JSON.parse(Buffer.from(directory.body).toString()) as IssuerConfig;
    expect(config["token-keys"][0]?.["token-key"]).toBe(
      Buffer.from(tokenKey).toString("base64").replaceAll("+", "-").replaceAll("/", "_"),
    );

    const client = new publicVerif.Client(publicVerif.BlindRSAMode.PSS);
    const request = await client.createTokenRequest(challenge, Uint8Array.from(tokenKey));
    const answer = await post(await attested(), request.serialize());
    expect(answer.status).toBe(200);
    expect(answer.headers["content-type"]).toBe("application/private-token-response");
    const token = await client.finalize(client.deserializeTokenResponse(answer.body));

    const authorization = new AuthorizationHeader(token).toString();
    expect((await get("/", { authorization })).status).toBe(200);
    const replayed = await get("/", { authorization });
    expect(replayed.status).toBe(401);
    expect(WWWAuthenticateHeader.parse(replayed.headers["www-authenticate"] ?? "")).toHaveLength(1);
  });

  it("is refused a token without attestation, and with someone else's", async () => {
    const body = new Uint8Array(259);
    const headers = { "content-type": "application/private-token-request" };
    const url = `${origin}/token-request`;
    const bare = await exchange({ url, method: "POST", headers, body, ca });
    expect(bare.status).toBe(401);
    expect(bare.headers["www-authenticate"]).toContain("DPoP");
    const stolen = await attested();
    const replay = { ...headers, authorization: `DPoP ${stolen}` };
    expect((await exchange({ url, method: "POST", headers: replay, body, ca })).status).toBe(401);
  });
});
