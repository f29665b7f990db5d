#!/usr/bin/env node
/**
 * The command line: a table of commands, each a function of its arguments. Exit code 0 is success, 1 a
 * failure with one sentence on standard error, 2 a wrong use.
 */
import { isStileError } from "../../wire/index.ts";
import { CliUsageError } from "./usage.ts";

interface Command {
  readonly summary: string;
  readonly run: (args: readonly string[]) => Promise<number>;
}

/** Each command loads only what it needs: a sidecar has no use for the device side's libraries. */
const COMMANDS: Readonly<Record<string, Command>> = {
  serve: {
    summary: "run the sidecar (--config FILE, or --dev on this machine)",
    run: async (args) => (await import("./serve.ts")).serveCommand(args),
  },
  demo: {
    summary: "the whole chain as a story, on a software TPM (--json)",
    run: async (args) => (await import("./demo.ts")).demoCommand(args),
  },
  agent: {
    summary: "the device side: agent attest | tokens | fetch URL",
    run: async (args) => (await import("./agent.ts")).agentCommand(args),
  },
  verify: {
    summary: "verify ek | quote | eventlog | ima | webauthn FILE ... (--json)",
    run: async (args) => (await import("./verify/index.ts")).verifyCommand(args),
  },
  policy: {
    summary: "policy check FILE (--facts JSON, --json)",
    run: async (args) => (await import("./policy.ts")).policyCommand(args),
  },
  keys: {
    summary: "issuer keys of a running sidecar: keys list | rotate | revoke ID",
    run: async (args) => (await import("./keys.ts")).keysCommand(args),
  },
  "directory-log": {
    summary: "directory-log verify URL (--state FILE, --key-id ID): were all served the same keys?",
    run: async (args) => (await import("./directory-log.ts")).directoryLogCommand(args),
  },
  conformance: {
    summary:
      "conformance --issuer URL --origin URL (--only ID,..., --json): do they keep the RFCs?",
    run: async (args) => (await import("./conformance.ts")).conformanceCommand(args),
  },
  seal: {
    summary: "seal the passphrase to the TPM (--config FILE, --passphrase-file FILE | --generate)",
    run: async (args) => (await import("./seal.ts")).sealCommand(args),
  },
  roots: {
    summary: "roots refresh SOURCE ... --out FILE --version V, roots show FILE",
    run: async (args) => (await import("./roots.ts")).rootsCommand(args),
  },
  config: {
    summary: "config check FILE, config docs",
    run: async (args) => (await import("./config.ts")).configCommand(args),
  },
  "clearance-key": {
    summary:
      "keys of clearances, of a running sidecar: (--out FILE, --other-out FILE) | list | rotate | revoke KID",
    run: async (args) => (await import("./clearance-key.ts")).clearanceKeyCommand(args),
  },
  health: {
    summary: "exit 0 if a running sidecar is ready (--config FILE)",
    run: async (args) => (await import("./health.ts")).healthCommand(args),
  },
};

async function main(): Promise<number> {
  const [name, ...args] = process.argv.slice(2);
  const command = name === undefined ? undefined : COMMANDS[name];
  if (command === undefined) {
    const asked = name === undefined || name === "help" || name === "--help";
    const out = asked ? process.stdout : process.stderr;
    if (!asked) out.write(`stile: unknown command ${JSON.stringify(name)}\n`);
    out.write("Usage: stile COMMAND ...\n");
    for (const [word, { summary }] of Object.entries(COMMANDS)) {
      out.write(`  ${word.padEnd(13)} ${summary}\n`);
    }
    return asked ? 0 : 2;
  }
  return command.run(args);
}

try {
  process.exitCode = await main();
} catch (error) {
  if (error instanceof CliUsageError || isUsageError(error)) {
    process.stderr.write(`stile: ${error.message}\n`);
    process.exitCode = 2;
  } else if (isStileError(error)) {
    process.stderr.write(`stile: ${error.message} (${error.code})\n`);
    process.exitCode = 1;
  } else {
    throw error;
  }
}

/** What `parseArgs` of node:util throws on an unknown or malformed option. */
function isUsageError(error: unknown): error is Error {
  return (
    error instanceof TypeError && "code" in error && String(error.code).startsWith("ERR_PARSE")
  );
}
