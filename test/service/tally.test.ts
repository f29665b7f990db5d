import { Registry } from "prom-client";
import { expect, test } from "vitest";
import { createTally } from "../../service/tally.ts";

test("adds up between readings and over them, and shows no label that never came", async () => {
  const registers = [new Registry()];
  const config = { name: "t", help: "h", registers };
  const tally = createTally({ ...config, labelNames: ["rule", "verdict"] });
  const other = createTally({ ...config, name: "u", labelNames: ["by"] });
  tally.inc("a", "open");
  tally.inc("a", "open");
  tally.inc("a", "block");
  const lines = async (): Promise<string[]> =>
    (await registers[0]!.metrics()).split("\n").filter((line) => /^[tu]\{/.test(line));
  expect(await lines()).toStrictEqual([
    't{rule="a",verdict="open"} 2',
    't{rule="a",verdict="block"} 1',
  ]);
  tally.inc("a", "open");
  other.inc("token");
  const all = ['t{rule="a",verdict="open"} 3', 't{rule="a",verdict="block"} 1', 'u{by="token"} 1'];
  expect(await lines()).toStrictEqual(all);
  expect(await lines()).toStrictEqual(all);
});
