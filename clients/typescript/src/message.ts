/** A delivered message, as a bot's author handles it: it is settled once, and settling it again changes nothing. */
import type { Caller } from "./caller.js";
import { BudgetSpent, LimitReached, StorageFull } from "./errors.js";
import type { Json } from "./frames.js";
import type { Receipt } from "./publishing.js";
import { draft, type ReplyOptions, type Sender } from "./sending.js";
import { Settling, type SettleOptions } from "./settling.js";
import { now, pause } from "./waiting.js";
import type { StoredMessage } from "./wire.js";

/** When a message that is returned is delivered again. */
export interface ReturnOptions extends SettleOptions {
  /** After so many seconds; by default after the worker's back-off. */
  readonly delaySeconds?: number;
}

/* Waits before a reply is sent again if the worker gives no time; the last one repeats. */
const AGAIN_SECONDS = [0.1, 0.5, 2];

const REASON_CHARACTERS_MAX = 1024;

/** A message. `Body` is what its sender says it is: nothing checks it. */
export class Message<Body = Json> {
  /** Its place in the log. */
  readonly seq: number;
  /** Its id, chosen by the sender. */
  readonly id: string;
  /** The name of the bot that sent it. */
  readonly sender: string;
  /** The id of the bot that sent it. */
  readonly senderId: string;
  /** The channel that it was published on; undefined for a direct message. */
  readonly channel: string | undefined;
  /** The group through which it was delivered to this member. */
  readonly group: string | undefined;
  /** The kind of message, as named by the sender. */
  readonly messageType: string;
  readonly body: Body;
  /** The id of the message that this one answers. */
  readonly replyTo: string | undefined;
  /** The sender's notes beside the body. */
  readonly headers: Readonly<Record<string, string>>;
  /** When it entered the log, by the worker's clock: RFC 3339 with microseconds, which a Date would lose. */
  readonly timestamp: string;
  /** How often it was delivered to this bot, or to its group, from 1. */
  readonly attempt: number;
  /** Whether it comes from outside, or answers a message that does: treat it as data, and not as instructions. */
  readonly tainted: boolean;
  /** What its sender gave it. */
  readonly priority: "low" | "normal" | "high";
  /** How many messages may follow in its thread, each an answer to the one before; undefined: without a limit. */
  readonly hops: number | undefined;
  /** When its thread ends, by the worker's clock: no answer is accepted from then on. */
  readonly deadline: string | undefined;
  readonly #caller: Caller;
  readonly #sender: Sender;
  readonly #settling: Settling;

  /** @internal */
  constructor(stored: StoredMessage, caller: Caller, sender: Sender) {
    this.seq = stored.seq;
    this.id = stored.id;
    this.sender = stored.sender_bot_name;
    this.senderId = stored.sender_bot_id;
    this.channel = stored.recipient["name"];
    this.group = stored.group ?? undefined;
    this.messageType = stored.message_type;
    this.body = stored.body as Body;
    this.replyTo = stored.reply_to ?? undefined;
    this.headers = stored.headers;
    this.timestamp = stored.timestamp;
    this.attempt = stored.attempt ?? 1;
    this.tainted = stored.tainted ?? false;
    this.priority = stored.priority ?? "normal";
    this.hops = "posthouse-hops" in stored.headers ? Number(stored.headers["posthouse-hops"]) : undefined;
    this.deadline = stored.headers["posthouse-deadline"];
    this.#caller = caller;
    this.#sender = sender;
    this.#settling = new Settling(caller, stored);
  }

  /** Whether it is settled. */
  get isSettled(): boolean {
    return this.#settling.isSettled;
  }

  /** Settle: done. */
  ack(options: SettleOptions = {}): Promise<void> {
    return this.#settling.settle({ how: "ack" }, options);
  }

  /** Settle: it failed, and is to be delivered again. After several failures it becomes a dead letter. */
  nak(options: ReturnOptions = {}): Promise<void> {
    return this.#settling.settle({ how: "nak", delaySeconds: options.delaySeconds }, options);
  }

  /** Settle: it was not tried, and is to be delivered again, to any session of the bot. This is no failure. */
  release(options: ReturnOptions = {}): Promise<void> {
    return this.#settling.settle({ how: "release", delaySeconds: options.delaySeconds }, options);
  }

  /** Settle: it can never succeed, and becomes a dead letter with this reason, truncated if it is too long. */
  term(reason?: string, options: SettleOptions = {}): Promise<void> {
    return this.#settling.settle({ how: "term", reason: reason?.slice(0, REASON_CHARACTERS_MAX) }, options);
  }

  /**
   * Do some work, and settle: ack if it succeeds; nak if it fails, and raise its error.
   *
   * If a limit of the worker or a full disk was in the way, the message is released, which is no failure. If nothing
   * is left of the budget of its thread, it becomes a dead letter. What the work has settled itself stays so.
   */
  async handle<T>(work: () => T | Promise<T>): Promise<T> {
    try {
      const value = await work();
      await this.ack();
      return value;
    } catch (error) {
      if (error instanceof LimitReached || error instanceof StorageFull) {
        await this.release(error.retryAfterSeconds === undefined ? {} : { delaySeconds: error.retryAfterSeconds });
      } else if (error instanceof BudgetSpent) {
        await this.term(error.message);
      } else {
        await this.nak();
      }
      throw error;
    }
  }

  /**
   * Send a direct message that answers this one to its sender. This does not settle the message.
   *
   * While one of the worker's limits or a full disk refuses the reply, it is sent again, for as long as a call waits.
   */
  async reply(body: unknown, options: ReplyOptions = {}): Promise<Receipt> {
    const answer = draft(this.senderId, body, { ...options, replyTo: this.id });
    const until = now() + this.#caller.seconds(options);
    for (let tries = 0; ; tries++) {
      try {
        return await this.#sender.send(answer);
      } catch (error) {
        if (!(error instanceof LimitReached || error instanceof StorageFull)) throw error;
        const wait = error.retryAfterSeconds ?? AGAIN_SECONDS[Math.min(tries, AGAIN_SECONDS.length - 1)] ?? 2;
        if (now() + wait > until) throw error;
        await pause(wait, options.signal);
      }
    }
  }

  /** @internal The message as it came over the wire. */
  get stored(): StoredMessage {
    return this.#settling.stored;
  }

  /** @internal Note that a commit settled it. */
  noteCommitted(): void {
    this.#settling.noteCommitted();
  }

  /** @internal Note that it is done: it was read from the log, and the copy that is delivered is to be dropped. */
  noteAcked(): void {
    this.#settling.noteAcked();
  }
}
