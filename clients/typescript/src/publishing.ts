/**
 * Messages on their way to the worker: those that are published in one turn of the loop travel in one frame, and no
 * more are unanswered than the worker allows.
 */
import type { Connection } from "./connection.js";
import { requestError, type BusError } from "./errors.js";
import { publishFrame } from "./frames.js";
import { Deferred } from "./waiting.js";
import { Limits, type InParts, type Ok, type Published } from "./wire.js";

/** Confirmation that a message is on the worker's disk. */
export interface Receipt {
  readonly id: string;
  /** Its place in the log; undefined if it is delayed: then it gets its place when it is due. */
  readonly seq: number | undefined;
  /** Whether it had been stored before, under the same id. */
  readonly duplicate: boolean;
}

/** A message that waits for its receipt. */
export interface Outgoing {
  readonly id: string;
  /** The message as it is in a publish frame. */
  readonly payload: string;
  readonly receipt: Deferred<Receipt>;
  /** Whether nobody waits any more: if it was not sent yet, it never is. */
  isAbandoned: boolean;
}

export class Publisher {
  readonly #connection: Connection;
  #waiting: Outgoing[] = [];
  #unanswered = 0;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** Publish a message, after those before it. */
  publish(id: string, payload: string): Outgoing {
    const outgoing = { id, payload, receipt: new Deferred<Receipt>(), isAbandoned: false };
    const { failure } = this.#connection;
    if (failure !== undefined) {
      outgoing.receipt.reject(failure);
    } else {
      if (this.#waiting.length === 0) queueMicrotask(() => this.flush());
      this.#waiting.push(outgoing);
    }
    return outgoing;
  }

  /** Send what waits, as far as the window and the session allow. */
  flush(): void {
    const { welcome, isOpen } = this.#connection;
    while (isOpen && welcome !== undefined && this.#waiting.length > 0) {
      const room = welcome.max_publish_in_flight - this.#unanswered;
      const most = Math.min(room, welcome.max_publish_messages ?? Limits.PUBLISH_MESSAGES_MAX);
      if (most <= 0) return;
      const packed = this.#pack(most, welcome.max_frame_bytes);
      if (packed.length > 0) this.#send(packed);
    }
  }

  /** Fail all messages that wait, because there will be no more sessions. */
  close(failure: BusError): void {
    for (const outgoing of this.#waiting) outgoing.receipt.reject(failure);
    this.#waiting = [];
  }

  /** Remove as many messages as fit into one frame, but at least one, and return them. */
  #pack(most: number, bytesMax: number): Outgoing[] {
    const packed: Outgoing[] = [];
    let size: number = Limits.PUBLISH_ROOM_BYTES;
    let taken = 0;
    for (const outgoing of this.#waiting) {
      if (!outgoing.isAbandoned) {
        size += Buffer.byteLength(outgoing.payload) + 1;
        if (packed.length === most || (size > bytesMax && packed.length > 0)) break;
        packed.push(outgoing);
      }
      taken++;
    }
    this.#waiting.splice(0, taken);
    return packed;
  }

  #send(packed: readonly Outgoing[]): void {
    const number = this.#connection.nextNumber();
    this.#unanswered += packed.length;
    const settled = () => {
      this.#unanswered -= packed.length;
      this.flush();
    };
    this.#connection.post(number, {
      frame: publishFrame(number, packed.map(({ payload }) => payload)),
      answered: (frame) => {
        answer(packed, frame);
        settled();
      },
      failed: (error) => {
        for (const { receipt } of packed) receipt.reject(error);
        settled();
      },
    });
  }
}

/** Tell what became of each message of a frame. */
function answer(packed: readonly Outgoing[], frame: Published | Ok | InParts): void {
  if (frame.op !== "published") return;
  const errors = new Map((frame.errors ?? []).map((error) => [error.index, error]));
  const duplicates = new Set(frame.duplicates);
  packed.forEach(({ id, receipt }, index) => {
    const error = errors.get(index);
    if (error !== undefined) receipt.reject(requestError(error));
    else receipt.resolve({ id, seq: frame.seqs[index] ?? undefined, duplicate: duplicates.has(index) });
  });
}
