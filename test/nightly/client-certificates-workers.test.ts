/** Client certificates where several processes listen: each asks, verifies and reads the lists, and none resumes. */
import { copyFileSync, readFileSync } from "node:fs";
import { request as httpsRequest } from "node:https";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { type DemoUpstream, startDemoUpstream } from "../../service/dev/demo-upstream.ts";
import { type IssuedFiles, opensslCa, type OpensslCa } from "../support/openssl-ca.ts";
import {
  prepareServe,
  type ServeChild,
  type ServeFiles,
  startServe,
} from "../support/serve-child.ts";

let ca: OpensslCa;
let upstream: DemoUpstream;
let files: ServeFiles;
let service: ServeChild;
let crlFile: string;

beforeAll(async () => {
  ca = opensslCa("clients");
  crlFile = join(ca.dir, "list.pem");
  copyFileSync(ca.crl("first.crl"), crlFile);
  upstream = await startDemoUpstream();
  const rule = { name: "r", hosts: ["localhost"], mode: "required", upstream: "identity" } as const;
  const clients = { ...rule, caFile: ca.caFile, crlFile, allow: { uris: ["urn:good", "urn:bad"] } };
  files = await prepareServe(
    upstream.url,
    { processes: { workers: 2 } },
    {
      tls: { clientCertificates: [clients], reloadSeconds: 3_600 },
      edge: { rules: [{ name: "r", action: "token-or-certificate", certificates: ["r"] }] },
    },
  );
  service = startServe(files);
  await service.event("started");
});
afterAll(async () => {
  await service.stop();
  files.remove();
  await upstream.stop();
  ca.remove();
});

/** What the upstream hears, on a connection of its own; empty where there was none. */
function identityOf(client?: IssuedFiles): Promise<string> {
  const shown = client && {
    cert: readFileSync(client.certificateFile),
    key: readFileSync(client.keyFile),
  };
  return new Promise((resolve) => {
    const asked = httpsRequest(
      { host: "localhost", port: files.port, ca: files.ca, agent: false, ...shown },
      (response) => {
        void response.toArray().then((parts: Buffer[]) => {
          // 421 where the lists changed between handshake and request.
          if (response.statusCode !== 200) return resolve("");
          const { headers } = JSON.parse(Buffer.concat(parts).toString()) as {
            headers: Record<string, string>;
          };
          resolve(`${headers["stile-admission"]} ${headers["stile-client-identity"]}`);
        });
      },
    );
    asked.once("error", () => resolve("")).end();
  });
}

const often = (client?: IssuedFiles): Promise<string[]> =>
  Promise.all(Array.from({ length: 12 }, () => identityOf(client)));

it("lets in who has one at every process, and at none once it is revoked and the files were read", async () => {
  const issue = (name: string): IssuedFiles =>
    ca.issue({ name, subjectAltName: `URI:urn:${name}`, extendedKeyUsage: "clientAuth" });
  const [good, bad] = [issue("good"), issue("bad")];
  expect(new Set(await often())).toEqual(new Set([""]));
  expect(new Set(await often(good))).toEqual(new Set(["certificate urn:good"]));
  expect(new Set(await often(bad))).toEqual(new Set(["certificate urn:bad"]));
  ca.revoke(bad.certificateFile);
  copyFileSync(ca.crl("second.crl"), crlFile);
  service.process.kill("SIGHUP");
  // Each process is told, and reads for itself.
  await vi.waitUntil(async () => (await often(bad)).every((heard) => heard === ""), {
    interval: 50,
    timeout: 20_000,
  });
  expect(new Set(await often(good))).toEqual(new Set(["certificate urn:good"]));
});
