"""What clients did and saw, event by event: the evidence that the checker judges by.

Owns the records; `recorder` writes them to a file. A client writes down what it is about to do
before it sends it (`Invoke`), and then what came of it: `Ok`, `Fail` where it was certainly refused, or `Unknown`
where no answer came, because the worker was killed or the time ran out. An `Invoke` that nothing follows is unknown
too. So the order of lines is an order in real time: what was answered before something else was invoked stands
before it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

import msgspec

__all__ = [
    "ENDINGS",
    "PULLED_AGAIN_SECONDS",
    "PULLED_LONG",
    "QUORUM_BACK",
    "QUORUM_LOST",
    "Action",
    "Checkpoint",
    "Commit",
    "Deliver",
    "Delivery",
    "Event",
    "Fail",
    "Final",
    "Gap",
    "Hello",
    "Invoke",
    "Mark",
    "Ok",
    "Presence",
    "Present",
    "Publish",
    "ReadRun",
    "Retry",
    "RunState",
    "Sent",
    "Settle",
    "Stored",
    "Subscribe",
    "Unknown",
    "Unsubscribe",
    "digest",
]


def digest(body: Any) -> str:
    """Give what tells one body from another."""
    encoded = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(encoded).hexdigest()[:16]


# ── What a client can do ─────────────────────────────────────────────────────────────────────────────────


class Hello(msgspec.Struct, frozen=True, tag="hello", omit_defaults=True):
    """Open a session. `Ok` has its id and the end of the log as the worker gave it.

    `credit` is the most messages to have in flight, None where that is not to be judged. A client that returns says
    what it `holds` of its earlier sessions, and `Ok` names what is `not_held`.
    """

    bot: str
    credit: int | None = None
    client: str = ""
    holds: tuple[int, ...] = ()


class Sent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message as it was sent: to a bot or to a channel; `body` is its digest, times are in seconds."""

    id: str
    body: str
    to: str | None = None
    channel: str | None = None
    reply_to: str | None = None
    asks: bool = False
    """Whether its first reply is expected in the session that sent it."""
    delay: float = 0.0
    ttl: float | None = None
    priority: str = "normal"
    hops: int | None = None
    """How many messages may follow at most, whatever is left of the thread."""


class Publish(msgspec.Struct, frozen=True, tag="publish", omit_defaults=True):
    """Send messages in one frame.

    `Ok` has a seq each, None for one that was refused or waits until it is due, and the `duplicates`, those that
    are `scheduled`, and those that are `spent`, as nothing was left of their threads, as the worker named them.
    """

    bot: str
    messages: tuple[Sent, ...]


class Subscribe(msgspec.Struct, frozen=True, tag="subscribe", omit_defaults=True):
    """Subscribe a bot, by itself or in a group. `Ok` has start_seq and created.

    `start` is as on the wire, a number being the seq from which on.
    """

    bot: str
    channel: str
    start: Literal["new", "all"] | int = "new"
    echo: bool = False
    group: str | None = None


class Unsubscribe(msgspec.Struct, frozen=True, tag="unsubscribe", omit_defaults=True):
    """End a subscription. `Ok` has `removed`."""

    bot: str
    channel: str


class Settle(msgspec.Struct, frozen=True, tag="settle", omit_defaults=True):
    """Settle what was delivered in this session. One that is not `confirmed` is never answered.

    `Ok` names what the worker has `passed_over`. A nak has a `delay` in seconds.
    """

    bot: str
    session: str
    how: Literal["ack", "nak", "term"]
    seqs: tuple[int, ...]
    confirmed: bool = False
    delay: float = 0.0


class Retry(msgspec.Struct, frozen=True, tag="retry", omit_defaults=True):
    """Put dead letters back into a mailbox. `Ok` has how many were `retried`."""

    bot: str
    mailbox: str
    seqs: tuple[int, ...]


class Checkpoint(msgspec.Struct, frozen=True, tag="checkpoint", omit_defaults=True):
    """Write a run's state. Versions grow by one writer; `step` is a step that is completed with it."""

    run_id: str
    version: int
    step: str | None = None


class Commit(msgspec.Struct, frozen=True, tag="commit", omit_defaults=True):
    """Do all of this in one transaction. `Ok` has the messages' seqs."""

    bot: str
    session: str
    id: str
    messages: tuple[Sent, ...] = ()
    acks: tuple[int, ...] = ()
    checkpoint: Checkpoint | None = None


class ReadRun(msgspec.Struct, frozen=True, tag="read_run", omit_defaults=True):
    """Read a run's state. `Ok` has it."""

    run_id: str


Action = Hello | Publish | Subscribe | Unsubscribe | Settle | Retry | Checkpoint | Commit | ReadRun


