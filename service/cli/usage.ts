/** A wrong use of the command line: the message says what was expected. */
export class CliUsageError extends Error {
  override readonly name = "CliUsageError";
}
