/** `stile verify`: the verifiers of `attest/` on files. Exit code 0 verified, 1 refused, 2 wrong use. */
import { CliUsageError } from "../usage.ts";
import { EK_USAGE, verifyEkCommand } from "./ek.ts";
import { EVENT_LOG_USAGE, IMA_USAGE, verifyEventLogCommand, verifyImaCommand } from "./logs.ts";
import { QUOTE_USAGE, verifyQuoteCommand } from "./quote.ts";
import { verifyWebAuthnCommand, WEBAUTHN_USAGE } from "./webauthn.ts";

interface Verification {
  readonly usage: string;
  readonly run: (args: readonly string[]) => Promise<number>;
}

const VERIFICATIONS: Readonly<Record<string, Verification>> = {
  ek: { usage: EK_USAGE, run: verifyEkCommand },
  quote: { usage: QUOTE_USAGE, run: verifyQuoteCommand },
  eventlog: { usage: EVENT_LOG_USAGE, run: verifyEventLogCommand },
  ima: { usage: IMA_USAGE, run: verifyImaCommand },
  webauthn: { usage: WEBAUTHN_USAGE, run: verifyWebAuthnCommand },
};

export async function verifyCommand(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  const verification = name === undefined ? undefined : VERIFICATIONS[name];
  if (verification === undefined) {
    const usages = Object.values(VERIFICATIONS).map(({ usage }) => `  stile ${usage} [--json]`);
    throw new CliUsageError(["expected one of", ...usages].join("\n"));
  }
  return verification.run(rest);
}
