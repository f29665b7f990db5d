/** Clients with kept connections that ask an edge as fast as they are answered, and whom they were answered by. */
import { Agent, request } from "node:https";
import { edgeCertificates } from "./tls-edges.ts";
import type { TestEdge } from "./tls-edge.ts";

export interface LoadResult {
  /** Answers by the name that each upstream says. */
  readonly by: Record<string, number>;
  /** Other statuses, and errors. */
  readonly failures: string[];
}

export interface Load extends LoadResult {
  /** Lets what is under way end. */
  readonly stop: () => Promise<LoadResult>;
}

export function startLoad(edge: TestEdge, clients: number): Load {
  const agent = new Agent({ keepAlive: true, maxSockets: clients, ca: edgeCertificates().ca });
  const result: LoadResult = { by: {}, failures: [] };
  const over = new AbortController();
  const client = async (): Promise<void> => {
    while (!over.signal.aborted) await askOnce(edge.port, agent, result);
  };
  const running = Promise.all(Array.from({ length: clients }, client));
  const stop = async (): Promise<LoadResult> => {
    over.abort();
    await running;
    agent.destroy();
    return result;
  };
  return { ...result, stop };
}

function askOnce(port: number, agent: Agent, { by, failures }: LoadResult): Promise<void> {
  return new Promise((resolve) => {
    const fail = (why: string): void => {
      failures.push(why);
      resolve();
    };
    const at = { host: "127.0.0.1", servername: "localhost", port, agent };
    const asked = request({ ...at, headers: { host: "a.example" } });
    asked.once("response", (answer) => {
      let body = "";
      answer.setEncoding("latin1").on("data", (text: string) => (body += text));
      answer.once("error", (error) => fail(error.message));
      answer.once("end", () => {
        if (answer.statusCode !== 200) fail(`${answer.statusCode} ${body}`);
        else {
          by[body] = (by[body] ?? 0) + 1;
          resolve();
        }
      });
    });
    asked.once("error", (error) => fail(error.message));
    asked.end();
  });
}
