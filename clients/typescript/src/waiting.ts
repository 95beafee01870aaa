/** Waiting for something: with an end, and with a signal that gives it up. */

/** What every call takes beside what it is about. */
export interface CallOptions {
  /** How many seconds to wait for the answer; by default as long as the bot's `timeoutSeconds`. */
  readonly timeoutSeconds?: number | undefined;
  /** Gives up waiting, with the signal's reason. Whether the call was carried out is unknown then. */
  readonly signal?: AbortSignal | undefined;
}

/* A longer timer of Node's ends at once. */
const TIMER_SECONDS_MAX = 2 ** 31 / 1000 - 1;

/** Return the seconds of a clock that never goes back. */
export function now(): number {
  return performance.now() / 1000;
}

/** Call a function after so many seconds; for infinity, never. */
export function after(seconds: number, call: () => void): NodeJS.Timeout | undefined {
  return seconds > TIMER_SECONDS_MAX ? undefined : setTimeout(call, seconds * 1000);
}

/** Wait for so many seconds, or until one of the signals is aborted; raise nothing. */
export function pause(seconds: number, ...signals: Array<AbortSignal | undefined>): Promise<void> {
  return new Promise((resolve) => {
    if (signals.some((signal) => signal?.aborted)) return resolve();
    const end = () => {
      clearTimeout(timer);
      for (const signal of signals) signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = after(seconds, end);
    for (const signal of signals) signal?.addEventListener("abort", end);
  });
}

/** A promise that is settled from outside, once. Nobody has to wait for it. */
export class Deferred<T> {
  readonly promise: Promise<T>;
  isDone = false;
  #resolve!: (value: T) => void;
  #reject!: (error: Error) => void;

  constructor() {
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.promise.catch(() => {});
  }

  resolve(value: T): void {
    this.isDone = true;
    this.#resolve(value);
  }

  reject(error: Error): void {
    this.isDone = true;
    this.#reject(error);
  }
}

/** Wait for a promise. Raise `late()` after so many seconds, or the reason of the signal when it is aborted. */
export async function within<T>(
  promise: Promise<T>,
  seconds: number,
  signal: AbortSignal | undefined,
  late: () => Error,
): Promise<T> {
  const ended = new Deferred<never>();
  const abort = () => ended.reject(signal?.reason);
  if (signal?.aborted) abort();
  const timer = after(seconds, () => ended.reject(late()));
  signal?.addEventListener("abort", abort);
  try {
    return await Promise.race([ended.promise, promise]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  }
}
