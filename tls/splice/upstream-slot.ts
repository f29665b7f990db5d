/** The place for a client's one upstream connection: made when it is needed, kept between requests where it may be. */
import type { SpliceContext } from "./splicer.ts";
import { type LinkOwner, UpstreamLink } from "./upstream-link.ts";

export class UpstreamSlot {
  readonly #context: SpliceContext;
  readonly #owner: LinkOwner;
  #isKept = false;
  link: UpstreamLink | undefined;

  constructor(context: SpliceContext, owner: LinkOwner) {
    this.#context = context;
    this.#owner = owner;
  }

  /** For an exchange: the connection of the last one where it still holds, else a new one. */
  take(): UpstreamLink {
    const isFree = this.#isKept && this.link?.isFree === true;
    this.#forget();
    return isFree && this.link !== undefined ? this.link : this.renew();
  }

  renew(): UpstreamLink {
    this.link?.destroy();
    this.link = new UpstreamLink(this.#context.forwarder, this.#owner);
    return this.link;
  }

  /** After an exchange. */
  keep(): void {
    if (this.link?.isFree === true && this.#context.kept.enter()) {
      this.#isKept = true;
      this.link.resume();
    } else this.link?.destroy();
  }

  destroy(): void {
    this.#forget();
    this.link?.destroy();
  }

  #forget(): void {
    if (this.#isKept) this.#context.kept.leave();
    this.#isKept = false;
  }
}