class RunState(msgspec.Struct, frozen=True, omit_defaults=True):
    """A run as the worker shows it: the version of its context, and the steps that completed, in their order."""

    version: int
    steps: tuple[str, ...] = ()


# ── Events ───────────────────────────────────────────────────────────────────────────────────────────────


class _Event(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """`at` is in seconds since the recorder began; `incarnation` is how often the worker had been started."""

    at: float
    process: str
    incarnation: int


class Invoke(_Event, frozen=True, tag="invoke"):
    """A client is about to send something. `call` is what its outcome repeats."""

    call: int
    action: Action


class Ok(_Event, frozen=True, tag="ok"):
    """It was acknowledged, with these values."""

    call: int
    seqs: tuple[int | None, ...] = ()
    duplicates: tuple[int, ...] = ()
    scheduled: tuple[int, ...] = ()
    spent: tuple[int, ...] = ()
    session: str = ""
    last_seq: int | None = None
    start_seq: int | None = None
    created: bool | None = None
    removed: bool | None = None
    retried: int | None = None
    passed_over: tuple[int, ...] = ()
    not_held: tuple[int, ...] = ()
    run: RunState | None = None


class Fail(_Event, frozen=True, tag="fail"):
    """It was refused: nothing of it happened."""

    call: int
    why: str = ""


class Unknown(_Event, frozen=True, tag="unknown"):
    """No answer came: it happened, or it did not."""

    call: int
    why: str = ""


class Delivery(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message as it was delivered. `channel` is None for a direct one; `body` is its digest.

    `group` is the one by whose mailbox it came, None for the bot's own.
    """

    seq: int
    id: str
    body: str
    attempt: int
    sender: str
    channel: str | None = None
    group: str | None = None
    reply_to: str | None = None
    priority: str = "normal"
    hops: int | None = None
    """How many messages may follow."""


class _Told(_Event, frozen=True):
    """A bot was told something, in this session."""

    bot: str
    session: str


class Deliver(_Told, frozen=True, tag="deliver"):
    """A bot was handed messages, in this session."""

    messages: tuple[Delivery, ...]


class Gap(_Told, frozen=True, tag="gap"):
    """A bot was told, in this session, that messages between two seqs are lost, both included."""

    from_seq: int
    to_seq: int
    reason: str = "retention"


class Present(_Told, frozen=True, tag="present"):
    """A bot asked who is there, in this session, and was told these bots."""

    bots: tuple[str, ...]


class Presence(_Told, frozen=True, tag="presence"):
    """A bot was told that a session (`of`) of a bot (`about`) came or went, and how many that bot has then."""

    seq: int
    what: str
    about: str
    sessions: int
    of: str


class Mark(_Event, frozen=True, tag="mark"):
    """Something happened to the worker: `started`, `killed`, `stopped`, or a fault by its own name.

    `vanished` is a bot's client that ended without a word, or may have looked so. `expelled` is one that had not
    been silent, and whose session (`note`) the worker knows no more. `broke` is one that came back. Between
    `quorum lost` and `quorum back` nothing can become safe. `led` says which worker a session is with, where there
    are several: the note is the session and the worker's fence.
    """

    what: str
    note: str = ""


Event = Invoke | Ok | Fail | Unknown | Deliver | Gap | Present | Presence | Mark

PULLED_LONG = "long"
"""How the note of a `pulled` cable ends if it is for longer than a session may be silent."""

PULLED_AGAIN_SECONDS = 2.0
"""Pulls that follow one another faster may together keep a client silent for longer than that."""

ENDINGS = ("killed", "stopped", "frozen", "started")
"""Marks after which nothing that was sent before can take effect any more: that worker is gone, or
will be fenced off before it goes on."""

QUORUM_LOST, QUORUM_BACK = "quorum lost", "quorum back"
"""Marks between which no commit can become safe."""


# ── The end ──────────────────────────────────────────────────────────────────────────────────────────────


class Stored(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message in the log. `to` is a bot's name."""

    seq: int
    id: str
    body: str
    sender: str
    to: str | None = None
    channel: str | None = None


class Final(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the worker shows when every mailbox was read until it was empty.

    `messages` is the whole log in seq order; `subscriptions` has each bot's channels, `dead_letters` the seqs that
    each mailbox gave up on with the reason, `backlogs` how much each one still waits for. A mailbox is named like
    its bot, or `channel/group`. `present` has the bots that are connected, if somebody has watched who is.
    """

    messages: tuple[Stored, ...] = ()
    subscriptions: dict[str, tuple[str, ...]] = {}
    dead_letters: dict[str, dict[int, str]] = {}
    backlogs: dict[str, int] = {}
    runs: dict[str, RunState] = {}
    present: tuple[str, ...] = ()
