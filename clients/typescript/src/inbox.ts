/** Messages that were delivered to a bot and that its program has not received yet, and those who wait for one. */
import type { BusError } from "./errors.js";
import type { Message } from "./message.js";

interface Receiver {
  give(message: Message): void;
  fail(error: unknown): void;
}

export class Inbox {
  readonly #messages: Message[] = [];
  readonly #receivers = new Set<Receiver>();
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

  /** Wait for the next message. Raise what ended the connection, or the reason of the signal. */
  receive(signal?: AbortSignal): Promise<Message> {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const message = this.#messages.shift();
      if (message !== undefined) return resolve(message);
      if (this.#failure !== undefined) return reject(this.#failure);
      const leave = () => {
        this.#receivers.delete(receiver);
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
