/**
 * One ZeroMQ socket of one session: frames out and in, and how its connections end.
 *
 * Every session has a socket of its own, so that nothing sent for an old one can arrive in a new one.
 */
import { Dealer } from "zeromq";
import { AddressError } from "./errors.js";
import type { CurveKeys } from "./keys.js";

/**
 * How a connection ended: it broke; the worker's authenticator did not let this bot in; the other end closed it in
 * the middle of the handshake, without a reason; or one end has keys, and the other one has none.
 */
export type Break = "lost" | "refused" | "unfinished" | "mismatched";

/** What is done with what comes. `broken` is called once at a time. */
export interface Listener {
  heard(data: Buffer): void;
  broken(how: Break): Promise<void> | void;
}

/* The status of a peer that may not come in (RFC 27); with another one, the authenticator itself had a problem. */
const REFUSED = 400;

export class Port {
  readonly #socket: Dealer;
  readonly #listener: Listener;

  /** Connect to a worker, which may not be running yet. Raise AddressError for an invalid address. */
  constructor(url: string, keys: CurveKeys | undefined, listener: Listener) {
    this.#listener = listener;
    this.#socket = new Dealer({
      ipv6: url.startsWith("tcp://["),
      linger: 0,
      receiveHighWaterMark: 0,
      sendHighWaterMark: 0,
      sendTimeout: 0, // with any other, a send may wait for a turn of the loop, and another one be refused meanwhile
      ...keys,
    });
    const events = this.#watch();
    try {
      this.#socket.connect(url);
    } catch (error) {
      this.close();
      throw new AddressError(url, error instanceof Error ? error.message : String(error));
    }
    void Promise.all([events, this.#read()]);
  }

  /** Send a frame. */
  send(frame: string): void {
    this.#socket.send(frame).catch(() => void this.#listener.broken("lost"));
  }

  /** Close the socket; for so many milliseconds, sent frames may still leave. */
  close(lingerMilliseconds = 0): void {
    if (this.#socket.closed) return;
    this.#socket.linger = lingerMilliseconds;
    this.#socket.close();
  }

  async #read(): Promise<void> {
    while (!this.#socket.closed) {
      let data: Buffer | undefined;
      try {
        [data] = await this.#socket.receive();
      } catch {
        if (!this.#socket.closed) await this.#listener.broken("lost");
        return;
      }
      if (data !== undefined) this.#listener.heard(data);
    }
  }

  async #watch(): Promise<void> {
    let unfinished = false;
    try {
      for await (const event of this.#socket.events) {
        switch (event.type) {
          case "disconnect":
            if (!unfinished) await this.#listener.broken("lost");
            unfinished = false; // otherwise this is the end of a handshake that was told before
            break;
          case "handshake:error:auth":
            await this.#listener.broken(event.error.status === REFUSED ? "refused" : "lost");
            break;
          case "handshake:error:protocol":
            await this.#listener.broken(event.error.code === "ERR_ZMTP_MECHANISM_MISMATCH" ? "mismatched" : "lost");
            break;
          case "handshake:error:other":
            unfinished = true;
            await this.#listener.broken("unfinished");
            break;
          default:
        }
      }
    } catch {
      if (!this.#socket.closed) await this.#listener.broken("lost");
    }
  }
}
