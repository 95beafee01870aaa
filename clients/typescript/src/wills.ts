/**
 * A bot's last will, which the worker sends if the bot vanishes; it is left anew in every session.
 *
 * The worker deletes a will when it sends it. So a bot that returns has to leave it again, with another id.
 */
import type { AskOptions, Caller } from "./caller.js";
import { RequestError, WorkerUnavailable } from "./errors.js";
import { newId } from "./ids.js";
import { draft, time, write, type PublishOptions, type Recipient, type SendOptions } from "./sending.js";
import type { CallOptions } from "./waiting.js";
import { warn } from "./warnings.js";
import type { Publication } from "./wire.js";

/** The options of a last will, beside its body. */
export interface WillOptions extends Omit<SendOptions, "delaySeconds" | "id">, Pick<PublishOptions, "retain"> {
  /** How long the bot must be gone; by default for the time after which a silent session ends. */
  readonly delaySeconds?: number;
}

/** Makes the message of a will, which has a new id each time, and says how long it waits. */
interface Will {
  readonly message: () => Publication;
  readonly delay: number | null;
}

export class LastWill {
  readonly #caller: Caller;
  #will: Will | undefined;

  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /** Leave a will instead of the one before. */
  async leave(to: Recipient, body: unknown, options: WillOptions): Promise<void> {
    const { delaySeconds, timeoutSeconds, signal, ...rest } = options;
    const delay = delaySeconds === undefined ? null : time("delaySeconds", delaySeconds);
    const payload = write(draft(to, body, rest));
    const message = () => ({ ...(JSON.parse(payload) as Publication), id: newId() });
    await this.#change({ message, delay }, { timeoutSeconds, signal });
  }

  /** Take the will back. */
  withdraw(options: CallOptions): Promise<void> {
    return this.#change(undefined, options);
  }

  /** Leave it again, in a later session. */
  opened(): void {
    if (this.#will === undefined) return;
    this.#ask(this.#will, { once: true, timeoutSeconds: Infinity }).catch((error: unknown) => {
      const isNews = !(error instanceof WorkerUnavailable) && this.#caller.connection.failure === undefined;
      if (isNews) warn(`the last will could not be left again: ${String(error)}`);
    }); // without an answer, the next session leaves it
  }

  async #change(will: Will | undefined, options: CallOptions): Promise<void> {
    const before = this.#will;
    this.#will = will;
    try {
      await this.#ask(will, options);
    } catch (error) {
      if (error instanceof RequestError && this.#will === will) this.#will = before; // the worker still has that one
      throw error;
    }
  }

  #ask(will: Will | undefined, options: AskOptions): Promise<unknown> {
    const message = will === undefined ? null : will.message();
    const make = (request: number) => ({ op: "will", request, message, delay: will?.delay ?? null }) as const;
    return this.#caller.ask("a last will", make, options);
  }
}
