/**
 * The worker's keyed stores, as a bot uses them: `bot.kv("settings")`.
 *
 * A value is JSON or bytes. A call that was not answered is repeated with the same id, and carried out once.
 */
import type { Caller } from "./caller.js";
import { ChangesForgotten } from "./errors.js";
import type { Json } from "./frames.js";
import { newId } from "./ids.js";
import { pause, type CallOptions } from "./waiting.js";
import { Limits, type Calls, type StoredValue, type ValuePage } from "./wire.js";

/* How often who watches asks for changes if the worker says nothing: it should not have to. */
const BACKSTOP_SECONDS = 30;

/** What was written under a key last. `Value` is what its writer says it is: nothing checks it. */
export interface KeyedValue<Value = Json> {
  readonly key: string;
  readonly revision: number;
  /** What was put, bytes as a Buffer; undefined if the key was deleted, or has expired. */
  readonly value: Value | undefined;
  readonly isDeleted: boolean;
  /** When it was written, by the worker's clock. */
  readonly writtenAt: string;
  readonly expiresAt: string | undefined;
  /** The id of the bot that wrote it. */
  readonly botId: string | undefined;
}

/** What a write expects, and how it can be repeated. */
export interface WriteOptions extends CallOptions {
  /** The revision that the key must have, or 0 if it must not exist; otherwise RevisionConflict is raised. */
  readonly expected?: number;
  /** Chosen by the caller, to repeat this write after WorkerUnavailable: it is carried out once. */
  readonly id?: string;
}

/** How a value is put. */
export interface PutOptions extends WriteOptions {
  /** After so many seconds, by the worker's clock, the key is deleted. */
  readonly ttlSeconds?: number;
}

/** Which values are listed. */
export interface ListOptions extends CallOptions {
  /** Only those that follow this key. */
  readonly after?: string;
  readonly limit?: number;
}

/** Where a watch begins. */
export interface WatchOptions {
  /** With the changes after this revision; by default with the values that are there. */
  readonly after?: number;
  /** Ends the watch. */
  readonly signal?: AbortSignal;
}

/** Makes the calls of all keyed stores of a bot, and hears of their changes. */
export class KeyedCaller {
  #waiting = new Map<string, AbortController>();

  constructor(readonly caller: Caller) {}

  async call<Method extends keyof Calls>(
    method: Method,
    args: Calls[Method]["arguments"],
    options: CallOptions = {},
  ): Promise<Calls[Method]["value"]> {
    const make = (request: number) => ({ op: "workflow", request, call: method, arguments: args }) as const;
    return this.caller.ask<Calls[Method]["value"]>(method, make, options);
  }

  /** Return a signal that is aborted when the worker says that a store was changed, or might have been. */
  woken(store: string): AbortSignal {
    const waiting = this.#waiting.get(store) ?? new AbortController();
    this.#waiting.set(store, waiting);
    return waiting.signal;
  }

  /** Note that stores were changed; undefined: perhaps any. */
  changed(stores: Iterable<string> = [...this.#waiting.keys()]): void {
    for (const store of stores) {
      this.#waiting.get(store)?.abort();
      this.#waiting.delete(store);
    }
  }
}

/**
 * A keyed store of the worker: values under keys. It begins with its first value.
 *
 * A write is on the worker's disk when its call returns, and every read that begins later sees it. Each write has a
 * revision, which is higher than those of all writes before, in any store. A key has 1 to 512 characters.
 */
export class KeyedStore {
  readonly #calls: KeyedCaller;

  /** @internal */
  constructor(
    readonly name: string,
    calls: KeyedCaller,
  ) {
    this.#calls = calls;
  }

