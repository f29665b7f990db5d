/**
 * A worker's end of its link to the keeper. It outlives keepers: what has no answer when one is gone is asked of
 * the next, within a bounded time.
 *
 * Why asking again admits no token twice: the store decides, by one atomic insert, and what it answered first is
 * on its disk. The second call is the same call: with a binding it is told "repeat", which is the first answer to
 * the same caller; without one "spent", and the token is lost to its owner, as with the crash of one process.
 * Nothing here ever turns an answer into another one. So it is with the one use of an agent's signature.
 */
import { connect, type Socket } from "node:net";
import type { PrivateTokenVerifier, SpendOutcome, SpentStore } from "../../tokens/index.ts";
import { StileError } from "../../wire/index.ts";
import type { UsedSignatures } from "../edge/signatures/used-signatures.ts";
import { errorFields, type Log } from "../log.ts";
import { factsFromJson, type KeeperFacts } from "./facts.ts";
import {
  createFrameReader,
  encodeFrame,
  encodeJsonFrame,
  encodeSpendCalls,
  encodeUseCall,
  encodeVerifyCall,
  FRAME,
  type Frame,
  type LinkError,
  parseJsonFrame,
  parseSpendAnswers,
  parseYesNo,
  type SpendCall,
  type UseCall,
  type VerifyCall,
} from "./link-frames.ts";

export interface KeeperLinkOptions {
  readonly path: string;
  /** Hexadecimal. */
  readonly key: string;
  readonly worker: number;
  /** How long a call waits for its answer, over however many keepers. */
  readonly waitMs: number;
  readonly monotonicMs: () => number;
  readonly onFacts: (facts: KeeperFacts) => void;
  /** Of this worker, as JSON. */
  readonly metrics: () => Promise<unknown>;
  readonly log: Log;
}

export interface KeeperLink
  extends Pick<SpentStore, "spend">, PrivateTokenVerifier, UsedSignatures {
  /** Something else than a call is under way at the keeper, which waits for it. @returns ends it */
  readonly enter: () => () => void;
  /** Resolves once there is a keeper. @throws `SERVICE_OVERLOADED` after the time to wait */
  readonly whenUp: () => Promise<void>;
  /** Gives the metrics once more, and lets go. */
  readonly close: () => Promise<void>;
}

type Answer = SpendOutcome | boolean;
type Call =
  | { readonly kind: "spend"; readonly call: SpendCall }
  | { readonly kind: "verify"; readonly call: VerifyCall }
  | { readonly kind: "use"; readonly call: UseCall };

interface Pending {
  readonly call: Call;
  /** To the keeper of now. */
  isSent: boolean;
  readonly untilMs: number;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: StileError) => void;
}

const RETRY_MS = 25;
const SWEEP_MS = 100;
/** As many as the embedded store lets wait. */
const MAX_PENDING = 16_384;
const MAX_ID = 2 ** 32;

export function createKeeperLink(options: KeeperLinkOptions): KeeperLink {
  const link = new Link(options);
  link.connect();
  return {
    spend: async (request) => {
      const answer = await link.ask((id) => ({ kind: "spend", call: { id, request } }));
      if (typeof answer === "boolean")
        throw new TypeError("a spend was answered as something else");
      return answer;
    },
    verifyPrivate: async (tokenKeyId, input, authenticator) => {
      const call = { tokenKeyId, input, authenticator };
      const answer = await link.ask((id) => ({ kind: "verify", call: { ...call, id } }));
      return answer === true;
    },
    useOnce: async (use) => (await link.ask((id) => ({ kind: "use", call: { id, use } }))) === true,
    enter: () => link.enter(),
    whenUp: () => link.whenUp(),
    close: () => link.close(),
  };
}

class Link {
  readonly #options: KeeperLinkOptions;
  readonly #pending = new Map<number, Pending>();
  readonly #up = new Set<() => void>();
  readonly #sweep: NodeJS.Timeout;
  #socket: Socket | undefined;
  /** The socket takes calls: facts have come, and the keeper is not about to go. */
  #isUp = false;
  /** The keeper has said that it ends, and waits for its last answers to be taken. */
  #isLeaving = false;
  #isClosed = false;
  #isFlushing = false;
  #unsent: Call[] = [];
  #entered = 0;
  #lastId = 0;

  constructor(options: KeeperLinkOptions) {
    this.#options = options;
    this.#sweep = setInterval(() => this.#giveUp(), SWEEP_MS);
  }

