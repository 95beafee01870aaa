/**
 * One session: a socket, from its hello until it is lost.
 *
 * Owns staying alive: something is sent at least every heartbeat, and a worker that is silent is taken for gone.
 */
import { decode, encode } from "./frames.js";
import type { Break, Listener, Port } from "./port.js";
import { Silence } from "./route.js";
import { after, now } from "./waiting.js";
import type { ClientFrame, Welcome, WorkerFrame } from "./wire.js";

/* The part of a heartbeat interval between two pings: the rest is for the network and a busy loop. */
const UPKEEP_FRACTION = 0.8;

/** What a session needs. */
export interface SessionPlan {
  readonly open: (listener: Listener) => Port;
  readonly hello: ClientFrame;
  /** How long to wait for the welcome. */
  readonly patienceSeconds: number;
  /** Whether another address may be the right one. */
  readonly several: boolean;
  readonly take: (frame: WorkerFrame) => void;
  readonly broken: (how: Break) => Promise<void>;
  /** What is sent with each ping. */
  readonly upkeep: () => ClientFrame[];
}

export class Session {
  /** Resolved when the session is lost, or was ended. */
  readonly ended: Promise<void>;
  /** Whether the worker has welcomed it, and it has not ended. */
  isOpen = false;
  readonly #plan: SessionPlan;
  readonly #port: Port;
  readonly #silence = new Silence(now());
  #timer: NodeJS.Timeout | undefined;
  #hasEnded = false;
  #end!: () => void;

  /** Connect, and say hello. Raise AddressError for an invalid address. */
  constructor(plan: SessionPlan) {
    this.#plan = plan;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
    this.#port = plan.open({
      heard: (data) => this.#heard(data),
      broken: async (how) => {
        if (!this.#hasEnded) await plan.broken(how);
      },
    });
    this.#timer = after(plan.patienceSeconds, () => this.end());
    this.send(encode(plan.hello));
  }

  /** Note that the session is open, and keep it alive from now on. */
  opened(welcome: Welcome): void {
    this.isOpen = true;
    this.#schedule(welcome);
  }

  /** Send a frame; without a session, it is lost like on a broken connection. */
  send(frame: string): void {
    if (!this.#hasEnded) this.#port.send(frame);
  }

  /** End the session; for so many milliseconds, frames that were sent may still leave. */
  end(lingerMilliseconds = 0): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.isOpen = false;
    clearTimeout(this.#timer);
    this.#port.close(lingerMilliseconds);
    this.#end();
  }

  #heard(data: Buffer): void {
    if (this.#hasEnded) return;
    this.#silence.heard(now());
    const frame = decode(data);
    if (frame !== undefined) this.#plan.take(frame);
  }

  #schedule(welcome: Welcome): void {
    clearTimeout(this.#timer);
    const interval = Math.min(welcome.heartbeat, welcome.ack_wait / 2) * UPKEEP_FRACTION;
    const silentFor = this.#silence.overAt(welcome.session_timeout, this.#plan.several) - now();
    // After a loop that was busy, the socket is read before the worker is taken for silent.
    this.#timer = after(Math.max(0, Math.min(interval, silentFor)), () => setImmediate(() => this.#keepUp(welcome)));
  }

  #keepUp(welcome: Welcome): void {
    if (this.#hasEnded) return;
    if (now() >= this.#silence.overAt(welcome.session_timeout, this.#plan.several)) return this.end();
    for (const frame of this.#plan.upkeep()) this.send(encode(frame));
    this.send(encode({ op: "ping" }));
    this.#silence.asked(now());
    this.#schedule(welcome);
  }
}
