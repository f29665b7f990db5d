/** What is to become of a request, asked of whoever decides it. */
import type { FastDecision } from "./splicer.ts";

/** A decision that failed. Whatever it was, the general path meets it as well and says so. */
const UNDECIDED: FastDecision = { kind: "other" };

/**
 * A decision that is made at once is acted on at once: a turn of promises costs as much as parsing a head.
 * @param decide what it throws counts as a decision for the general path
 * @param onError `act` has thrown
 */
export function whenDecided(
  decide: () => FastDecision | Promise<FastDecision>,
  act: (decision: FastDecision) => void,
  onError: () => void,
): void {
  const tryToAct = (decision: FastDecision): void => {
    try {
      act(decision);
    } catch {
      onError();
    }
  };
  let decision: FastDecision | Promise<FastDecision>;
  try {
    decision = decide();
  } catch {
    decision = UNDECIDED;
  }
  if (decision instanceof Promise) void decision.then(tryToAct, () => tryToAct(UNDECIDED));
  else tryToAct(decision);
}
