/** A development sidecar in a process of its own, which a test may kill and start again. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";

const root = join(import.meta.dirname, "..", "..");

export interface ChildSidecar {
  readonly process: ChildProcess;
  /** URL of the operator listener. */
  readonly operatorAddress: string;
  /** Ends it with this signal and waits until it is gone. */
  readonly end: (signal: "SIGKILL" | "SIGTERM") => Promise<void>;
}

/** Starts `stile serve --dev` and waits for its first lines. @param stateDir holds `dev/` afterwards */
export async function startChildSidecar(stateDir: string, port: number): Promise<ChildSidecar> {
  const args = [
    "service/cli/main.ts",
    "serve",
    "--dev",
    "--state",
    stateDir,
    "--port",
    String(port),
  ];
  const child = spawn(process.execPath, args, { cwd: root, stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(child, "exit");
  const [first] = (await Promise.race([
    once(child.stdout, "data"),
    exited.then(() => Promise.reject(new Error("the sidecar did not start"))),
  ])) as [Buffer];
  child.stdout.resume();
  const operatorAddress = /operator: (?<url>[^)]+)\)/.exec(first.toString())?.groups?.["url"] ?? "";
  return {
    process: child,
    operatorAddress,
    end: async (signal) => {
      child.kill(signal);
      await exited;
    },
  };
}
