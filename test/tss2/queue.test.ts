import { describe, expect, it } from "vitest";
import { createCallQueue } from "../../attest/tss2/queue.ts";
import { codeOfAsync } from "../support/reject.ts";

describe("call queue", () => {
  it("runs one task at a time, in order", async () => {
    const queue = createCallQueue(10);
    const log: string[] = [];
    const task = (name: string) => async (): Promise<void> => {
      log.push(`+${name}`);
      await Promise.resolve();
      log.push(`-${name}`);
    };
    await Promise.all([queue.run(task("a")), queue.run(task("b")), queue.run(task("c"))]);
    expect(log).toStrictEqual(["+a", "-a", "+b", "-b", "+c", "-c"]);
  });

  it("goes on after a task that fails", async () => {
    const queue = createCallQueue(10);
    const failing = queue.run(() => Promise.reject(new Error("no")));
    const next = queue.run(() => Promise.resolve(7));
    await expect(failing).rejects.toThrow("no");
    await expect(next).resolves.toBe(7);
    expect(queue.pending).toBe(0);
  });

  it("rejects a task beyond its bound with ATTEST_TSS_BUSY and takes the next one after", async () => {
    const queue = createCallQueue(2);
    const gate = Promise.withResolvers<void>();
    const held = [queue.run(() => gate.promise), queue.run(() => gate.promise)];
    expect(await codeOfAsync(() => queue.run(() => Promise.resolve()))).toBe("ATTEST_TSS_BUSY");
    gate.resolve();
    await Promise.all(held);
    await expect(queue.run(() => Promise.resolve("ok"))).resolves.toBe("ok");
  });
});
