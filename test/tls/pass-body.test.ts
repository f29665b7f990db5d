/** An answer's body on its way to the client: whole, or with both sides ended and the first error told. */
import { PassThrough, Readable, Writable } from "node:stream";
import { expect, test } from "vitest";
import { passBody } from "../../tls/pass-body.ts";

function sink(write: (text: string, done: () => void) => void): Writable {
  return new Writable({ write: (chunk: Buffer, _encoding, done) => write(chunk.toString(), done) });
}

test("passes all of it, as fast as it is taken, and ends then", async () => {
  const taken: string[] = [];
  const response = sink((text, done) => {
    taken.push(text);
    setImmediate(done);
  });
  await passBody(Readable.from([Buffer.from("a"), Buffer.from("b")]), response);
  expect(taken).toStrictEqual(["a", "b"]);
  expect(response.writableFinished).toBe(true);
});

test("rejects with the answer's error, and ends the response before its end", async () => {
  const answer = new PassThrough();
  const response = sink((_text, done) => done());
  const passed = passBody(answer, response);
  answer.write("part");
  answer.destroy(Object.assign(new Error("aborted"), { code: "ECONNRESET" }));
  await expect(passed).rejects.toMatchObject({ code: "ECONNRESET" });
  expect([response.destroyed, response.writableFinished]).toStrictEqual([true, false]);
});

test("rejects where the client leaves, and ends the answer", async () => {
  const answer = new PassThrough();
  const response = sink((_text, done) => done());
  const passed = passBody(answer, response);
  answer.write("part");
  response.destroy();
  await expect(passed).rejects.toMatchObject({ code: "ERR_STREAM_PREMATURE_CLOSE" });
  expect(answer.destroyed).toBe(true);
});

test("rejects where either was over before", async () => {
  const response = sink((_text, done) => done());
  const ended = new PassThrough();
  ended.destroy();
  await expect(passBody(ended, response)).rejects.toMatchObject({
    code: "ERR_STREAM_PREMATURE_CLOSE",
  });
  expect(response.destroyed).toBe(true);
  const answer = new PassThrough();
  await expect(passBody(answer, response)).rejects.toThrow();
  expect(answer.destroyed).toBe(true);
});
