/**
 * A bot's connection to its worker: one session after another, with nothing lost between them.
 *
 * Unanswered requests are repeated in every new session, with the same request numbers and message ids: after a
 * restart of the worker, after `unknown_session`, and after a silence as long as the session's timeout. Messages that
 * this bot holds stay its own; those that it settled are not given to it again, although the worker may resend them.
 */
import { randomUUID } from "node:crypto";
import { Deliveries, ofAnotherLog } from "./deliveries.js";
import type { Endpoint } from "./endpoint.js";
import { AddressError, BusError, KeyRefused, requestError, WorkerUnavailable } from "./errors.js";
import { encode } from "./frames.js";
import type { Break } from "./port.js";
import { Session } from "./session.js";
import { Deferred, pause } from "./waiting.js";
import { warn } from "./warnings.js";
import {
  Limits,
  ProtocolVersion,
  type ErrorFrame,
  type Gap,
  type Hello,
  type InParts,
  type Ok,
  type Published,
  type StoredMessage,
  type Welcome,
  type WorkerFrame,
} from "./wire.js";

/* How long closing waits for frames to leave: enough for the last ones, not for a worker that is gone. */
const LINGER_MILLISECONDS = 1000;

/** What a bot does with what comes. */
export interface Owner {
  /** The fields of its hello that are the bot's. */
  hello(): Pick<Hello, "bot" | "bot_id" | "client" | "max_in_flight" | "awaits">;
  deliver(messages: readonly StoredMessage[]): void;
  gap(gap: Gap): void;
  /** Keyed stores were changed; undefined: perhaps any. */
  changed(stores: readonly string[] | undefined): void;
  /** The bot may have lost a subscription. */
  subscriptionEnded(): void;
  /** A session was opened. */
  opened(): void;
  /** There will be no more sessions. */
  closed(failure: BusError): void;
}

/** A frame that waits for its answer. */
export interface Request {
  readonly frame: string;
  /** Whether it is valid in its own session only, and is not repeated. */
  readonly once?: boolean | undefined;
  /** The messages that it settles: it is not repeated if the worker has another log. */
  readonly settles?: readonly StoredMessage[];
  answered(frame: Published | Ok | InParts): void;
  failed(error: BusError): void;
}

export class Connection {
  /** The terms of the current session, or else of the last one. */
  welcome: Welcome | undefined;
  /** Why there will be no more sessions. */
  failure: BusError | undefined;
  /** Why the last attempt to open a session failed; a later one may succeed. */
  refusal: BusError | undefined;
  /** How many sessions were opened. */
  sessions = 0;
  readonly deliveries = new Deliveries();
  /** Settled with the first session, or with the reason why there is none. */
  readonly connected = new Deferred<void>();
  readonly #token = randomUUID();
  readonly #stopped = new AbortController();
  readonly #requests = new Map<number, Request>();
  #session: Session | undefined;
  #number = 0;
  #acks: number[] = [];

  constructor(
    readonly endpoint: Endpoint,
    readonly owner: Owner,
  ) {}

  /** Whether frames can be sent now. */
  get isOpen(): boolean {
    return this.#session?.isOpen ?? false;
  }

  // ── For callers ───────────────────────────────────────────────────────────────────────────────────────

  /** Return the number of the next request. */
  nextNumber(): number {
    return ++this.#number;
  }

  /** Send a request, now and in later sessions, until it is answered or forgotten. */
  post(number: number, request: Request): void {
    if (this.failure !== undefined) return request.failed(this.failure);
    this.#requests.set(number, request);
    if (this.isOpen) this.#session?.send(request.frame);
  }

  /** Do not repeat a request any more, and ignore its answer. */
  forget(number: number): void {
    this.#requests.delete(number);
  }

  /** Send a frame that belongs to this session only and has no answer. */
  send(frame: string): void {
    if (this.isOpen) this.#session?.send(frame);
  }

