/**
 * Replies that a bot awaits: each is returned to its request once, whichever session it was delivered to.
 *
 * While the bot was away, a reply may have been stored and delivered to another process of the bot. So in every new
 * session, the log is searched for the reply to each open request: a few at a time, oldest first, and again after a
 * pause if the worker is busy.
 */
import type { Caller } from "./caller.js";
import { ReplyTimeout, RequestError, WorkerUnavailable, type BusError, type QuestionState } from "./errors.js";
import { isId } from "./ids.js";
import type { Inbox } from "./inbox.js";
import { Message } from "./message.js";
import type { Draft, Recipient, Sender } from "./sending.js";
import { Deferred, now, pause, within } from "./waiting.js";
import { Limits, type Answers, type KeptMessage, type StoredMessage } from "./wire.js";

/* Messages of a thread that are searched for one reply. */
const THREAD_MAX = 1000;

/* How long a request that ends without a reply waits to learn what state its message is in. */
const FATE_SECONDS = 5;

/* Searches at a time: the worker answers few at once, and other clients return as well. */
const LOOKS_AT_ONCE = 4;

/* Pauses after searches that could not be answered; the last one repeats. Random, to keep clients apart. */
const PAUSE_SECONDS = [0.1, 0.2, 0.5, 1, 2, 5];

/** A reply that one request awaits. */
interface Awaited {
  readonly to: Recipient;
  readonly reply: Deferred<Message>;
}

export class Replies {
  readonly #open = new Map<string, Awaited>();
  /** The ids of the requests whose replies to search for, in this order. */
  readonly #wanted = new Set<string>();
  #looking = 0;
  #failures = 0;

  constructor(
    readonly caller: Caller,
    readonly sender: Sender,
    readonly inbox: Inbox,
  ) {}

  /** Send a message and return the first reply to it, settled. */
  async ask(question: Draft, timeoutSeconds: number): Promise<Message> {
    const { id, to, signal } = question;
    if (this.#open.has(id)) throw new TypeError(`a request with the id ${id} is already waiting for its reply`);
    const until = now() + timeoutSeconds;
    const { reply } = this.#await(id, to);
    const late = new Error("the time is over");
    try {
      const sent = this.sender.send({ ...question, expectsReply: true });
      sent.catch(() => {}); // it may fail after the time is over
      const { duplicate } = await within(sent, timeoutSeconds, signal, () => late);
      if (duplicate) this.#lookFor(id);
      const message = await within(reply.promise, until - now(), signal, () => late);
      await message.ack();
      return message;
    } catch (error) {
      // What arrives just as the request gives up is an ordinary message.
      reply.promise.then((message) => this.inbox.put([message]), () => {});
      if (error !== late) throw error;
      throw new ReplyTimeout(id, nameOf(to), timeoutSeconds, await this.#stateOf(id));
    } finally {
      this.#open.delete(id);
      this.#wanted.delete(id);
    }
  }

  /** Return the awaited ids for a hello, oldest first. */
  awaited(): string[] {
    return this.#missing().slice(0, Limits.AWAITED_MAX);
  }

  /** Search for the replies that were stored before this session. */
  opened(): void {
    for (const id of this.#missing()) this.#lookFor(id);
  }

  /** Accept the delivered messages that requests await as their replies; return the others. */
  take(messages: readonly StoredMessage[]): Message[] {
    return messages.flatMap((stored) => {
      const awaited = this.#open.get(stored.reply_to ?? "");
      const message = new Message(stored, this.caller, this.sender);
      if (awaited === undefined || awaited.reply.isDone || message.channel !== undefined || !isFrom(awaited, stored)) {
        return [message];
      }
      awaited.reply.resolve(message);
      return [];
    });
  }

  /** Fail all open requests: there will be no more sessions. */
  close(failure: BusError): void {
    for (const { reply } of this.#open.values()) reply.reject(failure);
  }

  #await(id: string, to: Recipient): Awaited {
    const awaited = { to, reply: new Deferred<Message>() };
    this.#open.set(id, awaited);
    return awaited;
  }

  #missing(): string[] {
    return [...this.#open].filter(([id, { reply }]) => !reply.isDone && isId(id)).map(([id]) => id);
  }

  // ── Searching the log ─────────────────────────────────────────────────────────────────────────────────

  #lookFor(id: string): void {
    this.#wanted.add(id);
    if (this.#looking < LOOKS_AT_ONCE) void this.#look();
  }

  async #look(): Promise<void> {
    this.#looking++;
    for (const id of this.#wanted) {
      this.#wanted.delete(id);
      const awaited = this.#open.get(id);
      if (awaited === undefined || awaited.reply.isDone) continue;
      try {
        const make = (request: number) => ({ op: "history", request, thread: id, limit: THREAD_MAX }) as const;
        const page = await this.caller.ask<Answers["history"]>("the thread of a request", make);
        this.#failures = 0;
        if (!awaited.reply.isDone) this.#find(id, awaited, page.messages);
      } catch (error) {
        if (error instanceof WorkerUnavailable || (error instanceof RequestError && error.retry)) {
          const seconds = PAUSE_SECONDS[Math.min(this.#failures++, PAUSE_SECONDS.length - 1)] ?? 5;
          await pause(seconds * (0.5 + Math.random() / 2));
          if (this.#open.get(id) === awaited) this.#wanted.add(id);
        } // otherwise the worker still delivers, even if it cannot answer this
      }
    }
    this.#looking--;
  }

  /** Find the first reply to a request in its thread, which is ordered newest first. */
  #find(id: string, awaited: Awaited, thread: readonly KeptMessage[]): void {
    const me = this.caller.connection.welcome?.bot_id;
    const found = thread.findLast(
      (each) => each.reply_to === id && each.recipient["bot_id"] === me && isFrom(awaited, each),
    );
    if (found === undefined || found.seq === null || found.timestamp === null) return;
    let message = this.inbox.remove(found.id);
    if (message === undefined) {
      message = new Message({ ...found, seq: found.seq, timestamp: found.timestamp }, this.caller, this.sender);
      message.noteAcked();
    }
    awaited.reply.resolve(message);
  }

  /** Return how far a message got. */
  async #stateOf(id: string): Promise<QuestionState> {
    try {
      const make = (request: number) => ({ op: "message", request, id }) as const;
      const found = await this.caller.ask<Answers["message"]>("the message", make, { timeoutSeconds: FATE_SECONDS });
      return (found.mailboxes[0]?.state ?? "nobody") as QuestionState;
    } catch {
      return "unknown";
    }
  }
}

/** Return true if a message is from the bot that was asked; on a channel anybody may answer. */
function isFrom({ to }: Awaited, message: { readonly sender_bot_id: string; readonly sender_bot_name: string }): boolean {
  return typeof to !== "string" || to === message.sender_bot_name || to === message.sender_bot_id;
}

function nameOf(to: Recipient): string {
  return typeof to === "string" ? `'${to}'` : `the subscribers of '${to.channel}'`;
}
