"""Removing: what leaves mailboxes for good, and the record of it.

Owns what the broker and the log exchange about it. A removal is carried out as a whole or not at all, in one
transaction with its record. Messages keep their places in the log.

Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain

import msgspec

from .counting import Counted
from .keyed import KeyedWrite
from .pages import PageRequest
from .retaining import forgotten
from .wills import will_write

__all__ = [
    "KEPT",
    "CancelDelayed",
    "CloseChannel",
    "CloseGroup",
    "DiscardDeadLetters",
    "EndPattern",
    "EndSubscription",
    "Looked",
    "PurgeMailbox",
    "Remove",
    "RemoveBot",
    "Removed",
    "What",
    "counted",
    "values_in",
    "waiting_in",
]


class DiscardDeadLetters(msgspec.Struct, frozen=True):
    """Remove dead letters of one mailbox for good, by their seqs."""

    mailbox_id: str
    seqs: tuple[int, ...]


class PurgeMailbox(msgspec.Struct, frozen=True):
    """Count what waits in a mailbox. The mailbox's state, which is saved with it, passes over it.

    `unread` has what waits for its first delivery, as a page without limits. `returned` are messages that were
    delivered before, and wait again.
    """

    unread: PageRequest
    returned: int


class CancelDelayed(msgspec.Struct, frozen=True):
    """Remove messages of one sender, by their ids, that are not due yet."""

    sender_bot_id: str
    ids: tuple[str, ...]


class EndSubscription(msgspec.Struct, frozen=True):
    """End a bot's subscription. If it is its own, `waiting` is what waits in its mailbox of the channel.

    With `passes_to`, it belongs to that pattern from now on, and nothing of it is dropped.
    """

    bot_id: str
    channel: str
    waiting: PurgeMailbox | None
    passes_to: str | None = None


class EndPattern(msgspec.Struct, frozen=True):
    """End a bot's subscription to a pattern, with those that came by it, but for those that are `passed`.

    `waiting` is what waits of those that end, if they are the bot's own.
    """

    bot_id: str
    pattern: str
    waiting: PurgeMailbox | None
    passed: Mapping[str, str] = {}


class CloseGroup(msgspec.Struct, frozen=True):
    """Remove a group with its mailbox, its dead letters and the subscriptions of its members."""

    channel: str
    group: str
    waiting: PurgeMailbox
    in_flight: int


class CloseChannel(msgspec.Struct, frozen=True):
    """Remove a channel with its subscriptions and groups; `groups` has what waits in their mailboxes.

    It is not removed, even by force, while a delayed message is for it.
    """

    channel: str
    groups: tuple[PurgeMailbox, ...]


class RemoveBot(msgspec.Struct, frozen=True):
    """Remove a bot with its mailbox, its dead letters, its subscriptions, its keys and its last will.

    It is not removed, even by force, while it has `sessions`, holds runs that have not ended, owns definitions, or
    while a delayed message is from it or for it.
    """

    bot_id: str
    waiting: PurgeMailbox
    sessions: int


KEPT = frozenset({"sessions", "runs", "definitions", "delayed"})
"""What is in the way even with force."""

_WORDS = {
    "waiting": ("waiting message", "waiting messages"),
    "in_flight": ("message in flight", "messages in flight"),
    "runs": ("open run", "open runs"),
    "definitions": ("workflow", "workflows"),
    "delayed": ("delayed message", "delayed messages"),
    "wills": ("last will", "last wills"),
}
"""What is counted, for people, where its name does not say it."""


def counted(counts: Mapping[str, int]) -> str:
    """Return counts in words: "1 waiting message, 2 members"."""
    return ", ".join(f"{count:,} {_words(name)[count != 1]}" for name, count in counts.items() if count)


def _words(name: str) -> tuple[str, str]:
    """Return how one, and how several, of what is counted are called."""
    plural = name.replace("_", " ")
    return _WORDS.get(name, (plural.removesuffix("s"), plural))


What = (
    DiscardDeadLetters
    | PurgeMailbox
    | CancelDelayed
    | EndSubscription
    | EndPattern
    | CloseGroup
    | CloseChannel
    | RemoveBot
)


def waiting_in(what: What | None) -> tuple[PurgeMailbox, ...]:
    """Return what waits in the mailboxes that something to be removed is about."""
    match what:
        case PurgeMailbox():
            return (what,)
        case CloseChannel(groups=groups):
            return groups
        case EndSubscription(waiting=waiting) | EndPattern(waiting=waiting):
            return () if waiting is None else (waiting,)
        case CloseGroup(waiting=waiting) | RemoveBot(waiting=waiting):
            return (waiting,)
        case _:
            return ()


def values_in(what: What | None) -> list[KeyedWrite]:
    """Return what removes the keyed values that go with something: a channel's last value, or a bot's will."""
    match what:
        case CloseChannel(channel):
            return [forgotten(channel)]
        case RemoveBot(bot_id):
            return [will_write(bot_id, None)]
        case _:
            return []


class Remove(msgspec.Struct, frozen=True):
    """Remove something, of a `kind` and a `name` for its record. Answered `Removed`.

    Repeating an `id` changes nothing, and is answered as it was the first time. Where nothing is found, nothing is
    recorded. What waits in mailboxes may be `counted` before. Without `what`, it can only be looked up.
    """

    id: str
    bot_id: str
    bot_name: str
    at: str
    kind: str
    name: str
    what: What | None
    reference: str | None = None
    force: bool = False
    """Whether to remove also what would be in the way."""
    counted: tuple[Counted, ...] = ()
    part_of: str | None = None
    """The command of which this is a part."""

    def carries_out(self, found: Removed) -> bool:
        """Return True if what was found is to be removed, and recorded."""
        is_there = isinstance(self.what, CloseGroup | CloseChannel | RemoveBot) or any(found.counts.values())
        return is_there and not found.is_refused(force=self.force)


class Removed(msgspec.Struct, frozen=True):
    """What a removal did, or would do: how many of each, the seqs of dead letters, the ids of delayed messages.

    That of a bot has its id in `ids`: its messages, which stay, name it.

    `in_the_way` has those of the counts because of which nothing is removed without `force`. `done` is False if
    nothing was changed, also because there was nothing. `again` says that it was done before.
    """

    kind: str
    name: str
    counts: dict[str, int] = {}
    seqs: tuple[int, ...] = ()
    ids: tuple[str, ...] = ()
    in_the_way: dict[str, int] = {}
    done: bool = False
    again: bool = False

    @classmethod
    def of(cls, parts: Sequence[Removed]) -> Removed:
        """Return what the parts of a command did; there must be at least one."""
        counts: Counter[str] = Counter()
        for each in parts:
            counts.update(each.counts)
        return cls(
            parts[0].kind,
            ", ".join(dict.fromkeys(each.name for each in parts)),
            dict(counts),
            tuple(chain.from_iterable(each.seqs for each in parts)),
            tuple(chain.from_iterable(each.ids for each in parts)),
            done=parts[0].done,
        )

    def is_refused(self, *, force: bool) -> bool:
        """Return True if something is in the way."""
        return bool(KEPT & self.in_the_way.keys() if force else self.in_the_way)

    def refusal(self) -> str:
        """Return what is in the way, and what to do about it."""
        kept = ", ".join(_words(name)[1] for name in self.in_the_way if name in KEPT)
        remedy = f"end or remove its {kept} first" if kept else "with force, these are removed as well"
        return f"{self.kind} {self.name} has {counted(self.in_the_way)}: {remedy}"


class Looked(msgspec.Struct, frozen=True):
    """What a removal would do, or did before; and how what waits was `counted`, for the removal itself."""

    removed: Removed
    counted: tuple[Counted, ...] = ()
