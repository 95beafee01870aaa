"""Erasing: which messages, runs and keyed values contain something, and what becomes of them.

Owns what the broker and the log exchange about it. An erased message keeps its place in the log, with its seq, id,
sender, recipient, type and time. Its body is empty, which no other message's is. Of its headers, only those of the
budget of its thread are left.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import msgspec

from .keyed import KeyedWrite, ValueState
from .removing import Removed

__all__ = [
    "Delayed",
    "Erase",
    "Erased",
    "ErasedValue",
    "FoundContents",
    "FoundRun",
    "FoundValue",
    "Removal",
    "SearchRequest",
    "deletions",
    "erased_values",
    "joined",
]


class SearchRequest(msgspec.Struct, frozen=True):
    """Which part of the store to search, and for what: an id, a text, a header, or a value in bodies.

    With an `id`, the messages and the run that have it. With a `text`, what has it in a body, in headers, in the
    reason of a dead letter, in anything of a run, or in a keyed value or its key. With a `header`, a name and its
    value, messages that have it. With a `path`, names that lead into a body, messages and keyed values that have
    the `value` there. Of texts, ASCII letters of both cases are equal. Values that are bytes are found by their
    keys alone.

    `after` is where the last portion ended: "" at the beginning.
    """

    after: str = ""
    id: str | None = None
    sender_bot_id: str | None = None
    text: str | None = None
    header: tuple[str, str] | None = None
    path: tuple[str, ...] | None = None
    value: str | None = None


class Delayed(msgspec.Struct, frozen=True):
    """A message that has no place in the log yet. An id is its sender's."""

    id: str
    sender_bot_id: str


class FoundRun(msgspec.Struct, frozen=True):
    """A run, and whether it has ended."""

    id: str
    ended: bool


class FoundValue(msgspec.Struct, frozen=True):
    """A keyed value. The last value of a channel is in a store that no client can name (`retaining`)."""

    store: str = msgspec.field(name="kv")
    key: str
    revision: int


class FoundContents(msgspec.Struct, frozen=True):
    """A portion of what was found; `after` is where it ended, or None if that was all.

    `messages` has pairs of seq and id. `looked` is the seq up to which the log was searched.
    """

    messages: list[tuple[int, str]]
    delayed: list[Delayed]
    runs: list[FoundRun]
    after: str | None
    looked: int
    values: list[FoundValue] = []


class Erase(msgspec.Struct, frozen=True):
    """Erase messages, remove delayed ones, runs that have ended, and keyed values. Answered `Erased`.

    A message is left while the run of its id has not ended, because that may need it to go on. A keyed value is
    removed if it still has that revision. The last value of a channel goes with its message. What is not there, or
    erased already, is passed over. The record of it has this `id`, who asked, and a `reference` of theirs.
    Repeating an id changes nothing, and is answered as it was the first time.
    """

    id: str
    bot_id: str
    bot_name: str
    at: str
    seqs: tuple[int, ...] = ()
    delayed: tuple[Delayed, ...] = ()
    runs: tuple[str, ...] = ()
    reference: str | None = None
    values: tuple[FoundValue, ...] = ()
    part_of: str | None = None
    """The command of which this is a part."""


class ErasedValue(msgspec.Struct, frozen=True):
    """A keyed value that was erased. Its key is not recorded: it may say whose it was."""

    store: str = msgspec.field(name="kv")
    revision: int


class Erased(msgspec.Struct, frozen=True):
    """What an erasure did: the messages, delayed messages, runs and keyed values, and the runs that are left.

    Runs are left that have not ended, or that were started by one that may go on; also those for which a message is
    left. `again` says that it was done before.
    """

    seqs: tuple[int, ...] = ()
    delayed: tuple[Delayed, ...] = ()
    runs: tuple[str, ...] = ()
    runs_left: tuple[str, ...] = ()
    again: bool = False
    values: tuple[ErasedValue, ...] = ()

    @classmethod
    def of(cls, parts: Sequence[Erased]) -> Erased:
        """Return what all parts of a command did."""
        return cls(
            tuple(chain.from_iterable(each.seqs for each in parts)),
            tuple(chain.from_iterable(each.delayed for each in parts)),
            tuple(chain.from_iterable(each.runs for each in parts)),
            tuple(dict.fromkeys(chain.from_iterable(each.runs_left for each in parts))),
            bool(parts) and all(each.again for each in parts),
            tuple(chain.from_iterable(each.values for each in parts)),
        )


class Removal(msgspec.Struct, frozen=True):
    """The record of a removal: who removed what, and when.

    `erased` names what was erased, and has no content; or `removed` is what was removed. `scrubbed_at` is the time
    since when nothing of it is left in the files of the database, if that was ensured. `damaged` says that the
    record is not as it was stored.
    """

    number: int
    id: str
    at: str
    bot_id: str
    bot_name: str
    reference: str | None
    erased: Erased
    scrubbed_at: str | None = None
    damaged: bool = False
    removed: Removed | None = None
    part_of: str | None = None
    """The command of which this is a part: those with the same one, of the same bot, are one removal to people."""

    @property
    def command(self) -> tuple[str, str]:
        """What is the same for all parts of a command, and for nothing else."""
        return self.bot_id, self.part_of or self.id


def joined(records: Iterable[Removal]) -> list[Removal]:
    """Return one record for each command, with all that its parts did; it has the number and time of the first."""
    commands: dict[tuple[str, str], list[Removal]] = {}
    for each in records:
        commands.setdefault(each.command, []).append(each)
    return [parts[0] if len(parts) == 1 else _joined(parts) for parts in commands.values()]


def _joined(parts: Sequence[Removal]) -> Removal:
    scrubs = [each.scrubbed_at for each in parts]
    removed = [each.removed for each in parts if each.removed is not None]
    return msgspec.structs.replace(
        parts[0],
        erased=Erased.of([each.erased for each in parts]),
        removed=Removed.of(removed) if removed else None,
        scrubbed_at=None if None in scrubs else max(scrubs, key=str),
        damaged=any(each.damaged for each in parts),
    )


def deletions(values: Iterable[FoundValue], bot_id: str) -> list[KeyedWrite]:
    """Return what removes keyed values, for a bot, if they are still those that were found."""
    return [
        KeyedWrite(
            store=each.store,
            key=each.key,
            state=ValueState.DELETED,
            value=None,
            id=None,
            bot_id=bot_id,
            expected=each.revision,
            keys_max=0,
        )
        for each in values
    ]


def erased_values(values: Iterable[FoundValue], outcomes: Iterable[object]) -> tuple[ErasedValue, ...]:
    """Return which of these values were removed, from what became of each."""
    done = zip(values, outcomes, strict=True)
    return tuple(ErasedValue(each.store, each.revision) for each, outcome in done if isinstance(outcome, int))
