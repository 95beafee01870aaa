/**
 * All errors of the package, in one tree.
 *
 * `BusError` is the root. A `RequestError` is an answer: the worker refused a call, and its `code` says why. The
 * others mean that no answer came, or that the worker and this bot did not accept each other.
 */
import { RetryCode, type Code, type ErrorFrame, type ItemError } from "./wire.js";

/** The root of all errors of the package. */
export class BusError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** A bot cannot connect to this address. */
export class AddressError extends BusError {
  constructor(
    readonly address: string,
    reason: string,
  ) {
    super(`cannot connect to '${address}': ${reason}; use an address like tcp://127.0.0.1:7710`);
  }
}

/** The bot was closed while this call waited, or before it was made. */
export class ClosedError extends BusError {}

/** No worker answered in time. Whether what was sent is stored is unknown: send it again with the same id. */
export class WorkerUnavailable extends BusError {}

/** No message came in time. */
export class NoMessage extends BusError {
  constructor(timeoutSeconds: number) {
    super(`no message came within ${timeoutSeconds} s`);
  }
}

/**
 * The bot has a subscription no more that this program made: an operator removed it, its group, its channel or the
 * bot; another program of the bot unsubscribed; or the worker goes on from a backup that was made before it.
 */
export class SubscriptionRemoved extends BusError {
  constructor(
    /** The channel, or the pattern. */
    readonly channel: string,
    /** The group; undefined if the subscription was the bot's alone. */
    readonly group: string | undefined,
  ) {
    const where = group === undefined ? "" : ` in the group '${group}'`;
    super(
      `the subscription to '${channel}'${where} was removed, and its messages come no more: subscribe again if they` +
        " are still wanted, or receive on without them",
    );
  }
}

/** How far a question got that was not answered in time: its state in the mailbox of the bot that was asked. */
export type QuestionState = "waiting" | "in_flight" | "returned" | "settled" | "dead" | "expired" | "nobody" | "unknown";

const STATES: Record<QuestionState, string> = {
  waiting: "it is stored, but not delivered yet: is the bot running, and has it credit?",
  in_flight: "it is in flight: wait longer, or check what the bot is doing",
  returned: "the bot returned it, and it will be redelivered",
  settled: "the bot settled it without a reply",
  dead: "the bot's mailbox gave up on it; see its dead letters",
  expired: "it expired before it was settled",
  nobody: "it is in no mailbox: nobody is subscribed to that channel, or the bot was removed",
  unknown: "its state is unknown, because the worker does not answer",
};

/** No reply came in time. The message is unaffected: a later reply is an ordinary message. */
export class ReplyTimeout extends BusError {
  constructor(
    readonly messageId: string,
    readonly to: string,
    timeoutSeconds: number,
    readonly state: QuestionState,
  ) {
    super(`no reply from ${to} to message ${messageId} within ${timeoutSeconds} s: ${STATES[state]}`);
  }
}

// ── Keys ────────────────────────────────────────────────────────────────────────────────────────────────

/** A text is not a key, or one of another kind. The text is not repeated, for it may be a secret. */
export class InvalidKey extends BusError {}

/** A file of credentials cannot be read or trusted. */
export class CredentialsError extends BusError {
  constructor(
    readonly path: string,
    reason: string,
  ) {
    super(`credentials ${path}: ${reason}`);
  }
}

/** A worker and a bot did not accept each other, so no frame was sent. */
export class HandshakeError extends BusError {
  constructor(
    readonly url: string,
    reason: string,
  ) {
    super(reason);
  }
}

/** The worker does not take the bot's key: it is unknown there, has expired, or was revoked. */
export class KeyRefused extends HandshakeError {
  constructor(url: string, bot: string) {
    super(
      url,
      `the worker at ${url} refused the key of bot '${bot}': it is unknown there, has expired, or was revoked;` +
        ` whoever runs the worker can make another one: posthouse keys new ${bot}`,
    );
  }
}

/** The worker at the address is not the one of these credentials. */
export class WrongWorker extends HandshakeError {
  constructor(url: string) {
    super(
      url,
      `the worker at ${url} has another key than the one in these credentials, so it is another worker, or` +
        " somebody in its place; nothing was sent to it",
    );
  }
}

/** The worker takes only bots with a key, and this one has none. */
export class KeysRequired extends HandshakeError {
  constructor(url: string) {
    super(
      url,
      `the worker at ${url} takes only bots with a key: name a file of credentials (the option credentials, or` +
        " POSTHOUSE_CREDENTIALS); posthouse keys new makes one",
    );
  }
}

/** The worker has no keys, and a bot with credentials does not talk to it. */
export class KeysUnsupported extends HandshakeError {
  constructor(url: string) {
    super(
      url,
      `the worker at ${url} has no keys, so it may be another than that of these credentials, and nothing was` +
        ' sent to it: start it with mode = "keys" in [security], or connect without credentials',
    );
  }
}

// ── Refusals ────────────────────────────────────────────────────────────────────────────────────────────

/** What a refusal says, of a request or of one message. */
export type Refusal = Pick<ErrorFrame, "code" | "message" | "details" | "retry"> & Pick<ItemError, "retry_after">;

const RETRIED: ReadonlySet<string> = new Set(RetryCode);

