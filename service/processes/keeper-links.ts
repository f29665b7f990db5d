/**
 * The keeper's end of the links: spends of all workers come together here and share the store's group commits.
 * A peer that does not show the key of this start gets nothing, not even an answer.
 */
import { createServer, type Socket } from "node:net";
import { timingSafeEqual } from "node:crypto";
import type { PrivateTokenVerifier, SpentStore } from "../../tokens/index.ts";
import { isStileError } from "../../wire/index.ts";
import type { UsedSignatures } from "../edge/signatures/used-signatures.ts";
import { errorFields, type Log } from "../log.ts";
import { factsToJson, type KeeperFacts } from "./facts.ts";
import {
  createFrameReader,
  encodeFrame,
  encodeJsonFrame,
  encodeSpendAnswers,
  encodeYesNo,
  FRAME,
  type Frame,
  type Hello,
  isLinkError,
  type LinkError,
  parseJsonFrame,
  parseSpendCalls,
  parseUseCall,
  parseVerifyCall,
  type SpendAnswer,
  type SpendCall,
  type UseCall,
  type VerifyCall,
} from "./link-frames.ts";
import type { SharedMetrics } from "./shared-metrics.ts";
import { listenOnUnix } from "./unix-socket.ts";

export interface KeeperLinksOptions {
  readonly path: string;
  /** Hexadecimal. */
  readonly key: string;
  readonly facts: () => KeeperFacts;
  /** Of an edge. */
  readonly spentStore?: Pick<SpentStore, "spend"> | undefined;
  /** Where this process is the issuer as well. */
  readonly privateVerifier?: PrivateTokenVerifier | undefined;
  readonly usedSignatures: UsedSignatures;
  readonly metrics: SharedMetrics;
  readonly log: Log;
}

export interface KeeperLinks {
  readonly listen: () => Promise<void>;
  /** After a change of the keys. */
  readonly tellFacts: () => void;
  /** Every worker goes by what it was last told, or is gone, or stands still. */
  readonly whenHeard: () => Promise<void>;
  /** @returns which workers were asked; their answers go to `metrics` */
  readonly askMetrics: () => Iterable<number>;
  /** Ends when every worker has let go, or at the deadline. */
  readonly goAway: (deadlineMs: number) => Promise<void>;
}

/** A worker says who it is at once. */
const HELLO_MS = 2_000;
/** And hears within a fraction of that. */
const HEARD_MS = 2_000;

export function createKeeperLinks(options: KeeperLinksOptions): KeeperLinks {
  const links = new Map<Socket, number>();
  const unheard = createUnheard();
  let whenEmpty: (() => void) | undefined;

  const tell = (socket: Socket): void => {
    unheard.tell(socket);
    socket.write(encodeJsonFrame(FRAME.facts, factsToJson(options.facts())));
  };

  function accept(socket: Socket): void {
    const impatience = setTimeout(() => socket.destroy(), HELLO_MS);
    const hear = (frame: Frame): void => {
      if (links.has(socket)) answer({ ...options, unheard }, socket, frame, links.get(socket) ?? 0);
      else {
        links.set(socket, welcome(options, frame));
        clearTimeout(impatience);
        tell(socket);
      }
    };
    hearFrames(socket, hear, options.log);
    socket.on("close", () => {
      clearTimeout(impatience);
      const worker = links.get(socket);
      if (worker !== undefined) options.metrics.end(worker);
      links.delete(socket);
      unheard.end(socket);
      if (links.size === 0) whenEmpty?.();
    });
  }

  const server = createServer(accept);
  const tellAll = (bytes: Buffer): void => {
    for (const socket of links.keys()) socket.write(bytes);
  };

  return {
    listen: () => listenOnUnix(server, options.path),
    tellFacts: () => [...links.keys()].forEach(tell),
    whenHeard: unheard.whenNone,
    askMetrics: () => {
      tellAll(encodeFrame(FRAME.askMetrics, new Uint8Array(0)));
      return links.values();
    },
    goAway: async (deadlineMs) => {
      // Nobody may come back to this keeper.
      server.close();
      tellAll(encodeFrame(FRAME.goAway, new Uint8Array(0)));
      if (links.size > 0) await within(deadlineMs, (done) => (whenEmpty = done));
      for (const socket of links.keys()) socket.destroy();
    },
  };
}

function hearFrames(socket: Socket, hear: (frame: Frame) => void, log: Log): void {
  const readFrames = createFrameReader();
  socket.on("data", (chunk: Buffer) => {
    try {
      for (const frame of readFrames(chunk)) hear(frame);
    } catch (error) {
      log.write("error", "link.refused", errorFields(error));
      socket.destroy();
    }
  });
  socket.on("error", () => socket.destroy());
}

