/**
 * What is larger than a frame: requests that are sent in parts, and answers that are read in parts.
 *
 * Owns beginning again when the worker has forgotten the parts, as in a new session, or has no room for them now.
 */
import { LimitReached, NotFound, TooLarge } from "./errors.js";
import { encode } from "./frames.js";
import { newId } from "./ids.js";
import { now, pause } from "./waiting.js";
import { Limits, type ClientFrame, type InParts, type Ok, type Welcome } from "./wire.js";

/** Makes the frame of a request with its number. */
export type Make = (request: number) => ClientFrame;

/** How frames of one request reach the worker. */
export interface Exchange {
  /** The terms of the session. */
  readonly welcome: Welcome | undefined;
  nextNumber(): number;
  /** Send a frame, and return its answer. */
  send(number: number, frame: string): Promise<Ok | InParts>;
}

/* Waits before beginning again; the last one repeats. */
const AGAIN_SECONDS = [0.05, 0.2, 0.5, 1];

export class Parts {
  /* Frames are sent one after another: in one session, a new one takes the place of an earlier one. */
  #sending: Promise<unknown> = Promise.resolve();

  /** Return the value of the answer to a request, in parts as far as that is needed. */
  async ask(make: Make, exchange: Exchange, until: number, signal: AbortSignal | undefined): Promise<unknown> {
    for (let attempt = 0; ; attempt++) {
      let isLarge = false;
      try {
        const number = exchange.nextNumber();
        const request = make(number);
        const frame = encode(request);
        const { welcome } = exchange;
        isLarge = welcome !== undefined && Buffer.byteLength(frame) > welcome.max_frame_bytes;
        const answer = await (welcome && isLarge
          ? this.#send(request, Buffer.from(frame), welcome, exchange)
          : exchange.send(number, frame));
        if (answer.op === "ok") return answer.value === undefined ? {} : answer.value;
        isLarge = true;
        return await read(answer, exchange);
      } catch (error) {
        if (!isLarge || !isTemporary(error) || now() >= until) throw error;
      }
      await pause(AGAIN_SECONDS[Math.min(attempt, AGAIN_SECONDS.length - 1)] ?? 1, signal);
    }
  }

  /** Send a frame in parts, and return the answer to it. */
  #send(frame: ClientFrame, data: Buffer, welcome: Welcome, exchange: Exchange): Promise<Ok | InParts> {
    const mayBeInParts = frame.op === "workflow" || frame.op === "commit";
    const most = Math.max(welcome.max_frame_bytes, mayBeInParts ? (welcome.max_parts_bytes ?? 0) : 0);
    if (data.length > most) {
      const message = `the frame has ${data.length} bytes; the maximum is ${most}`;
      throw new TooLarge({ code: "too_large", message });
    }
    const sent = this.#sending.then(async () => {
      const size = Math.floor((welcome.max_frame_bytes - Limits.PART_ROOM_BYTES) / 4) * 3; // they are base64
      const upload = newId();
      for (let offset = 0; offset < data.length; offset += size) {
        const part = data.subarray(offset, offset + size).toString("base64");
        const total = data.length;
        await ask(exchange, (request) => ({ op: "part", request, upload, offset, total, data: part }));
      }
      return ask(exchange, (request) => ({ op: "whole", request, upload }));
    });
    this.#sending = sent.catch(() => {});
    return sent;
  }
}

function ask(exchange: Exchange, make: Make): Promise<Ok | InParts> {
  const number = exchange.nextNumber();
  return exchange.send(number, encode(make(number)));
}

/** Return the value of an answer that is read in parts. */
async function read(answer: InParts, exchange: Exchange): Promise<unknown> {
  const parts: Buffer[] = [];
  for (let offset = 0; offset < answer.total; ) {
    const part = await ask(exchange, (request) => ({ op: "read_part", request, of: answer.request, offset }));
    const { data } = (part as Ok).value as { data: string };
    const bytes = Buffer.from(data, "base64");
    parts.push(bytes);
    offset += bytes.length;
  }
  return (JSON.parse(Buffer.concat(parts).toString()) as Ok).value;
}

/** Return true if the worker does not have the parts any more, or has no room for them now. */
function isTemporary(error: unknown): boolean {
  if (error instanceof NotFound) return error.details["parts"] === "unknown";
  return error instanceof LimitReached && error.constructor === LimitReached;
}