  connect(): void {
    const { key, path, worker } = this.#options;
    const socket = connect(path);
    const readFrames = createFrameReader();
    this.#socket = socket;
    socket.once("connect", () => socket.write(encodeJsonFrame(FRAME.hello, { key, worker })));
    socket.on("data", (chunk: Buffer) => {
      try {
        for (const frame of readFrames(chunk)) this.#hear(socket, frame);
      } catch (error) {
        this.#options.log.write("error", "link.failed", errorFields(error));
        socket.destroy();
      }
    });
    socket.on("error", () => socket.destroy());
    socket.once("close", () => {
      this.#isUp = false;
      this.#isLeaving = false;
      this.#unsent = [];
      for (const pending of this.#pending.values()) pending.isSent = false;
      if (!this.#isClosed) setTimeout(() => this.#isClosed || this.connect(), RETRY_MS);
    });
  }

  ask(callOf: (id: number) => Call): Promise<Answer> {
    if (this.#isClosed) return Promise.reject(unavailable("the link to the keeper is closed"));
    if (this.#pending.size >= MAX_PENDING) {
      return Promise.reject(unavailable("too many calls wait for the keeper"));
    }
    this.#lastId = (this.#lastId + 1) % MAX_ID;
    const id = this.#lastId;
    return new Promise((resolve, reject) => {
      const untilMs = this.#options.monotonicMs() + this.#options.waitMs;
      const pending = { call: callOf(id), isSent: false, untilMs, resolve, reject };
      this.#pending.set(id, pending);
      if (this.#isUp) this.#send(pending);
    });
  }

  enter(): () => void {
    this.#entered += 1;
    return () => {
      this.#entered -= 1;
      this.#letGo();
    };
  }

  async whenUp(): Promise<void> {
    if (this.#isUp) return;
    await new Promise<void>((resolve, reject) => {
      const up = (): void => {
        clearTimeout(timer);
        this.#up.delete(up);
        resolve();
      };
      const timer = setTimeout(() => {
        this.#up.delete(up);
        reject(new StileError("SERVICE_OVERLOADED", "the keeper of the state is being replaced"));
      }, this.#options.waitMs);
      this.#up.add(up);
    });
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    clearInterval(this.#sweep);
    for (const { reject } of this.#pending.values()) reject(unavailable("the worker ends"));
    this.#pending.clear();
    const socket = this.#socket;
    if (socket === undefined || !this.#isUp) {
      socket?.destroy();
      return;
    }
    const metrics = await this.#options.metrics();
    await new Promise<void>((resolve) => {
      socket.once("close", () => resolve());
      socket.end(encodeJsonFrame(FRAME.metrics, metrics));
    });
  }

  #hear(socket: Socket, frame: Frame): void {
    switch (frame.kind) {
      case FRAME.facts:
        this.#options.onFacts(factsFromJson(parseJsonFrame(frame)));
        socket.write(encodeFrame(FRAME.heard, new Uint8Array(0)));
        this.#comeUp();
        return;
      case FRAME.spent:
        for (const { id, result } of parseSpendAnswers(frame.body)) this.#settle(id, result);
        return;
      case FRAME.verified:
      case FRAME.used: {
        const { id, result } = parseYesNo(frame.body);
        this.#settle(id, result);
        return;
      }
      case FRAME.askMetrics:
        void this.#options.metrics().then((metrics) => {
          if (socket.writable) socket.write(encodeJsonFrame(FRAME.metrics, metrics));
        });
        return;
      case FRAME.goAway:
        this.#isUp = false;
        this.#isLeaving = true;
        this.#letGo();
        return;
      default:
        throw new TypeError("the keeper sent a frame that is not the keeper's");
    }
  }

  /** With what the keeper before has not answered. */
  #comeUp(): void {
    if (this.#isUp) return;
    this.#isUp = true;
    for (const pending of this.#pending.values()) this.#send(pending);
    for (const up of this.#up) up();
  }

  #settle(id: number, result: Answer | LinkError): void {
    const pending = this.#pending.get(id);
    // Given up: the caller was told that the fate of its call is not known.
    if (pending === undefined) return;
    this.#pending.delete(id);
    if (typeof result === "string") pending.reject(new StileError(result, "the keeper refused"));
    else pending.resolve(result);
    this.#letGo();
  }

  /** Spends of one turn of the event loop go in one frame. */
  #send(pending: Pending): void {
    const { call } = pending;
    pending.isSent = true;
    if (call.kind === "verify") {
      this.#socket?.write(encodeFrame(FRAME.verify, encodeVerifyCall(call.call)));
      return;
    }
    if (call.kind === "use") {
      this.#socket?.write(encodeFrame(FRAME.use, encodeUseCall(call.call)));
      return;
    }
    this.#unsent.push(call);
    if (this.#isFlushing) return;
    this.#isFlushing = true;
    setImmediate(() => {
      this.#isFlushing = false;
      const calls = this.#unsent.flatMap((one) => (one.kind === "spend" ? [one.call] : []));
      this.#unsent = [];
      // What goes away in between leaves them pending, for the next.
      if (calls.length > 0 && this.#socket?.writable === true) {
        this.#socket.write(encodeFrame(FRAME.spends, encodeSpendCalls(calls)));
      }
    });
  }

  /** A keeper that is about to go waits for this end of the link. */
  #letGo(): void {
    if (!this.#isLeaving || this.#entered > 0) return;
    const isWaiting = [...this.#pending.values()].some(({ isSent }) => isSent);
    if (!isWaiting) this.#socket?.end();
  }

  #giveUp(): void {
    const nowMs = this.#options.monotonicMs();
    for (const [id, { reject, untilMs }] of this.#pending) {
      if (nowMs < untilMs) continue;
      this.#pending.delete(id);
      reject(unavailable("the keeper of the state does not answer"));
    }
    this.#letGo();
  }
}

function unavailable(message: string): StileError {
  return new StileError("TOKEN_STORE_UNAVAILABLE", message);
}