/** How many times each worker was told what it has not heard yet. */
interface Unheard {
  readonly tell: (socket: Socket) => void;
  readonly hear: (socket: Socket) => void;
  readonly end: (socket: Socket) => void;
  readonly whenNone: () => Promise<void>;
}

function createUnheard(): Unheard {
  const counts = new Map<Socket, number>();
  const waiting: (() => void)[] = [];
  const end = (socket: Socket): void => {
    counts.delete(socket);
    if (counts.size === 0) for (const go of waiting.splice(0)) go();
  };
  return {
    tell: (socket) => void counts.set(socket, (counts.get(socket) ?? 0) + 1),
    hear: (socket) => {
      const left = (counts.get(socket) ?? 0) - 1;
      if (left > 0) counts.set(socket, left);
      else end(socket);
    },
    end,
    whenNone: async () => {
      if (counts.size > 0) await within(HEARD_MS, (done) => waiting.push(done));
    },
  };
}

/** @param wait is given what ends the waiting before its time */
async function within(ms: number, wait: (done: () => void) => unknown): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, ms);
    wait(() => {
      clearTimeout(timer);
      resolve();
    });
  });
}

/** @returns the worker's number. Throws for anything but a worker of this start. */
function welcome({ key }: KeeperLinksOptions, frame: Frame): number {
  const hello = frame.kind === FRAME.hello ? (parseJsonFrame(frame) as Partial<Hello>) : {};
  const shown = Buffer.from(typeof hello.key === "string" ? hello.key : "", "hex");
  const expected = Buffer.from(key, "hex");
  if (shown.length !== expected.length || !timingSafeEqual(shown, expected)) {
    throw new TypeError("a peer of the keeper has another key");
  }
  if (!Number.isSafeInteger(hello.worker)) throw new TypeError("a worker has no number");
  return hello.worker ?? 0;
}

/** Throws for what no worker sends: its link ends, and nobody else's. */
function answer(
  options: KeeperLinksOptions & { readonly unheard: Unheard },
  socket: Socket,
  frame: Frame,
  worker: number,
): void {
  switch (frame.kind) {
    case FRAME.heard:
      options.unheard.hear(socket);
      return;
    case FRAME.spends:
      void answerSpends(options, socket, parseSpendCalls(frame.body));
      return;
    case FRAME.verify:
      void answerVerify(options, socket, parseVerifyCall(frame.body));
      return;
    case FRAME.use:
      void answerUse(options, socket, parseUseCall(frame.body));
      return;
    case FRAME.metrics:
      options.metrics.take(worker, parseJsonFrame(frame));
      return;
    default:
      throw new TypeError("a worker sent a frame that is not a worker's");
  }
}

/** Calls that are answered together leave together. */
async function answerSpends(
  options: KeeperLinksOptions,
  socket: Socket,
  calls: readonly SpendCall[],
): Promise<void> {
  const { spentStore } = options;
  const settle = async ({ id, request }: SpendCall): Promise<SpendAnswer> => {
    try {
      if (spentStore === undefined) return { id, result: "TOKEN_STORE_UNAVAILABLE" };
      return { id, result: await spentStore.spend(request) };
    } catch (error) {
      return { id, result: linkErrorOf(options, error, "TOKEN_STORE_UNAVAILABLE") };
    }
  };
  const answers = await Promise.all(calls.map(settle));
  if (socket.writable) socket.write(encodeFrame(FRAME.spent, encodeSpendAnswers(answers)));
}

async function answerVerify(
  options: KeeperLinksOptions,
  socket: Socket,
  { authenticator, id, input, tokenKeyId }: VerifyCall,
): Promise<void> {
  let result: boolean | LinkError = "TOKEN_KEY_UNKNOWN";
  try {
    const { privateVerifier } = options;
    if (privateVerifier !== undefined) {
      result = await privateVerifier.verifyPrivate(tokenKeyId, input, authenticator);
    }
  } catch (error) {
    result = linkErrorOf(options, error, "TOKEN_ISSUER_BUSY");
  }
  if (socket.writable) {
    socket.write(encodeFrame(FRAME.verified, encodeYesNo({ id, result })));
  }
}

async function answerUse(
  options: KeeperLinksOptions,
  socket: Socket,
  { id, use }: UseCall,
): Promise<void> {
  let result: boolean | LinkError;
  try {
    result = await options.usedSignatures.useOnce(use);
  } catch (error) {
    result = linkErrorOf(options, error, "TOKEN_STORE_UNAVAILABLE");
  }
  if (socket.writable) socket.write(encodeFrame(FRAME.used, encodeYesNo({ id, result })));
}

function linkErrorOf({ log }: KeeperLinksOptions, error: unknown, other: LinkError): LinkError {
  if (isStileError(error) && isLinkError(error.code)) return error.code;
  log.write("error", "link.failed", errorFields(error));
  return other;
}