  /** Ack a message, in one frame with the others of this turn of the loop. */
  ack(seq: number): void {
    if (this.#acks.length === 0) setImmediate(() => this.flush());
    this.#acks.push(seq);
  }

  /** Send the acks that wait for the end of this turn. */
  flush(): void {
    const seqs = this.#acks;
    this.#acks = [];
    if (seqs.length > 0) this.send(encode({ op: "ack", seqs }));
  }

  /** Say goodbye, even in a session that is just being opened. */
  goodbye(): Promise<void> {
    const goodbye = new Deferred<void>();
    const number = this.nextNumber();
    const frame = encode({ op: "goodbye", request: number });
    this.flush();
    if (this.isOpen) {
      this.post(number, { frame, once: true, answered: () => goodbye.resolve(), failed: () => goodbye.resolve() });
    } else {
      this.#session?.send(frame); // otherwise its hello would open a session without a client
      goodbye.resolve();
    }
    return goodbye.promise;
  }

  /** Fail all waiting and future calls. */
  close(error: BusError): void {
    if (this.failure !== undefined) return;
    this.failure = error;
    for (const request of this.#requests.values()) request.failed(error);
    this.#requests.clear();
    this.connected.reject(error);
    this.#stopped.abort();
    this.#session?.end(LINGER_MILLISECONDS);
    this.owner.closed(error);
  }

  // ── Sessions ──────────────────────────────────────────────────────────────────────────────────────────

  /** Keep a session open until this is closed, or the worker refuses for good. */
  async run(): Promise<void> {
    const { route } = this.endpoint;
    while (this.failure === undefined) {
      const sessions = this.sessions;
      try {
        this.#session = this.#begin();
        await this.#session.ended;
      } catch (error) {
        this.close(error instanceof BusError ? error : new AddressError(this.endpoint.url, String(error)));
      }
      await pause(route.goOn(this.sessions > sessions), this.#stopped.signal);
    }
  }

  #begin(): Session {
    const session: Session = new Session({
      open: (listener) => this.endpoint.open(listener),
      hello: this.#hello(),
      patienceSeconds: this.endpoint.route.patienceSeconds,
      several: this.endpoint.route.urls.length > 1,
      take: (frame) => this.#take(session, frame),
      broken: (how) => this.#broken(session, how),
      upkeep: () => {
        const seqs = [...this.deliveries.held.keys()];
        return seqs.length > 0 ? [{ op: "extend", seqs }] : [];
      },
    });
    return session;
  }

  /** Return a hello that names the messages this bot holds, and proves that it is the same client. */
  #hello(): Hello {
    const hello: Hello = {
      op: "hello",
      request: this.nextNumber(),
      protocol: ProtocolVersion,
      ...this.owner.hello(),
      token: this.#token,
      parts: true,
    };
    if (this.welcome === undefined) return hello;
    const held = new Map(this.deliveries.held);
    for (const { settles = [] } of this.#requests.values()) for (const each of settles) held.set(each.seq, each);
    const holds = [...held.keys()].sort((a, b) => a - b).slice(0, Limits.HELD_MAX);
    const groups: Record<string, number[]> = {};
    for (const seq of holds) {
      const group = held.get(seq)?.group;
      if (group != null) (groups[group] ??= []).push(seq);
    }
    return { ...hello, epoch: this.welcome.epoch, holds, held_groups: groups };
  }

  #opened(session: Session, welcome: Welcome): void {
    const before = this.welcome;
    const renewed = before !== undefined && before.epoch !== welcome.epoch;
    if (renewed) {
      warn(`the worker has another log than before: epoch ${welcome.epoch}`);
      this.deliveries.forget();
    }
    if (before === undefined && (welcome.sessions ?? 1) > 1) {
      warn(`bot '${welcome.bot}' has ${welcome.sessions} sessions: they share its messages`);
    }
    this.welcome = welcome;
    this.refusal = undefined;
    this.endpoint.welcomed();
    session.opened(welcome);
    this.sessions++;
    this.#acks = []; // what was acked before is acked again when it is redelivered
    for (const [number, request] of [...this.#requests]) {
      if (request.once) {
        const text = "the session ended before this was confirmed: the message may be redelivered";
        this.#fail(number, request, new WorkerUnavailable(text));
      } else if (request.settles?.length && renewed) {
        this.#fail(number, request, ofAnotherLog());
      } else {
        session.send(request.frame);
      }
    }
    this.connected.resolve();
    this.owner.opened();
    this.owner.changed(undefined);
  }

  /** Notice a worker that died, whose successor does not know this session, or one that does not let us in. */
  async #broken(session: Session, how: Break): Promise<void> {
    const failure = await this.endpoint.judge(how);
    if (failure !== undefined) {
      // Who was in before waits for its worker, as something else may listen there meanwhile.
      this.#turnedAway(failure, this.welcome === undefined || failure instanceof KeyRefused);
    }
    if (failure !== undefined || how === "lost" || how === "refused") session.end();
  }

  #turnedAway(failure: BusError, forGood: boolean): void {
    if (forGood) this.close(failure);
    else if (failure.constructor !== this.refusal?.constructor) warn(`${failure.message}; trying again`);
    this.refusal = failure;
  }

  // ── Frames in ─────────────────────────────────────────────────────────────────────────────────────────

  #take(session: Session, frame: WorkerFrame): void {
    switch (frame.op) {
      case "deliver": {
        const { fresh, settled } = this.deliveries.take(frame.messages);
        for (const seq of settled) this.ack(seq);
        if (fresh.length > 0) this.owner.deliver(fresh);
        return;
      }
      case "published":
      case "ok":
      case "in_parts": {
        const request = this.#requests.get(frame.request);
        this.#requests.delete(frame.request);
        return request?.answered(frame);
      }
      case "welcome":
        return this.#opened(session, frame);
      case "error":
        return this.#refused(session, frame);
      case "gap":
        return this.owner.gap(frame);
      case "kv_changed":
        return this.owner.changed(frame.kv);
      case "subscription_ended":
        return this.owner.subscriptionEnded();
      case "closing":
        this.endpoint.sentOn("it was stopped", frame);
        return session.end();
      default: // a pong, and what later versions add
    }
  }

  #refused(session: Session, frame: ErrorFrame): void {
    if (frame.code === "elsewhere") this.refusal = this.endpoint.sentOn(frame.message, frame.details);
    if (frame.code === "elsewhere" || frame.code === "unknown_session") return session.end();
    const failure = requestError(frame);
    const number = frame.request ?? undefined;
    const revoked = frame.code === "revoked" && number === undefined;
    if (revoked || !session.isOpen) {
      const renewed = revoked && this.endpoint.renewed();
      this.#turnedAway(failure, !failure.retry && !renewed);
      return session.end();
    }
    const request = number === undefined ? undefined : this.#requests.get(number);
    if (number === undefined) warn(`the worker refused a frame: ${failure.message}`);
    else if (request !== undefined) this.#fail(number, request, failure); // otherwise nobody waits any more
  }

  #fail(number: number, request: Request, error: BusError): void {
    this.#requests.delete(number);
    request.failed(error);
  }
}

