/**
 * The place for a client's one upstream connection: made when it is needed, kept between requests where it may
 * be, and exchanged for one to another upstream where this one fails, or when it is time to choose again.
 */
import { Attempts } from "../upstreams/attempts.ts";
import type { UpstreamFailure } from "../upstreams/failure.ts";
import type { ClientEnds } from "../upstreams/proxy-out.ts";
import type { SpliceContext } from "./splicer.ts";
import { type LinkOwner, UpstreamLink } from "./upstream-link.ts";

/** A connection stays with an upstream for this long before another may be better. */
const CHOICE_MS = 2_000;

/** Of an exchange that has come to its end with no whole answer. */
export type SlotOwner = Pick<LinkOwner, "onPart" | "onSilence" | "onDrain"> & {
  readonly onFailure: (error: Error) => void;
};

export interface SlotRequest {
  readonly method: string;
  /** The head with what has come of the body. */
  readonly bytes: Buffer;
  readonly isRepeatable: boolean;
  readonly client: ClientEnds;
}

type SlotContext = Pick<SpliceContext, "forwarder" | "kept">;

export class UpstreamSlot implements LinkOwner {
  readonly #context: SlotContext;
  readonly #owner: SlotOwner;
  #isKept = false;
  #link: UpstreamLink | undefined;
  #attempts: Attempts | undefined;
  #request: SlotRequest | undefined;
  /** What was written of the request, for as long as it may be sent again. */
  #sent: Buffer[] = [];
  #chosenMs = 0;
  #isChoiceDue = false;

  constructor(context: SlotContext, owner: SlotOwner) {
    this.#context = context;
    this.#owner = owner;
  }

  /** Bytes wait to be taken by the upstream. */
  get isBlocked(): boolean {
    return this.#link?.isBlocked ?? false;
  }

  /**
   * Begins an exchange, on the connection of the last one where it still holds.
   * @returns false where the caller should wait for `onDrain`
   * @throws `TLS_UPSTREAM_UNHEALTHY`, `TLS_UPSTREAM_BUSY`
   */
  begin(request: SlotRequest): boolean {
    const { upstreams } = this.#context.forwarder;
    const isFree = this.#isKept && this.#link?.isFree === true;
    this.#forget();
    const preferred = isFree && !this.#isChoiceDue ? this.#link?.upstream : undefined;
    const attempts = new Attempts(upstreams, request.isRepeatable, preferred);
    this.#attempts = attempts;
    this.#request = request;
    this.#sent = [request.bytes];
    const isSame = isFree && this.#link?.upstream === attempts.upstream;
    if (preferred === undefined || !isSame) this.#chosenMs = attempts.begunMs;
    this.#isChoiceDue = upstreams.all.length > 1 && attempts.begunMs - this.#chosenMs > CHOICE_MS;
    if (!isSame) this.#renew(attempts, request);
    const isTaken = this.#link?.begin(request.method, request.bytes) ?? false;
    if (isSame) this.#dropSent();
    return isTaken;
  }

  /** Of the body. @returns false where the caller should wait for `onDrain` */
  write(bytes: Buffer): boolean {
    if (this.#link?.isConnected === false) this.#sent.push(bytes);
    return this.#link?.write(bytes) ?? true;
  }

  pause(): void {
    this.#link?.pause();
  }

  resume(): void {
    this.#link?.resume();
  }

  /** After an exchange. @returns whether the connection is kept for another */
  keep(): boolean {
    this.#end();
    this.#isKept = this.#link?.isFree === true && this.#context.kept.enter();
    if (this.#isKept) this.#link?.resume();
    else this.#link?.destroy();
    return this.#isKept;
  }

  /** The upstream was silent for too long. */
  timeOut(): void {
    this.#attempts?.settle("timeout");
    this.destroy();
  }

  destroy(): void {
    this.#end();
    this.#forget();
    this.#link?.destroy();
  }

  readonly onPart: LinkOwner["onPart"] = (head, content, isEnd, done) => {
    if (head !== undefined) {
      this.#attempts?.settle("answered");
      this.#sent = [];
    }
    this.#owner.onPart(head, content, isEnd, done);
  };

  readonly onGone = (): void => this.#forget();

  readonly onConnect = (): void => {
    this.#dropSent();
    this.#owner.onDrain();
  };

  readonly onDrain = (): void => this.#owner.onDrain();
  readonly onSilence = (): void => this.#owner.onSilence();

  readonly onFailure = (error: Error, failure: UpstreamFailure): void => {
    const attempts = this.#attempts;
    const request = this.#request;
    if (attempts === undefined || request === undefined) return;
    if (attempts.next(failure, this.#link?.isReused ?? false)) {
      const bytes = Buffer.concat(this.#sent);
      this.#renew(attempts, request);
      this.#link?.begin(request.method, bytes);
      return;
    }
    this.#end();
    this.#owner.onFailure(error);
  };

  #renew({ upstream }: Attempts, { client }: SlotRequest): void {
    this.#link?.destroy();
    this.#link = new UpstreamLink(upstream, client, this.#context.forwarder, this);
  }

  /** It is on its way: only what has no effect may be sent again. */
  #dropSent(): void {
    if (this.#request?.isRepeatable !== true) this.#sent = [];
  }

  #end(): void {
    this.#attempts?.end();
    this.#attempts = undefined;
    this.#request = undefined;
    this.#sent = [];
  }

  #forget(): void {
    if (this.#isKept) this.#context.kept.leave();
    this.#isKept = false;
  }
}
