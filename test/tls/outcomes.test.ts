/** What the caller is told of a forwarded request, on each way that one can go: the status with its head. */
import { expect, test } from "vitest";
import type { UpstreamOutcome } from "../../tls/index.ts";
import { openH2 } from "../support/h2-client.ts";
import { connectTls, noExtra, readUntil } from "../support/tls-edge.ts";
import { edgeBeforeRaw, edgeCertificates } from "../support/tls-edges.ts";
import { waitFor } from "../support/wait-for.ts";

const HOST = "Host: a.example\r\n";

test.each([
  ["the fast path", true, `GET / HTTP/1.1\r\n${HOST}\r\n`],
  ["the general path", false, `GET / HTTP/1.1\r\n${HOST}\r\n`],
  ["HTTP/2", true, undefined],
  ["HTTP/2 with a body", true, "body"],
] as const)(
  "the status is told while the answer is under way: %s",
  async (name, fastPath, text) => {
    const outcomes: UpstreamOutcome[] = [];
    const extra = {
      ...noExtra,
      onOutcome: (outcome: UpstreamOutcome) => void outcomes.push(outcome),
    };
    const edge = await edgeBeforeRaw(
      (socket) =>
        socket.once("data", () => socket.write("HTTP/1.1 503 x\r\nContent-Length: 9\r\n\r\npart")),
      { fastPath, extra },
    );
    const { ca } = edgeCertificates();
    if (name.startsWith("HTTP/2")) {
      const session = await openH2(edge.port, ca);
      const stream = session.request({
        ":path": "/",
        ":method": text === undefined ? "GET" : "POST",
      });
      stream.on("error", () => undefined).end(text);
      await waitFor(() => expect(outcomes).toStrictEqual([503]));
      session.destroy();
    } else {
      const socket = await connectTls(edge.port, ca);
      socket.write(text ?? "");
      await readUntil(socket, "part");
      expect(outcomes).toStrictEqual([503]);
      socket.destroy();
    }
    // Of those that follow, none counts.
    await waitFor(() => expect(outcomes[1]).toBe("gone"));
  },
);
