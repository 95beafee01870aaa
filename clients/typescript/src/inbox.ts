/**
 * Messages that were delivered to a bot and that its program has not received yet, those who wait for one, and the
 * removals of subscriptions, which are told once.
 */
import { NoMessage, type BusError, type SubscriptionRemoved } from "./errors.js";
import type { Message } from "./message.js";
import { after } from "./waiting.js";

/** How a bot receives. */
export interface ReceiveOptions {
  /** How many seconds to wait for a message, 0 for one that has arrived; by default for ever. */
  readonly timeoutSeconds?: number | undefined;
  /** Gives up waiting, with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

interface Receiver {
  give(message: Message): void;
  fail(error: unknown): void;
}

export class Inbox {
  readonly #messages: Message[] = [];
  readonly #receivers = new Set<Receiver>();
  readonly #removed: SubscriptionRemoved[] = [];
  #failure: BusError | undefined;

  /** Add delivered messages. */
  put(messages: readonly Message[]): void {
    for (const message of messages) {
      const [receiver] = this.#receivers;
      if (receiver === undefined) this.#messages.push(message);
      else receiver.give(message);
    }
  }

  /** Remove a message that nobody has received, and return it. */
  remove(id: string): Message | undefined {
    const at = this.#messages.findIndex((message) => message.id === id);
    return at < 0 ? undefined : this.#messages.splice(at, 1)[0];
  }

  /** Tell one who waits, or the next one who would, that a subscription was removed. */
  tell(removed: SubscriptionRemoved): void {
    const [receiver] = this.#receivers;
    if (receiver === undefined) this.#removed.push(removed);
    else receiver.fail(removed);
  }

  /** Wait for the next message. Raise what was told, what ended the connection, NoMessage, or the reason of the signal. */
  receive({ timeoutSeconds = Infinity, signal }: ReceiveOptions): Promise<Message> {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const removed = this.#removed.shift();
      if (removed !== undefined) return reject(removed);
      const message = this.#messages.shift();
      if (message !== undefined) return resolve(message);
      if (this.#failure !== undefined) return reject(this.#failure);
      const leave = () => {
        this.#receivers.delete(receiver);
        clearTimeout(timer);
        signal?.removeEventListener("abort", abort);
      };
      const receiver: Receiver = {
        give: (message) => {
          leave();
          resolve(message);
        },
        fail: (error) => {
          leave();
          reject(error);
        },
      };
      const abort = () => receiver.fail(signal?.reason);
      signal?.addEventListener("abort", abort);
      const timer = after(timeoutSeconds, () => receiver.fail(new NoMessage(timeoutSeconds)));
      this.#receivers.add(receiver);
    });
  }

  /** Fail those who wait, now and later. What nobody has received is no longer this session's. */
  close(failure: BusError): void {
    this.#failure = failure;
    this.#messages.length = 0;
    for (const receiver of [...this.#receivers]) receiver.fail(failure);
  }
}
