/**
 * Commits: messages, acks, keyed values and a run's progress in one transaction: `bot.commit`.
 *
 * The messages that a commit acks are settled here when it is answered. After a lost session, they are waited for.
 */
import type { Caller } from "./caller.js";
import { Conflict, NotInFlight } from "./errors.js";
import { writeBody } from "./frames.js";
import { newId } from "./ids.js";
import { written } from "./kv.js";
import type { Message } from "./message.js";
import { draft, time, write, type PublishOptions, type Recipient, type SendOptions } from "./sending.js";
import { now, pause, type CallOptions } from "./waiting.js";
import { Limits, type Commit as Frame, type CommitAnswer, type CommittedValue, type Publication } from "./wire.js";

/* How soon to commit again if a message that is acked was not redelivered yet: that usually takes milliseconds. */
const AGAIN_SECONDS = 0.05;

/** A message of a commit. */
export interface CommittedMessage extends Omit<SendOptions & PublishOptions, keyof CallOptions> {
  readonly to: Recipient;
  readonly body: unknown;
}

/** A value to put, JSON or bytes, or a key to delete. */
export interface KeyedChange {
  /** The name of the keyed store. */
  readonly kv: string;
  readonly key: string;
  readonly value?: unknown;
  readonly isDeletion?: boolean;
  /** The revision that the key must have, or 0 if it must not exist; otherwise RevisionConflict is raised. */
  readonly expected?: number;
  /** After so many seconds, by the worker's clock, the key is deleted. */
  readonly ttlSeconds?: number;
}

/** What a commit does to runs: fields of its frame in docs/protocol.md, as they are on the wire. */
export type RunChanges = Pick<
  Frame,
  "context" | "error" | "fence" | "result" | "run_id" | "runs" | "signals" | "status" | "steps"
>;

/** What a commit does: all of it, or nothing. */
export interface Commit {
  readonly messages?: readonly CommittedMessage[];
  /** Messages that this bot holds. They are settled with the rest, and never delivered again. */
  readonly acks?: ReadonlyArray<Message<unknown>>;
  readonly values?: readonly KeyedChange[];
  readonly run?: RunChanges;
}

/** How a commit is made. */
export interface CommitOptions extends CallOptions {
  /** Chosen by the caller, to repeat this commit after WorkerUnavailable, with the same contents: it is done once. */
  readonly id?: string;
}

/** Confirmation that a commit is on the worker's disk. */
export interface CommitReceipt {
  readonly id: string;
  /** Its messages: their ids, and their places in the log; undefined for one that is delayed. */
  readonly messages: ReadonlyArray<{ readonly id: string; readonly seq: number | undefined }>;
}

/** Do all this in one transaction, or nothing of it; see `Bot.commit`. */
export async function commit(caller: Caller, contents: Commit, options: CommitOptions): Promise<CommitReceipt> {
  const { messages = [], values = [], run = {} } = contents;
  const { id = newId(), ...waiting } = options;
  if (id === "") throw new TypeError("the id is empty: choose one, or leave it out for a new one");
  if (messages.length > Limits.COMMIT_ITEMS_MAX) {
    throw new RangeError(`a commit may have at most ${Limits.COMMIT_ITEMS_MAX} messages, not ${messages.length}`);
  }
  const acks = [...new Set(contents.acks)];
  const publications = messages.map(
    ({ to, body, ...rest }) => JSON.parse(write(draft(to, body, rest))) as Publication,
  );
  const frame: Omit<Frame, "request"> = {
    ...copied(run),
    op: "commit",
    id,
    messages: publications,
    acks: acks.map(({ seq }) => seq),
    values: values.map(committed),
  };
  const { seqs } = await carryOut(caller, frame, acks, waiting);
  for (const message of acks) message.noteCommitted();
  return { id, messages: publications.map((each, index) => ({ id: each.id, seq: seqs[index] ?? undefined })) };
}

/**
 * Commit, and again while messages that are acked are being redelivered, as after a restart of the worker.
 *
 * The first try is not delayed: if the commit was carried out before, they are never redelivered.
 */
async function carryOut(
  caller: Caller,
  frame: Omit<Frame, "request">,
  acks: ReadonlyArray<Message<unknown>>,
  options: CallOptions,
): Promise<CommitAnswer> {
  const { connection } = caller;
  const settles = acks.map(({ stored }) => stored);
  const isHeld = () => acks.every((each) => !each.isSettled && connection.deliveries.holds(each.stored));
  for (let until: number | undefined; ; ) {
    try {
      return await caller.ask<CommitAnswer>("the commit", (request) => ({ ...frame, request }), { ...options, settles });
    } catch (error) {
      const isAboutAcks = error instanceof Conflict && Object.keys(error.details).length === 0 && acks.length > 0;
      if (!isAboutAcks || !isHeld()) throw error;
      until ??= now() + (connection.welcome?.session_timeout ?? 0);
      if (now() >= until) throw notInFlight();
    }
    await pause(AGAIN_SECONDS, options.signal);
  }
}

function committed({ kv, key, value, isDeletion, expected, ttlSeconds }: KeyedChange): CommittedValue {
  const change: CommittedValue = { kv, key, ...(isDeletion ? { kind: "deleted" } : written(value)) };
  if (change.kind === "json") change.value = copied(value);
  if (expected !== undefined) change.expected = expected;
  if (ttlSeconds !== undefined) change.ttl = time("ttlSeconds", ttlSeconds);
  return change;
}

/** Return a value as it is now: when a commit is repeated, it may have been changed. Raise InvalidBody if JSON loses it. */
function copied<Value>(value: Value): Value {
  return JSON.parse(writeBody(value)) as Value;
}

function notInFlight(): NotInFlight {
  const message = "a message that the commit acks is not in flight for this bot: nothing was committed";
  return new NotInFlight({ code: "conflict", message });
}
