/**
 * Which worker of a house a client goes to: addresses that it was given, and those that workers name.
 *
 * A worker that says who serves instead is followed, at once the first time, but only so often in a row. After a
 * session, or an attempt that opened none, the next of the given addresses has its turn.
 */

/* Waits between attempts, one for each round through the given addresses; the last one repeats. */
const RECONNECT_SECONDS = [0.05, 0.2, 0.5, 1, 2];

/* How long an attempt waits for its welcome. The socket keeps trying to connect in the meantime. */
const HELLO_SECONDS = 5;

/* The same, by rounds, where another address may be the right one: that of a dead worker refuses nothing. */
const HELLO_SECONDS_OF_SEVERAL = [1, 2, HELLO_SECONDS];

/* How often in a row a worker's word is followed: workers that have just changed places may disagree. */
const FOLLOWED_MAX = 3;

/* How long a ping may be unanswered where another address may be the right one: a part of `session_timeout`. */
const UNANSWERED_FRACTION = 0.4;

/** The way to the worker that serves. */
export class Route {
  #turn = 0;
  #told: string | undefined;
  #heard: string | undefined;
  #followed = 0;
  #attempts = 0;

  constructor(readonly urls: readonly [string, ...string[]]) {}

  /** The address of this attempt. */
  get url(): string {
    return this.#told ?? this.urls[this.#turn] ?? this.urls[0];
  }

  /** How long this attempt waits for its welcome. */
  get patienceSeconds(): number {
    if (this.#told === undefined && this.urls.length === 1) return HELLO_SECONDS;
    return by(HELLO_SECONDS_OF_SEVERAL, this.#round);
  }

  /** Note the address of the worker that serves, as another one says; undefined if it does not know. */
  hear(url: string | undefined): void {
    this.#heard = url;
  }

  /** Choose the next address after an attempt, which opened a session or not; return the wait in seconds. */
  goOn(opened: boolean): number {
    this.#attempts = opened ? 0 : this.#attempts + 1;
    if (opened) this.#followed = 0;
    this.#told = this.#heard;
    this.#heard = undefined;
    if (this.#told !== undefined && this.#followed < FOLLOWED_MAX) {
      this.#followed++;
      return this.#followed === 1 ? 0 : by(RECONNECT_SECONDS, 0);
    }
    this.#told = undefined;
    this.#followed = 0;
    this.#turn = (this.#turn + 1) % this.urls.length;
    return by(RECONNECT_SECONDS, this.#round);
  }

  get #round(): number {
    return Math.floor(this.#attempts / this.urls.length);
  }
}

/** When a worker that says nothing is taken for gone. Times are seconds of one clock. */
export class Silence {
  #askedAt = Infinity;

  constructor(private heardAt: number) {}

  /** Note that something came. */
  heard(now: number): void {
    this.heardAt = now;
    this.#askedAt = Infinity;
  }

  /** Note that a ping was sent. */
  asked(now: number): void {
    this.#askedAt = Math.min(this.#askedAt, now);
  }

  /** Return when the worker is taken for gone if nothing comes; earlier if another address may be the right one. */
  overAt(sessionTimeout: number, several: boolean): number {
    const overAt = this.heardAt + sessionTimeout;
    return several ? Math.min(overAt, this.#askedAt + UNANSWERED_FRACTION * sessionTimeout) : overAt;
  }
}

/** Return why an address cannot be connected to; undefined if it may be possible. */
export function addressFault(address: string): string | undefined {
  const [, scheme, rest] = /^(\w+):\/\/(.+)$/.exec(address) ?? [];
  if (scheme === "ipc") return undefined;
  if (scheme !== "tcp" || rest === undefined) return "it does not begin with tcp:// or ipc://";
  const [, port] = /^(?:\[[^\]\s]+\]|[^:\s/@]+):(\d{1,5})$/.exec(rest) ?? [];
  if (port === undefined) return "it is not a host and a port";
  return Number(port) >= 1 && Number(port) <= 65_535 ? undefined : `${port} is not a port`;
}

function by(seconds: readonly number[], round: number): number {
  return seconds[Math.min(round, seconds.length - 1)] ?? 0;
}
