/** The API for a bot's author: a bot that sends, subscribes and receives. */
import { readFileSync } from "node:fs";
import { inspect } from "node:util";
import { Caller } from "./caller.js";
import { commit, type Commit, type CommitOptions, type CommitReceipt } from "./commits.js";
import { Connection, type Owner } from "./connection.js";
import type { Credentials } from "./credentials.js";
import { Endpoint } from "./endpoint.js";
import { ClosedError, NoMessage, SubscriptionRemoved, WorkerUnavailable, type BusError } from "./errors.js";
import type { Json } from "./frames.js";
import { Inbox, type ReceiveOptions } from "./inbox.js";
import { KeyedCaller, KeyedStore } from "./kv.js";
import type { Message } from "./message.js";
import type { Receipt } from "./publishing.js";
import { Replies } from "./replies.js";
import { draft, Sender, type PublishOptions, type Recipient, type SendOptions } from "./sending.js";
import { OwnSubscriptions } from "./subscribed.js";
import { Deferred, pause, within, type CallOptions } from "./waiting.js";
import { warn } from "./warnings.js";
import { LastWill, type WillOptions } from "./wills.js";
import type { Answers, Calls, ClientFrame, Gap, KeptMessage } from "./wire.js";

const GOODBYE_SECONDS = 2;

/* How long nothing is said while there is no worker. */
const SILENT_SECONDS = 2;

const TIMEOUT_SECONDS = 60;
const REPLY_SECONDS = 30;
const MAX_IN_FLIGHT = 100;
const CONCURRENCY = 10;

const PACKAGE = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as { version: string };

/** How a bot connects. */
export interface ConnectOptions {
  /** The bot's name. A new name is registered, unless the worker has keys: then its credentials say who it is. */
  readonly bot?: string;
  /**
   * The worker's address, or those of all workers of its house. Default: that of POSTHOUSE_URL, unless there are
   * credentials here; that of the credentials; or loopback.
   */
  readonly url?: string | readonly string[];
  /** Credentials, or a file of them; by default the one that POSTHOUSE_CREDENTIALS names. */
  readonly credentials?: string | Credentials;
  /** The id for a new bot that already has one elsewhere. */
  readonly botId?: string;
  /** The most messages that may be unsettled at a time, 0 to 1000; 0 for a program that only sends. Default 100. */
  readonly maxInFlight?: number;
  /** How many seconds each call waits for its answer; Infinity for ever. Default 60. */
  readonly timeoutSeconds?: number;
  /** How many seconds to wait for a worker. Default: for ever, with a warning. */
  readonly waitSeconds?: number;
  /** Gives up connecting. */
  readonly signal?: AbortSignal;
  /** Called with messages that the mailbox has lost, by retention or damage; by default they are a warning. */
  readonly onGap?: (gap: Gap) => void;
}

/** How a bot subscribes. */
export interface SubscribeOptions extends CallOptions {
  /** Messages from now on ("new", the default), all of the log, or from a seq or a time on. */
  readonly start?: "new" | "all" | number | Date;
  /** The log that a seq in `start` is of, as `bot.epoch` was: LogReplaced is raised if the worker has another one. */
  readonly epoch?: string;
  /** Also deliver the bot's own messages on this channel. */
  readonly echo?: boolean;
  /** Share the channel's messages with the other bots of a group: each goes to one of them. */
  readonly group?: string;
}

/** How a bot serves. */
export interface ServeOptions {
  /** How many messages are handled at a time; by default 10. */
  readonly concurrency?: number;
  /** Ends serving: no more messages are taken, and those that are being handled are finished. */
  readonly signal?: AbortSignal;
  /** Called with the error of a handler, whose message was returned; by default it is a warning. */
  readonly onError?: (error: unknown, message: Message) => void;
}

/** What a bot may ask its worker, by the op of the frame. Settling is the business of its messages. */
export type Question = Exclude<keyof Answers, "ack" | "commit" | "extend" | "nak" | "term">;

/** The fields of a question. */
export type QuestionFields<Op extends Question> = Omit<Extract<ClientFrame, { op: Op }>, "op" | "request">;

/**
 * A bot's connection, which keeps its session: after a restart of the worker it reconnects and repeats unanswered
 * requests, with the same ids.
 *
 * Every call waits for its answer for at most `timeoutSeconds` and then raises WorkerUnavailable; a refusal raises a
 * RequestError with the worker's code. `signal` gives a call up with its reason.
 */
