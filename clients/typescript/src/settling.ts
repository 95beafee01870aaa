/**
 * How a bot settles messages, and confirms it.
 *
 * When a confirmed ack or term returns, it is on the worker's disk, whatever happened to the connection or the worker
 * meanwhile: it is repeated in later sessions, in which the bot still holds the message. If the worker could not carry
 * it out, it raises.
 */
import type { AskOptions, Caller } from "./caller.js";
import { ofAnotherLog } from "./deliveries.js";
import { NotInFlight, WorkerUnavailable } from "./errors.js";
import { encode } from "./frames.js";
import type { Make } from "./parts.js";
import { now, pause, type CallOptions } from "./waiting.js";
import type { ClientFrame, Settled, StoredMessage } from "./wire.js";

/** Whether a call waits until the settling is on disk. */
export interface SettleOptions extends CallOptions {
  /** Return only when it is on disk: after a confirmed ack, the message is never delivered again. */
  readonly confirm?: boolean;
}

/** How a message is settled. */
export type Settlement =
  | { readonly how: "ack" }
  | { readonly how: "nak"; readonly delaySeconds?: number | undefined }
  | { readonly how: "release"; readonly delaySeconds?: number | undefined }
  | { readonly how: "term"; readonly reason?: string | undefined };

/* How soon an ack is repeated whose message is being redelivered to this bot: that usually takes milliseconds. */
const AGAIN_SECONDS = 0.05;

const STATES: Partial<Record<string, string>> = {
  in_flight: "it is in flight for another session of the bot",
  returned: "it is waiting for redelivery",
  waiting: "it is waiting for redelivery",
  settled: "it was settled before",
  dead: "it is a dead letter, which can be retried",
};

/** A settlement, and the session and the log in which it was made: a later confirmation depends on it. */
interface Noted {
  readonly settlement: Settlement;
  readonly session: number;
  readonly epoch: string;
}

/** Settles one message, once. */
export class Settling {
  readonly #caller: Caller;
  #noted: Noted | "of another log" | undefined;

  constructor(
    caller: Caller,
    readonly stored: StoredMessage,
  ) {
    this.#caller = caller;
  }

  /** Whether the message is settled. */
  get isSettled(): boolean {
    return this.#noted !== undefined;
  }

  /** Settle the message, unless it is; with `confirm`, return when that is certain. */
  async settle(settlement: Settlement, options: SettleOptions): Promise<void> {
    const { connection } = this.#caller;
    const isNew = this.#noted === undefined;
    const noted = (this.#noted ??= this.#note(settlement));
    if (noted === "of another log") {
      if (options.confirm) throw ofAnotherLog();
    } else if (options.confirm) {
      await this.#confirm(noted, isNew, options);
    } else if (isNew && settlement.how === "ack") {
      connection.ack(this.stored.seq);
    } else if (isNew) {
      connection.send(encode(this.#frame(settlement, undefined)));
    }
  }

  /** Note that the message, which was read from the log, is done: if it is delivered, the copy is dropped. */
  noteAcked(): void {
    const { connection } = this.#caller;
    if (connection.deliveries.held.get(this.stored.seq)?.id === this.stored.id) connection.ack(this.stored.seq);
    this.#noted ??= this.#note({ how: "ack" }, true);
  }

  /** Note that a commit settled the message. */
  noteCommitted(): void {
    this.#noted ??= this.#note({ how: "ack" }, true);
  }

  #note(settlement: Settlement, isRead = false): Noted | "of another log" {
    const { connection } = this.#caller;
    const { deliveries, welcome, sessions } = connection;
    if (welcome === undefined || !(isRead || deliveries.holds(this.stored))) return "of another log";
    if (settlement.how === "ack") deliveries.settle(this.stored);
    else deliveries.release(this.stored);
    return { settlement, session: sessions, epoch: welcome.epoch };
  }

  async #confirm({ settlement, session, epoch }: Noted, isNew: boolean, options: CallOptions): Promise<void> {
    const { connection } = this.#caller;
    const { welcome } = connection;
    if (welcome === undefined || welcome.epoch !== epoch) throw ofAnotherLog();
    if (settlement.how === "nak" || settlement.how === "release") {
      if (session !== connection.sessions) {
        throw new WorkerUnavailable("the session in which this was returned has ended: it is redelivered");
      }
      // The worker answers in order, so an answer to an empty ack means that it has handled the earlier frame.
      const make: Make = (request) => (isNew ? this.#frame(settlement, request) : { op: "ack", seqs: [], request });
      const state = await this.#ask(settlement, make, { ...options, once: true });
      if (state !== undefined) throw notInFlight(this.stored, state);
      return;
    }
    const until = now() + welcome.session_timeout;
    const settles = { ...options, settles: [this.stored] };
    for (;;) {
      const state = await this.#ask(settlement, (request) => this.#frame(settlement, request), settles);
      if (state === undefined) return;
      // An earlier ack that the worker did not receive is repeated when the message is redelivered to this bot.
      const comesAgain = settlement.how === "ack" && (state === "returned" || state === "waiting");
      if (!comesAgain || now() >= until) throw notInFlight(this.stored, state);
      await pause(AGAIN_SECONDS, options.signal);
    }
  }

  /** Settle, and return the state of a message that could not be settled. */
  async #ask(settlement: Settlement, make: Make, options: AskOptions): Promise<string | undefined> {
    const what = `the ${settlement.how} of message ${this.stored.seq}`;
    const { passed_over: passedOver = [] } = await this.#caller.ask<Settled>(what, make, options);
    return passedOver[0]?.state;
  }

  #frame(settlement: Settlement, request: number | undefined): ClientFrame {
    const numbered = request === undefined ? {} : { request };
    const seqs = [this.stored.seq];
    switch (settlement.how) {
      case "ack":
        return { op: "ack", seqs, ...numbered };
      case "term":
        return { op: "term", seqs, reason: settlement.reason ?? null, ...numbered };
      default: {
        const { how, delaySeconds = null } = settlement;
        return { op: "nak", seqs, delay: delaySeconds, release: how === "release", ...numbered };
      }
    }
  }
}

function notInFlight(stored: StoredMessage, state: string): NotInFlight {
  const message = `message ${stored.seq} could not be settled: ${STATES[state] ?? `it is ${state}`}`;
  return new NotInFlight({ code: "conflict", message, details: { state } });
}
