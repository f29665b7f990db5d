/**
 * The process behind `idleBytes`: PORT HOST PATH COUNT as arguments, the PEM of the CA as JSON in the first line of its
 * input. Opens connections, asks on each, says "held", and keeps them until its input ends. Its exit code is 1
 * where one of them was closed before that.
 */
import { once } from "node:events";
import { connect as connectTcp } from "node:net";
import { createInterface } from "node:readline";
import { connect, type TLSSocket } from "node:tls";

const [port = "", host = "", path = "", count = ""] = process.argv.slice(2);
const AT_A_TIME = 16;
/** Below what one address may hold by default. */
const PER_ADDRESS = 500;
/** Each process has addresses of its own: 127.N.0.x. */
const network = (process.pid % 250) + 2;

const request = `GET ${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`;
/** Where ten thousand take longer than a server keeps an idle connection (75 s), the first ones are to last. */
const ASK_AGAIN_MS = 30_000;

const lines = createInterface({ input: process.stdin });
const [first] = (await once(lines, "line")) as [string];
const ca = JSON.parse(first) as string;
const sockets: TLSSocket[] = [];
let session: Buffer | undefined;

lines.once("close", () => process.exit(0));
setInterval(() => {
  for (const socket of sockets) socket.write(request);
}, ASK_AGAIN_MS);
let left = Number(count);
await Promise.all(
  Array.from({ length: AT_A_TIME }, async () => {
    while (left > 0) {
      left -= 1;
      await open(left);
    }
  }),
);
console.log("held");

/** Resumes what it can: the handshake is not what is measured. */
function open(index: number): Promise<void> {
  const localAddress = `127.${network}.0.${1 + Math.floor(index / PER_ADDRESS)}`;
  return new Promise((resolve, reject) => {
    const socket = connect({
      socket: connectTcp({ host: "127.0.0.1", port: Number(port), localAddress }),
      ca,
      servername: "localhost",
      ecdhCurve: "X25519",
      ALPNProtocols: ["http/1.1"],
      ...(session === undefined ? {} : { session }),
    });
    sockets.push(socket);
    socket.once("session", (ticket: Buffer) => (session ??= ticket));
    socket.once("error", reject);
    socket.once("close", () => process.exit(1));
    socket.write(request);
    socket.once("data", (answer: Buffer) => {
      if (!answer.toString("latin1").startsWith("HTTP/1.1 200 ")) process.exit(1);
      resolve();
      socket.resume();
    });
  });
}
