/** Runs `action` and gives back the code of the StileError that it raised. */
import { isStileError } from "../../wire/index.ts";

export function codeOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    return isStileError(error) ? error.code : `not a StileError: ${String(error)}`;
  }
  return "nothing was thrown";
}

export async function codeOfAsync(action: () => Promise<unknown>): Promise<string> {
  try {
    await action();
  } catch (error) {
    return isStileError(error) ? error.code : `not a StileError: ${String(error)}`;
  }
  return "nothing was thrown";
}
