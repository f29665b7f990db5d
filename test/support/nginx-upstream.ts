/** A real nginx that tells what it knows of each request, as an upstream. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "./free-port.ts";
import { nginxFolders, startProxy } from "./proxy-process.ts";
import { closeAfterTest } from "./tls-edges.ts";

export interface NginxOptions {
  /** Behind address and port, as `ssl` or `proxy_protocol`. */
  readonly listen: string;
  /** Further directives of the server. */
  readonly server?: string;
  /** What it answers, with nginx's variables. */
  readonly says: string;
}

/** Ended when the test is over. @returns its port */
export async function nginxUpstream({ listen, says, server = "" }: NginxOptions): Promise<number> {
  const dir = mkdtempSync(join(tmpdir(), "stile-nginx-"));
  const port = await freePort();
  const told = `location / { return 200 "${says}"; }`;
  const http = `http { access_log off; ${nginxFolders(dir)}
server { listen 127.0.0.1:${port} ${listen}; ${server} ${told} } }`;
  const nginx = await startProxy("nginx", dir, http, port);
  closeAfterTest(async () => {
    await nginx.stop();
    rmSync(dir, { recursive: true });
  });
  return port;
}
