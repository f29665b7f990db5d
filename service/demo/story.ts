/**
 * A story on the terminal: steps in order, each with a line and its duration, as text or JSON lines.
 * A step throws where it did not observe what it says; the story then stops and has failed.
 */

/** One step. `run` returns what was observed, in a few words. */
export interface StoryStep {
  readonly title: string;
  readonly run: () => Promise<string>;
}

export interface StoryOptions {
  readonly json: boolean;
  readonly write: (text: string) => void;
  /** Milliseconds from any origin. */
  readonly now: () => number;
}

/** True if every step was observed. */
export async function tellStory(
  steps: readonly StoryStep[],
  options: StoryOptions,
): Promise<boolean> {
  const startedMs = options.now();
  for (const [index, step] of steps.entries()) {
    const beganMs = options.now();
    const [ok, observed] = await outcomeOf(step);
    const durationMs = Math.round(options.now() - beganMs);
    options.write(
      options.json
        ? `${JSON.stringify({ step: index + 1, title: step.title, ok, observed, durationMs })}\n`
        : `${ok ? "✓" : "✗"} ${step.title.padEnd(52)} ${String(durationMs).padStart(6)} ms  ${observed}\n`,
    );
    if (!ok) return false;
  }
  const totalMs = Math.round(options.now() - startedMs);
  options.write(
    options.json
      ? `${JSON.stringify({ story: "complete", steps: steps.length, durationMs: totalMs })}\n`
      : `All ${steps.length} steps were observed, in ${(totalMs / 1000).toFixed(1)} s.\n`,
  );
  return true;
}

async function outcomeOf(step: StoryStep): Promise<[ok: boolean, observed: string]> {
  try {
    return [true, await step.run()];
  } catch (error) {
    return [false, error instanceof Error ? error.message : String(error)];
  }
}

/** Fails the step with one sentence unless the condition was observed. */
export function observe(condition: boolean, otherwise: string): asserts condition {
  if (!condition) throw new Error(otherwise);
}