  /** Put a value, JSON or bytes, of 16 MiB at most; return its revision. */
  async put(key: string, value: unknown, options: PutOptions = {}): Promise<number> {
    const { expected = null, ttlSeconds: ttl = null, id = newId() } = options;
    const args = { kv: this.name, key, ...written(value), expected, ttl, id };
    return (await this.#calls.call("kv_put", args, options)).revision;
  }

  /** Delete a key; return the revision of that, 0 if it did not exist. */
  async delete(key: string, options: WriteOptions = {}): Promise<number> {
    const { expected = null, id = newId() } = options;
    return (await this.#calls.call("kv_delete", { kv: this.name, key, expected, id }, options)).revision;
  }

  /** Return a value; undefined if the key does not exist, or has expired. */
  async get<Value = Json>(key: string, options: CallOptions = {}): Promise<KeyedValue<Value> | undefined> {
    const found = await this.#calls.call("kv_get", { kv: this.name, key }, options);
    return found === null ? undefined : read<Value>(found);
  }

  /** Return values whose keys begin with a prefix, in the order of their keys, by code points. */
  async list<Value = Json>(prefix = "", options: ListOptions = {}): Promise<Array<KeyedValue<Value>>> {
    const { limit = Infinity } = options;
    const found: Array<KeyedValue<Value>> = [];
    for (let more = true; more && found.length < limit; ) {
      const after = found.at(-1)?.key ?? options.after ?? null;
      const size = Math.min(limit - found.length, Limits.ANSWER_ITEMS_MAX);
      const page = await this.#calls.call("kv_list", { kv: this.name, prefix, after, limit: size }, options);
      found.push(...page.values.map(read<Value>));
      more = page.more ?? false;
    }
    return found;
  }

  /** Return the last revision in any store: `watch` with it returns what is written from now on. */
  async revision(options: CallOptions = {}): Promise<number> {
    return (await this.#calls.call("kv_list", { kv: this.name, limit: 1 }, options)).revision;
  }

  /**
   * Watch keys that begin with a prefix: `for await (const value of bot.kv("settings").watch())`.
   *
   * Without `after` it begins with the values that are there. Then come changes, in the order of their revisions; also
   * deletions, and values that have expired. Of a key that is written several times at once, only the last write may
   * come. It goes on after restarts of the worker, and misses nothing; if the bot was away for longer than a day, or
   * the worker goes on from a backup, it raises ChangesForgotten: watch again from the beginning then.
   */
  async *watch<Value = Json>(
    prefix = "",
    options: WatchOptions = {},
  ): AsyncGenerator<KeyedValue<Value>, void, undefined> {
    try {
      for await (const page of this.#pages(prefix, options)) yield* page.map(read<Value>);
    } catch (error) {
      if (!options.signal?.aborted) throw error;
    }
  }

  /** Iterate over what is there, and then over changes, page by page. */
  async *#pages(prefix: string, { after, signal }: WatchOptions): AsyncGenerator<StoredValue[], never, undefined> {
    const patient = { timeoutSeconds: Infinity, signal };
    const kv = this.name;
    const { connection } = this.#calls.caller;
    const epoch = connection.welcome?.epoch;
    let revision = after;
    if (revision === undefined) {
      for (let more = true, key: string | null = null; more; ) {
        const page: ValuePage = await this.#calls.call("kv_list", { kv, prefix, after: key }, patient);
        revision ??= page.revision;
        yield page.values;
        more = page.more ?? false;
        key = page.values.at(-1)?.key ?? key;
      }
    }
    for (;;) {
      const woken = this.#calls.woken(kv);
      const args = { kv, prefix, after: revision ?? 0, wake: true };
      const page = await this.#calls.call("kv_changes", args, patient);
      if (connection.welcome?.epoch !== epoch) {
        throw new ChangesForgotten({ code: "conflict", message: `the changes of '${kv}' are those of another log` });
      }
      yield page.changes;
      revision = page.revision;
      if (!page.more) await pause(BACKSTOP_SECONDS, woken, signal);
    }
  }
}

/** Return a value as it is sent. */
export function written(value: unknown): { kind: "bytes" | "json"; value: unknown } {
  return value instanceof Uint8Array
    ? { kind: "bytes", value: Buffer.from(value).toString("base64") }
    : { kind: "json", value };
}

function read<Value>(stored: StoredValue): KeyedValue<Value> {
  const { key, revision, state, value } = stored;
  const isDeleted = state !== "json" && state !== "bytes";
  const decoded = state === "bytes" ? Buffer.from(value as string, "base64") : value;
  return {
    key,
    revision,
    value: isDeleted ? undefined : (decoded as Value),
    isDeleted,
    writtenAt: stored.written_at,
    expiresAt: stored.expires_at ?? undefined,
    botId: stored.bot_id ?? undefined,
  };
}