export class Bot {
  /** Its name. */
  readonly name: string;
  readonly #options: ConnectOptions;
  readonly #connection: Connection;
  readonly #caller: Caller;
  readonly #sender: Sender;
  readonly #inbox = new Inbox();
  readonly #replies: Replies;
  readonly #keyed: KeyedCaller;
  readonly #will: LastWill;
  readonly #subscriptions: OwnSubscriptions;
  readonly #closed = new Deferred<BusError | undefined>();
  #maxInFlight: number;
  #running: Promise<void> = Promise.resolve();
  #closing: Promise<void> | undefined;

  /** @internal */
  constructor(options: ConnectOptions) {
    const endpoint = new Endpoint(options.url, options.credentials);
    this.name = endpoint.nameOf(options.bot);
    this.#options = options;
    this.#maxInFlight = options.maxInFlight ?? MAX_IN_FLIGHT;
    this.#connection = new Connection(endpoint, this.#owner());
    this.#caller = new Caller(this.#connection, options.timeoutSeconds ?? TIMEOUT_SECONDS);
    this.#sender = new Sender(this.#caller);
    this.#replies = new Replies(this.#caller, this.#sender, this.#inbox);
    this.#keyed = new KeyedCaller(this.#caller);
    this.#will = new LastWill(this.#caller);
    this.#subscriptions = new OwnSubscriptions(this.#caller, (removed) => this.#inbox.tell(removed));
  }

  /** @internal Connect, and return when there is a session. */
  async open(): Promise<void> {
    const { waitSeconds, signal } = this.#options;
    const connected = this.#connection.connected.promise;
    const { where } = this.#connection.endpoint;
    this.#running = this.#connection.run();
    if (waitSeconds === undefined) {
      await Promise.race([connected.catch(() => {}), pause(SILENT_SECONDS, signal)]);
      const isSilent = !this.#connection.connected.isDone && this.#connection.refusal === undefined;
      if (isSilent && !signal?.aborted) warn(`no worker answers at ${where}; waiting for one`);
    }
    const text = `no worker answers at ${where}; start one with 'posthouse serve', or check the address`;
    const late = () => this.#connection.refusal ?? new WorkerUnavailable(text);
    await within(connected, waitSeconds ?? Infinity, signal, late);
  }

  /** The bot's id. */
  get id(): string {
    return this.#connection.welcome?.bot_id ?? "";
  }

  /** The id of the worker's log: seqs mean something only in that one. */
  get epoch(): string {
    return this.#connection.welcome?.epoch ?? "";
  }

  /** The address of the worker that the bot is, or is being, connected to. */
  get url(): string {
    return this.#connection.endpoint.url;
  }

  /** Whether it has a session now. Without one, calls wait for the next. */
  get isConnected(): boolean {
    return this.#connection.isOpen;
  }

  /** Resolved when there will be no more sessions: after `close`, or with the reason, such as KeyRefused. */
  get closed(): Promise<BusError | undefined> {
    return this.#closed.promise;
  }

  // ── Sending ───────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Send a direct message to a bot, by name or id; return when it is on the worker's disk.
   *
   * Raises UnknownBot, InvalidBody, TooLarge, LimitReached or StorageFull; then nothing was stored. After
   * WorkerUnavailable that is unknown: send again with the same `id`, and it is stored once.
   */
  send(to: string, body: unknown, options: SendOptions = {}): Promise<Receipt> {
    return this.#sender.send(draft(to, body, options));
  }

  /** Publish on a channel, creating it if it does not exist; otherwise like `send`. */
  publish(channel: string, body: unknown, options: PublishOptions = {}): Promise<Receipt> {
    return this.#sender.send(draft({ channel }, body, options));
  }

  /**
   * Send a message and return the first reply to it, already settled: that of the bot, or of any subscriber of the
   * channel. `timeoutSeconds` is 30 by default.
   *
   * The reply comes ahead of other waiting messages, and outside the credit. Raises ReplyTimeout, which has the state
   * of the message; a reply that comes later is an ordinary message. Requesting again with the same `id`, even from a
   * later process of this bot, repeats the same request, and returns its first reply.
   */
  async request<Body = Json>(to: Recipient, body: unknown, options: SendOptions = {}): Promise<Message<Body>> {
    const reply = await this.#replies.ask(draft(to, body, options), options.timeoutSeconds ?? REPLY_SECONDS);
    return reply as Message<unknown> as Message<Body>;
  }

  /**
   * Leave a message that the worker sends in the bot's name if it vanishes; return when that is on disk.
   *
   * The worker sends it, once, when the bot has had no session for `delaySeconds`, unless the last session said
   * goodbye, as `close` does: then it is deleted. That holds if the worker is killed as well. A bot has one will,
   * whichever of its programs left it, and another one takes its place. It is left again, with a new id, in each
   * session that this client has to open later. Raises what `send` raises.
   */
  will(to: Recipient, body: unknown, options: WillOptions = {}): Promise<void> {
    return this.#will.leave(to, body, options);
  }

