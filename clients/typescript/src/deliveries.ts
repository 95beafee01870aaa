/**
 * The messages that a bot holds, and those that it settled.
 *
 * A message that is held is not given to the program twice; one that was settled is silently acked again. The id is
 * kept beside each seq, because a log restored from a copy assigns seqs a second time.
 */
import { NotInFlight } from "./errors.js";
import type { StoredMessage } from "./wire.js";

/* Settled seqs that are remembered to drop repeats: many times the largest credit. */
const SETTLED_REMEMBERED_MAX = 20_000;

export class Deliveries {
  /** Messages that were delivered and are not settled, by seq. */
  readonly held = new Map<number, StoredMessage>();
  readonly #settled = new Map<number, string>();

  /** Note delivered messages; return those that are new, and the seqs of those that were settled before. */
  take(messages: readonly StoredMessage[]): { fresh: StoredMessage[]; settled: number[] } {
    const fresh: StoredMessage[] = [];
    const settled: number[] = [];
    for (const message of messages) {
      if (this.#settled.get(message.seq) === message.id) {
        settled.push(message.seq);
      } else if (this.held.get(message.seq)?.id !== message.id) {
        this.held.set(message.seq, message);
        fresh.push(message);
      }
    }
    return { fresh, settled };
  }

  /** Return true if a message is still held, and its seq does not name another one by now. */
  holds(message: StoredMessage): boolean {
    return this.held.get(message.seq) === message;
  }

  /** Note that a message is settled: repeats of it are dropped from now on. */
  settle(message: StoredMessage): void {
    this.held.delete(message.seq);
    this.#settled.set(message.seq, message.id);
    for (const oldest of this.#settled.keys()) {
      if (this.#settled.size <= SETTLED_REMEMBERED_MAX) break;
      this.#settled.delete(oldest);
    }
  }

  /** Note that a message was returned or given up: it may be redelivered. */
  release(message: StoredMessage): void {
    if (this.holds(message)) this.held.delete(message.seq);
  }

  /** Forget what was settled: the bot is about to ask for messages that it may have had. */
  wantAgain(): void {
    this.#settled.clear();
  }

  /**
   * Forget what is held: those seqs belong to another log.
   *
   * Settled ids stay known, because the new log may be an older copy, which delivers those messages again.
   */
  forget(): void {
    this.held.clear();
  }
}

/** Return the error for settling a message after the log was replaced: its seq may be another message's now. */
export function ofAnotherLog(): NotInFlight {
  const message = "the message is from another log than the worker's: it cannot be settled";
  return new NotInFlight({ code: "conflict", message });
}
