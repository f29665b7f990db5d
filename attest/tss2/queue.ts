/**
 * A bounded queue that runs one task at a time. An ESYS_CONTEXT takes one call at a time (TCG ESAPI
 * §"ESYS_CONTEXT"): a second one in between gets TSS2_ESYS_RC_BAD_SEQUENCE and spoils both.
 */
import { StileError } from "../../wire/index.ts";

export interface CallQueue {
  /** Runs `task` after all earlier ones have settled. @throws `ATTEST_TSS_BUSY` when it is full */
  run<T>(task: () => Promise<T>): Promise<T>;
  /** Tasks that run or wait. */
  readonly pending: number;
}

/** @param maxPending tasks that may run or wait at once. */
export function createCallQueue(maxPending: number): CallQueue {
  let tail: Promise<unknown> = Promise.resolve();
  let pending = 0;
  return {
    get pending(): number {
      return pending;
    },
    async run(task) {
      if (pending >= maxPending) {
        throw new StileError("ATTEST_TSS_BUSY", `${pending} calls already wait for the TPM`);
      }
      pending += 1;
      const result = tail.then(task);
      tail = result.catch(() => undefined);
      try {
        return await result;
      } finally {
        pending -= 1;
      }
    },
  };
}
