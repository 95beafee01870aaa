/**
 * A bot's last will, which the worker sends if the bot vanishes; it is left anew in every session.
 *
 * The worker deletes a will when it sends it. So a bot that returns has to leave it again, with another id: the last one
 * that was not refused. What is being asked for is kept apart from that. A new session repeats it as any request, so
 * the other one waits for the answer.
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

/** What is left: a message, which has a new id each time it is made, or none; and for how long the bot must be gone. */
interface Will {
  readonly message: (() => Publication) | null;
  readonly delay: number | null;
}

export class LastWill {
  readonly #caller: Caller;
  /* The last one that the worker has, as far as is known, or had until it sent it. */
  #left: Will = { message: null, delay: null };
  /* Those asked for after it, in order, that have no answer. */
  #asked: Will[] = [];
  /* Whether a session has begun in which it was not left again. */
  #isDue = false;

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
    return this.#change({ message: null, delay: null }, options);
  }

  /** Leave it again, in a later session. */
  opened(): void {
    this.#isDue = true;
    this.#leaveAgain();
  }

  #leaveAgain(): void {
    if (!this.#isDue || this.#asked.length > 0) return;
    this.#isDue = false;
    if (this.#left.message === null) return;
    this.#ask(this.#left, { once: true, timeoutSeconds: Infinity }).catch((error: unknown) => {
      const isNews = !(error instanceof WorkerUnavailable) && this.#caller.connection.failure === undefined;
      if (isNews) warn(`the last will could not be left again: ${String(error)}`);
    }); // without an answer, the next session leaves it
  }

  async #change(will: Will, options: CallOptions): Promise<void> {
    options.signal?.throwIfAborted();
    this.#asked.push(will);
    let isRefused = false;
    try {
      await this.#ask(will, options);
    } catch (error) {
      isRefused = error instanceof RequestError;
      throw error;
    } finally {
      this.#answered(will, isRefused);
    }
  }

  /** Note an answer, or that nobody waits for it any more: then the worker may have it. */
  #answered(will: Will, isRefused: boolean): void {
    const at = this.#asked.indexOf(will);
    if (at >= 0 && isRefused) {
      this.#asked.splice(at, 1);
    } else if (at >= 0) { // otherwise the worker took a later one
      this.#left = will;
      this.#asked.splice(0, at + 1);
    }
    this.#leaveAgain();
  }

  #ask(will: Will, options: AskOptions): Promise<unknown> {
    const make = (request: number) => ({ op: "will", request, message: will.message?.() ?? null, delay: will.delay }) as const;
    return this.#caller.ask("a last will", make, options);
  }
}
