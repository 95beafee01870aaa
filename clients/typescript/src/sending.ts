/** Messages before they are sent: what an author can set on one, and how it is in a publish frame. */
import type { Caller } from "./caller.js";
import { TooLarge } from "./errors.js";
import { writeBody } from "./frames.js";
import { isId, newId } from "./ids.js";
import { Publisher, type Receipt } from "./publishing.js";
import { within, type CallOptions } from "./waiting.js";
import { Limits, type Publication } from "./wire.js";

/** The options of every message, beside its body. */
interface Options extends CallOptions {
  /** The kind of message; "message" by default. */
  readonly messageType?: string;
  /** Notes beside the body: at most 32 names of 128 characters, with values of 1 KiB. */
  readonly headers?: Readonly<Record<string, string>>;
  /** The message expires after this many seconds. */
  readonly ttlSeconds?: number;
  /** The message enters the log this many seconds later, by the worker's clock, even if it was down then. */
  readonly delaySeconds?: number;
  /** How many messages may follow, each an answer to the one before; what answers another inherits one less. */
  readonly hops?: number;
  /** After this many seconds its thread ends: nothing is delivered any more, and no answer is accepted. */
  readonly deadlineSeconds?: number;
  /** Its id, a UUID: a message that is sent twice with the same id is stored once. */
  readonly id?: string;
}

/** The options of a reply, beside its body. */
export interface ReplyOptions extends Options {
  /** What is "high" is delivered before all else that waits for the bot, and what is "low" after all else. */
  readonly priority?: "low" | "normal" | "high";
}

/** The options of a message to a bot, beside its body. */
export interface SendOptions extends ReplyOptions {
  /** The id of the message that it answers. */
  readonly replyTo?: string;
}

/** The options of a message on a channel, beside its body. */
export interface PublishOptions extends Options {
  /** The id of the message that it answers. */
  readonly replyTo?: string;
  /** It becomes the last value of the channel, for those who subscribe later; a body of null clears that. */
  readonly retain?: boolean;
}

/** Who gets a message: a bot, by name or id, or the subscribers of a channel. */
export type Recipient = string | { readonly channel: string };

/** A message to send. */
export interface Draft extends SendOptions, PublishOptions {
  readonly to: Recipient;
  readonly body: unknown;
  readonly id: string;
  readonly expectsReply?: boolean;
}

export class Sender {
  readonly publisher: Publisher;
  readonly #caller: Caller;

  constructor(caller: Caller) {
    this.#caller = caller;
    this.publisher = new Publisher(caller.connection);
  }

  /** Send a message; return when it is on the worker's disk. */
  async send(draft: Draft): Promise<Receipt> {
    draft.signal?.throwIfAborted();
    const payload = write(draft);
    const bytes = Buffer.byteLength(payload);
    const bytesMax = (this.#caller.connection.welcome?.max_frame_bytes ?? Infinity) - Limits.PUBLISH_ROOM_BYTES;
    if (bytes > bytesMax) {
      const message = `the message has ${bytes} bytes; a frame has room for ${bytesMax}`;
      throw new TooLarge({ code: "too_large", message });
    }
    const outgoing = this.publisher.publish(draft.id, payload);
    const late = () => this.#caller.unavailable(`message ${draft.id}`, draft);
    try {
      return await within(outgoing.receipt.promise, this.#caller.seconds(draft), draft.signal, late);
    } finally {
      outgoing.isAbandoned = true;
    }
  }
}

/** Return a message with an id: the chosen one, or a new one. */
export function draft(to: Recipient, body: unknown, options: SendOptions & PublishOptions): Draft {
  if (options.id === "") throw new TypeError("the id is empty: choose one, or leave it out for a new one");
  return { ...options, to, body, id: options.id ?? newId() };
}

/** Return a message as it is in a publish frame. Raise InvalidBody, or RangeError for a number that cannot be. */
export function write(draft: Draft): string {
  const { to, body, id, messageType, replyTo, headers, expectsReply } = draft;
  const message: Omit<Publication, "body"> = {
    id,
    recipient:
      typeof to !== "string"
        ? { type: "channel", name: to.channel }
        : isId(to)
          ? { type: "direct", bot_id: to }
          : { type: "direct", bot: to },
  };
  if (messageType !== undefined) message.message_type = messageType;
  if (replyTo !== undefined) message.reply_to = replyTo;
  if (headers !== undefined) message.headers = headers;
  if (expectsReply) message.expects_reply = true;
  if (draft.retain) message.retain = true;
  if (draft.priority !== undefined) message.priority = draft.priority;
  if (draft.ttlSeconds !== undefined) message.ttl = time("ttlSeconds", draft.ttlSeconds);
  if (draft.delaySeconds !== undefined) message.delay = time("delaySeconds", draft.delaySeconds);
  if (draft.hops !== undefined) message.hops = hops(draft.hops);
  if (draft.deadlineSeconds !== undefined) message.deadline = time("deadlineSeconds", draft.deadlineSeconds);
  return `${JSON.stringify(message).slice(0, -1)},"body":${writeBody(body)}}`;
}

function hops(count: number): number {
  if (!(Number.isInteger(count) && count >= 0 && count <= Limits.HOPS_MAX)) {
    throw new RangeError(`hops must be a number of messages up to ${Limits.HOPS_MAX}, not ${count}`);
  }
  return count;
}

/** Return a time. Raise RangeError for one that JSON would write as null, which means no time at all. */
export function time(name: string, seconds: number): number {
  if (!(seconds >= 0 && seconds <= Limits.WAIT_SECONDS_MAX)) {
    throw new RangeError(`${name} must be a number of seconds up to ${Limits.WAIT_SECONDS_MAX}, not ${seconds}`);
  }
  return seconds;
}