  /** Take the will back; return when that is on disk. */
  withdrawWill(options: CallOptions = {}): Promise<void> {
    return this.#will.withdraw(options);
  }

  /**
   * Do several things in one transaction, or none of them; return when that is on disk: store messages, ack messages
   * that this bot holds, change values of keyed stores, and write the progress of a run under its fence.
   *
   * Raises what sending and writing raise, Conflict for an id that had other contents, or an ack of a message that was
   * settled before, and Fenced; then nothing of it was done. After a lost session it waits until the messages that it
   * acks are delivered again, and raises NotInFlight after a session's timeout. After WorkerUnavailable it is not known
   * whether it was done: commit again with the same `id`, and with the same ids of its messages.
   */
  commit(contents: Commit, options: CommitOptions = {}): Promise<CommitReceipt> {
    return commit(this.#caller, contents, options);
  }

  // ── Receiving ─────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Subscribe to a channel permanently, or to all that match a pattern, as `orders.*` or `orders.**`: the subscription
   * survives this session and the worker's restarts.
   *
   * Returns the seq after which its messages are delivered; with `retained`, instead, the last value of the channel,
   * as it was when the subscription was made, so that all later ones are delivered. Subscribing again changes nothing.
   * Raises Conflict if the bot is subscribed in another way: individually, or in another group.
   */
  subscribe(channel: string, options: SubscribeOptions & { retained: true }): Promise<KeptMessage | undefined>;
  subscribe(channel: string, options?: SubscribeOptions): Promise<number>;
  async subscribe(
    channel: string,
    options: SubscribeOptions & { retained?: boolean } = {},
  ): Promise<number | KeptMessage | undefined> {
    const { start = "new", echo = false, group = null } = options;
    const epoch = options.epoch === undefined ? {} : { epoch: options.epoch };
    const retained = options.retained ? { retained: true } : {}; // a field that older workers do not know
    const place =
      typeof start === "string" ? start : typeof start === "number" ? { seq: start, ...epoch } : { time: start.toISOString() };
    if (place !== "new") this.#connection.deliveries.wantAgain();
    const answer = await this.ask("subscribe", { channel, start: place, echo, group, ...retained }, options);
    this.#subscriptions.add(channel, group);
    return options.retained ? (answer.retained ?? undefined) : answer.start_seq;
  }

  /** Return the last value of a channel: what was published with `retain` last; undefined without one. */
  async retained(channel: string, options: CallOptions = {}): Promise<KeptMessage | undefined> {
    return (await this.call("retained", { channel }, options)) ?? undefined;
  }

  /** End a subscription; return false if there was none. Messages in flight may still be settled. */
  async unsubscribe(channel: string, options: CallOptions = {}): Promise<boolean> {
    const ask = () => this.ask("unsubscribe", { channel }, options);
    return (await this.#subscriptions.end(channel, ask)).removed;
  }

  /**
   * Wait for the next message. Raises NoMessage if none comes within `timeoutSeconds`, ClosedError when the bot is
   * closed, and the reason of the signal.
   *
   * Raises SubscriptionRemoved, once, if somebody else ended what this program subscribed to: receive again to go on.
   */
  async receive<Body = Json>(options: ReceiveOptions = {}): Promise<Message<Body>> {
    return (await this.#inbox.receive(options)) as Message<unknown> as Message<Body>;
  }

  /**
   * Iterate over messages as they arrive, each in one iterator: `for await (const message of bot.messages())`.
   *
   * First deliveries come in the order of the log. Settle each message; while it is held, the worker is told that it
   * is being worked on. The iteration ends by the signal, when the bot is closed, or when no message comes for
   * `timeoutSeconds`, and may be left at any point. It raises SubscriptionRemoved as `receive`; iterate anew to go on.
   */
  async *messages<Body = Json>(options: ReceiveOptions = {}): AsyncGenerator<Message<Body>, void, undefined> {
    for (;;) {
      let message: Message<Body>;
      try {
        message = await this.receive<Body>(options);
      } catch (error) {
        if (error instanceof ClosedError || error instanceof NoMessage || options.signal?.aborted) return;
        throw error;
      }
      yield message;
    }
  }

  /**
   * Handle messages as they arrive, several at a time; return when the signal has ended that, or the bot is closed,
   * and all handlers have returned.
   *
   * Each message is settled as by `message.handle`: ack, or nak if its handler fails. If a subscription is removed,
   * that is a warning, and the others go on.
   */
  async serve<Body = Json>(
    handler: (message: Message<Body>) => unknown,
    { concurrency = CONCURRENCY, signal, onError = warnOf }: ServeOptions = {},
  ): Promise<void> {
    const handle = async (message: Message) => {
      try {
        await message.handle(() => handler(message as Message<unknown> as Message<Body>));
      } catch (error) {
        onError(error, message);
      }
    };
    const take = async () => {
      for (;;) {
        try {
          for await (const message of this.messages({ signal })) await handle(message);
          return;
        } catch (error) {
          if (!(error instanceof SubscriptionRemoved)) throw error;
          warn(`bot '${this.name}': ${error.message}`);
        }
      }
    };
    await Promise.all(Array.from({ length: concurrency }, take));
  }

  /** Change how many messages may be unsettled; 0 pauses. It also applies to later sessions. */
  async setCredit(maxInFlight: number, options: CallOptions = {}): Promise<void> {
    const make = (request: number) => ({ op: "credit", request, max_in_flight: maxInFlight }) as const;
    await this.#caller.ask("the change of credit", make, options);
    this.#maxInFlight = maxInFlight;
  }

  // ── Asking ────────────────────────────────────────────────────────────────────────────────────────────

  /** Return a keyed store of the worker, for values that bots share; nothing is sent before it is used. */
  kv(name: string): KeyedStore {
    return new KeyedStore(name, this.#keyed);
  }

  /**
   * Ask the worker a question of docs/protocol.md, as `bot.ask("history", { channel: "news" })`, and return the value
   * of its answer as it is on the wire.
   */
  ask<Op extends Question>(op: Op, fields: QuestionFields<Op>, options: CallOptions = {}): Promise<Answers[Op]> {
    const make = (request: number) => ({ ...fields, op, request }) as unknown as ClientFrame;
    return this.#caller.ask<Answers[Op]>(`the request '${op}'`, make, options);
  }

  /** Make a call about workflows or keyed stores of docs/protocol.md, and return its value as it is on the wire. */
  call<Method extends keyof Calls>(
    method: Method,
    args: Calls[Method]["arguments"],
    options: CallOptions = {},
  ): Promise<Calls[Method]["value"]> {
    return this.#keyed.call(method, args, options);
  }

  // ── Leaving ───────────────────────────────────────────────────────────────────────────────────────────

  /** Say goodbye: messages that are not settled return to the mailbox, which is no failure. Calls raise ClosedError. */
  close(): Promise<void> {
    this.#closing ??= this.#leave();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  [inspect.custom](): string {
    const { failure, isOpen } = this.#connection;
    return `<Bot '${this.name}' at ${this.url} ${failure ? "closed" : isOpen ? "open" : "connecting"}>`;
  }

  async #leave(): Promise<void> {
    if (this.#connection.failure === undefined) {
      const late = () => new Error("no answer to the goodbye");
      await within(this.#connection.goodbye(), GOODBYE_SECONDS, undefined, late).catch(() => {});
    }
    this.#connection.close(new ClosedError(`bot '${this.name}' was closed`));
    await this.#running;
  }

  #owner(): Owner {
    return {
      hello: () => ({
        bot: this.name,
        bot_id: this.#options.botId ?? null,
        client: `posthouse-typescript/${PACKAGE.version}`,
        max_in_flight: this.#maxInFlight,
        awaits: this.#replies.awaited(),
      }),
      deliver: (stored) => this.#inbox.put(this.#replies.take(stored)),
      gap: (gap) => {
        const text = `messages ${gap.from_seq} to ${gap.to_seq} of bot '${this.name}' are lost: ${gap.reason}`;
        if (this.#options.onGap) this.#options.onGap(gap);
        else warn(text);
      },
      changed: (stores) => this.#keyed.changed(stores),
      subscriptionEnded: () => this.#subscriptions.look(),
      opened: () => {
        this.#sender.publisher.flush();
        this.#replies.opened();
        this.#will.opened();
        this.#subscriptions.look();
      },
      closed: (failure: BusError) => {
        this.#sender.publisher.close(failure);
        this.#replies.close(failure);
        this.#inbox.close(failure);
        this.#keyed.changed(undefined);
        this.#closed.resolve(failure instanceof ClosedError ? undefined : failure);
      },
    };
  }
}

function warnOf(error: unknown, message: Message): void {
  warn(`the handler of message ${message.seq} failed: ${error instanceof Error ? (error.stack ?? error) : String(error)}`);
}

/**
 * Connect a bot to its worker, and return it when it has a session.
 *
 * Raises WorkerUnavailable if no worker answers within `waitSeconds`, HandshakeError if it has another key than the
 * credentials say or does not take the bot's, and BotConflict, Forbidden or UnsupportedProtocol if it refuses the bot.
 */
export async function connect(options: ConnectOptions = {}): Promise<Bot> {
  options.signal?.throwIfAborted();
  const bot = new Bot(options);
  try {
    await bot.open();
  } catch (error) {
    await bot.close();
    throw error;
  }
  return bot;
}
