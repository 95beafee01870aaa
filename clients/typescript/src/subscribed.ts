/**
 * What this program subscribed to, and whether the bot still has it.
 *
 * Owns when the worker is asked: after the first subscription, in every later session, and when the worker says that
 * the bot lost one. What it says is a hint, and the answer is the truth. An older worker is asked nothing.
 */
import type { Caller } from "./caller.js";
import { RequestError, SubscriptionRemoved, WorkerUnavailable } from "./errors.js";
import { warn } from "./warnings.js";
import type { Answers } from "./wire.js";

/** A subscription of this program, in its group. */
interface Own {
  readonly group: string | null;
}

export class OwnSubscriptions {
  readonly #caller: Caller;
  readonly #tell: (removed: SubscriptionRemoved) => void;
  /* By channel or pattern. */
  readonly #own = new Map<string, Own>();
  /* The session that asked last, which is told. */
  #session = 0;
  #isDue = false;
  #isAsking = false;

  /** Tell what was removed, once each. */
  constructor(caller: Caller, tell: (removed: SubscriptionRemoved) => void) {
    this.#caller = caller;
    this.#tell = tell;
  }

  /** Note that the bot is subscribed, by the worker's answer. */
  add(channel: string, group: string | null): void {
    this.#own.set(channel, { group });
    if (this.#session !== this.#caller.connection.sessions) this.look();
  }

  /** Unsubscribe: its end is not told. If that is refused, it stays one of these. */
  async end<T>(channel: string, unsubscribe: () => Promise<T>): Promise<T> {
    const own = this.#own.get(channel);
    this.#own.delete(channel);
    try {
      return await unsubscribe();
    } catch (error) {
      if (own !== undefined && error instanceof RequestError && !this.#own.has(channel)) {
        this.#own.set(channel, own);
        this.look(); // it may have been removed meanwhile
      }
      throw error;
    }
  }

  /** Ask whether something was removed; if an answer is awaited, ask again after it. */
  look(): void {
    this.#isDue = true;
    if (!this.#isAsking) void this.#look();
  }

  async #look(): Promise<void> {
    const { connection } = this.#caller;
    this.#isAsking = true;
    while (this.#isDue) {
      this.#isDue = false;
      if (this.#own.size === 0 || !connection.welcome?.follows_subscriptions) break;
      this.#session = connection.sessions;
      try {
        await this.#compare();
      } catch (error) {
        const isNews = !(error instanceof WorkerUnavailable) && connection.failure === undefined;
        if (isNews) warn(`whether subscriptions were removed is not known: ${String(error)}`);
      } // without an answer, the next session looks
    }
    this.#isAsking = false;
  }

  async #compare(): Promise<void> {
    const own = [...this.#own];
    const groups = await this.#groups();
    for (const [channel, mine] of own) {
      if (groups.get(channel) === mine.group) continue;
      if (this.#own.get(channel) !== mine) continue; // it was ended, or made anew, meanwhile
      this.#own.delete(channel);
      this.#tell(new SubscriptionRemoved(channel, mine.group ?? undefined));
    }
  }

  /** Return the bot's subscriptions: channels and patterns, each with its group. */
  async #groups(): Promise<Map<string, string | null>> {
    const groups = new Map<string, string | null>();
    for (let after: string | null = null, more = true; more; ) {
      const page: Answers["subscriptions"] = await this.#caller.ask<Answers["subscriptions"]>(
        "the bot's subscriptions",
        (request) => ({ op: "subscriptions", request, after, follow: true }),
        { once: true, timeoutSeconds: Infinity },
      );
      for (const { pattern, group } of page.patterns ?? []) groups.set(pattern, group);
      for (const { channel_name: channel, group } of page.subscriptions) groups.set(channel, group);
      after = page.subscriptions.at(-1)?.channel_name ?? null;
      more = (page.more ?? false) && after !== null;
    }
    return groups;
  }
}
