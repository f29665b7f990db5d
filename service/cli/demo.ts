/** `stile demo`: the main job as a story, each step observed. */
import { parseArgs } from "node:util";
import { demoSteps } from "../demo/chain.ts";
import { tellStory } from "../demo/story.ts";

export async function demoCommand(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: { json: { type: "boolean", default: false } },
  });
  const demo = demoSteps();
  try {
    const complete = await tellStory(demo.steps, {
      json: values.json,
      write: (text) => process.stdout.write(text),
      now: () => performance.now(),
    });
    return complete ? 0 : 1;
  } finally {
    await demo.stop();
  }
}
