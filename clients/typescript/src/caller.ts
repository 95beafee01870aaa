/** How a bot's calls reach its worker, and how long each waits for its answer. */
import type { Connection } from "./connection.js";
import { WorkerUnavailable } from "./errors.js";
import { Parts, type Exchange, type Make } from "./parts.js";
import { Deferred, now, within, type CallOptions } from "./waiting.js";
import type { InParts, Ok, StoredMessage } from "./wire.js";

/** How a request is repeated. */
export interface AskOptions extends CallOptions {
  /** Whether it is valid in its own session only. */
  readonly once?: boolean;
  /** The messages that it settles. */
  readonly settles?: readonly StoredMessage[];
}

export class Caller {
  readonly #parts = new Parts();

  /** Make requests on a connection. By default each waits for so many seconds. */
  constructor(
    readonly connection: Connection,
    readonly timeoutSeconds: number,
  ) {}

  /** Return how long a call waits. */
  seconds(options: CallOptions): number {
    return options.timeoutSeconds ?? this.timeoutSeconds;
  }

  /**
   * Return the value of the answer to a request; `what` names it in errors.
   *
   * It is repeated in later sessions until it is answered. Raises RequestError if it is refused, WorkerUnavailable if
   * no answer comes in time, and the reason of the signal.
   */
  async ask<T>(what: string, make: Make, options: AskOptions = {}): Promise<T> {
    const { connection } = this;
    const until = now() + this.seconds(options);
    const exchange: Exchange = {
      welcome: connection.welcome,
      nextNumber: () => connection.nextNumber(),
      send: (number, frame) => this.#send(what, number, frame, options, until),
    };
    return (await this.#parts.ask(make, exchange, until, options.signal)) as T;
  }

  /** Return the error for an answer that did not come. */
  unavailable(what: string, options: CallOptions): WorkerUnavailable {
    return new WorkerUnavailable(
      `no answer for ${what} within ${this.seconds(options)} s from ${this.connection.endpoint.where}: the worker` +
        " may be down; whether it carried this out is unknown",
    );
  }

  async #send(
    what: string,
    number: number,
    frame: string,
    { once, settles = [], ...options }: AskOptions,
    until: number,
  ): Promise<Ok | InParts> {
    options.signal?.throwIfAborted();
    const answer = new Deferred<Ok | InParts>();
    this.connection.post(number, {
      frame,
      once,
      settles,
      answered: (frame) => {
        if (frame.op !== "published") answer.resolve(frame);
      },
      failed: (error) => answer.reject(error),
    });
    try {
      return await within(answer.promise, until - now(), options.signal, () => this.unavailable(what, options));
    } finally {
      this.connection.forget(number);
    }
  }
}