/** A call was refused, and nothing of it was stored. */
export class RequestError extends BusError {
  /** What to do, for all errors of a class; the text ends with it. */
  static readonly hint: string = "";
  /** The protocol's code: what a program looks at. Later workers may have others. */
  readonly code: Code | (string & {});
  /** Whether the same call may succeed later. */
  readonly retry: boolean;
  /** After how many seconds it may, if the worker says so. */
  readonly retryAfterSeconds: number | undefined;
  /** More for programs, where the code alone is not enough. */
  readonly details: Readonly<Record<string, unknown>>;

  constructor(refusal: Refusal) {
    const { hint } = new.target;
    super(`${refusal.message} [${refusal.code}]${hint && `: ${hint}`}`);
    this.code = refusal.code;
    this.retry = refusal.retry ?? RETRIED.has(refusal.code);
    this.retryAfterSeconds = refusal.retry_after ?? undefined;
    this.details = refusal.details ?? {};
  }

  /** Return a number of the details; 0 if it is missing. */
  protected number(name: string): number {
    const value = this.details[name];
    return typeof value === "number" ? value : 0;
  }
}

/** No bot has that name or id. */
export class UnknownBot extends RequestError {
  static override readonly hint = "a bot is known once it has connected for the first time";
}

/** The channel does not exist. */
export class UnknownChannel extends RequestError {
  static override readonly hint = "a channel is created when it is first used";
}

/** Something does not exist. */
export class NotFound extends RequestError {}

/** The bot's name or id belongs to another. */
export class BotConflict extends RequestError {
  static override readonly hint = "connect without botId, or with the id that the name has";
}

/** The call contradicts what is stored. */
export class Conflict extends RequestError {}

/** A message that was to be settled is no longer in flight for this bot: it was not changed. */
export class NotInFlight extends Conflict {}

/** A key has another revision than was expected. Nothing was written. */
export class RevisionConflict extends Conflict {
  /** The revision that the key has; 0 means that it does not exist. */
  get revision(): number {
    return this.number("revision");
  }
}

/** A seq is of another log than the worker's, such as one that an earlier backup has replaced. */
export class LogReplaced extends Conflict {
  /** Both logs have the same messages up to here, 0 if they have none in common: go on after it. */
  get afterSeq(): number {
    return this.number("after_seq");
  }
}

/** The changes of a keyed store after a revision are not known any more: watch it from the beginning. */
export class ChangesForgotten extends Conflict {}

/** A message was not stored: nothing is left of the budget of the thread of the message that it answers. */
export class BudgetSpent extends RequestError {}

/** The body is not JSON that every receiver can decode. */
export class InvalidBody extends RequestError {
  static override readonly hint = "send finite numbers, valid text, and at most 100 levels";
}

/** The call has a value that cannot be used. */
export class BadRequest extends RequestError {}

/** A value, a body or a frame exceeds its limit. It is refused, never truncated. */
export class TooLarge extends RequestError {
  static override readonly hint = "put the data elsewhere and send its name";
}

/** A limit was reached. */
export class LimitReached extends RequestError {
  static override readonly hint: string = "wait a moment and send it again";
}

/** A keyed store has as many keys as are allowed; those that exist can be written. */
export class TooManyKeys extends LimitReached {
  static override readonly hint = "delete keys, or let the worker have more";
}

/** The worker's disk is full. */
export class StorageFull extends RequestError {
  static override readonly hint = "make room on the worker's disk; it then continues by itself";
}

/** The bot is not allowed to do that. */
export class Forbidden extends RequestError {}

/** The key of the bot's connection was revoked, or has expired, and its session ended. */
export class Revoked extends RequestError {
  static override readonly hint = "whoever runs the worker can make another key";
}

/** Another bot holds the run, or nobody does. */
export class Fenced extends RequestError {}

/** The status cannot follow the stored one. */
export class InvalidTransition extends Conflict {}

/** The worker speaks other versions of the protocol. */
export class UnsupportedProtocol extends RequestError {
  static override readonly hint = "install matching versions of client and worker";
}

type Kind = new (refusal: Refusal) => RequestError;

const BY_NAME = new Map<unknown, Kind>([
  ["revision_conflict", RevisionConflict],
  ["changes_forgotten", ChangesForgotten],
  ["log_replaced", LogReplaced],
  ["too_many_keys", TooManyKeys],
]);

const BY_CODE: Partial<Record<string, Kind>> = {
  bad_request: BadRequest,
  bot_conflict: BotConflict,
  budget_spent: BudgetSpent,
  busy: LimitReached,
  conflict: Conflict,
  fenced: Fenced,
  forbidden: Forbidden,
  invalid_body: InvalidBody,
  invalid_transition: InvalidTransition,
  mailbox_full: LimitReached,
  not_found: NotFound,
  rate_limited: LimitReached,
  revoked: Revoked,
  storage_full: StorageFull,
  too_large: TooLarge,
  unknown_bot: UnknownBot,
  unknown_channel: UnknownChannel,
  unsupported_protocol: UnsupportedProtocol,
} satisfies Partial<Record<Code, Kind>>;

/** @internal Return the error that a worker reports: by the name in its details, otherwise by its code. */
export function requestError(refusal: Refusal): RequestError {
  const kind = BY_NAME.get(refusal.details?.["error"]) ?? BY_CODE[refusal.code] ?? RequestError;
  return new kind(refusal);
}
