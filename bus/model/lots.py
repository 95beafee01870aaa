"""Messages on their way into the log, and what became of them.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from operator import attrgetter

import msgspec

from .budgets import Budget
from .priorities import source_of

__all__ = [
    "DUE_AT_ONCE",
    "Added",
    "Appended",
    "LogMessage",
    "Lot",
    "NewMessage",
    "Outcome",
    "StoredLot",
    "each",
    "joined",
    "lots_of",
    "outcome_of",
    "outcomes_of",
    "stored_lots",
]


DUE_AT_ONCE = "2000-01-01T00:00:00.000000Z"
"""When the worker's events of runs are due: before any other message that waits, whatever the clock says."""


class NewMessage(msgspec.Struct, frozen=True, gc=False):
    """A checked message that is not in the log yet. `body` and `headers` are JSON as it was sent.

    Its id is its sender's: another sender's message with that id is another message. It is not delivered at or
    after `expires_at`. With a `due_at` it waits beside the log until then. With `known_only` it is looked up by its
    id and sender and not stored: if it is known, its sender is answered as for any repeat. It is `tainted` if it
    comes from outside, or answers a message that is. With `untainted_only` it is not stored if it turns out to be.
    With `retain` it becomes the last value of its channel, if it enters the log (`retaining`). A channel's message
    has the normal priority, which is 0 (`priorities`). Until it is stored, `budget` is what its sender gives its
    thread; its headers say what is left after it (`budgets`).
    """

    id: str
    sender_bot_id: str
    sender_bot_name: str
    recipient_bot_id: str | None
    recipient_channel: str | None
    message_type: str
    body: bytes
    reply_to: str | None
    headers: bytes
    expires_at: str | None = None
    due_at: str | None = None
    known_only: bool = False
    tainted: bool = False
    untainted_only: bool = False
    retain: bool = False
    priority: int = 0
    budget: Budget | None = None

    @property
    def source(self) -> str | None:
        """The source of mailboxes that it is of, as `source_of` returns it."""
        return source_of(self.recipient_channel, self.priority)


class Lot(msgspec.Struct, frozen=True, gc=False):
    """Checked messages that differ only in id, body and `reply_to`, in order: mostly those of one frame.

    What they share is checked, stored, encoded and delivered once. A single message is a lot of one. The fields are
    those of `NewMessage`; `reply_tos` is None if they are no replies. Until a lot is stored, `tainted` says only
    whether its sender is external.
    """

    ids: Sequence[str]
    bodies: Sequence[bytes]
    reply_tos: Sequence[str] | None
    sender_bot_id: str
    sender_bot_name: str
    recipient_bot_id: str | None
    recipient_channel: str | None
    message_type: str
    headers: bytes
    expires_at: str | None = None
    due_at: str | None = None
    known_only: bool = False
    tainted: bool = False
    untainted_only: bool = False
    retain: bool = False
    priority: int = 0
    budget: Budget | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def size_bytes(self) -> int:
        """The size of the bodies."""
        return sum(map(len, self.bodies))

    def part(self, start: int, end: int) -> Lot:
        """Return some of the messages, by their indexes."""
        if start == 0 and end == len(self.ids):
            return self
        return self.select(range(start, end))

    def select(self, indexes: Sequence[int]) -> Lot:
        """Return the messages with these indexes."""
        reply_tos = self.reply_tos
        return msgspec.structs.replace(
            self,
            ids=[self.ids[at] for at in indexes],
            bodies=[self.bodies[at] for at in indexes],
            reply_tos=None if reply_tos is None else [reply_tos[at] for at in indexes],
        )

    def only_known(self) -> Lot:
        """Return the messages as ones that are only to be looked up."""
        return msgspec.structs.replace(self, known_only=True)

    def replies(self) -> Sequence[str | None]:
        """Return what each message replies to."""
        return [None] * len(self.ids) if self.reply_tos is None else self.reply_tos

    def messages(self) -> Iterator[NewMessage]:
        """Yield the messages one by one."""
        for id, body, reply_to in zip(self.ids, self.bodies, self.replies(), strict=True):
            yield NewMessage(
                id,
                self.sender_bot_id,
                self.sender_bot_name,
                self.recipient_bot_id,
                self.recipient_channel,
                self.message_type,
                body,
                reply_to,
                self.headers,
                self.expires_at,
                self.due_at,
                self.known_only,
                self.tainted,
                self.untainted_only,
                self.retain,
                self.priority,
                self.budget,
            )


_shared = attrgetter(*Lot.__struct_fields__[3:])


def lots_of(messages: Iterable[NewMessage]) -> list[Lot]:
    """Return messages as lots, each of neighbours that differ only in id, body and what they reply to."""
    lots: list[Lot] = []
    for (are_replies, shared), alike in groupby(messages, lambda each: (each.reply_to is not None, _shared(each))):
        found = list(alike)
        reply_tos = [each.reply_to or "" for each in found] if are_replies else None
        lots.append(Lot([each.id for each in found], [each.body for each in found], reply_tos, *shared))
    return lots


def joined(lots: Iterable[Lot]) -> list[Lot]:
    """Return lots as fewer ones: neighbours whose messages would be one lot in one frame become one."""
    fewer: list[Lot] = []
    for (are_replies, shared), alike in groupby(lots, lambda lot: (lot.reply_tos is not None, _shared(lot))):
        first, *others = alike
        if not others:
            fewer.append(first)
            continue
        parts = (first, *others)
        ids = [id for lot in parts for id in lot.ids]
        bodies = [body for lot in parts for body in lot.bodies]
        reply_tos = [id for lot in parts for id in lot.reply_tos or ()] if are_replies else None
        fewer.append(Lot(ids, bodies, reply_tos, *shared))
    return fewer


class LogMessage(NewMessage, frozen=True, gc=False, kw_only=True):
    """A message in the log. `seq` is its place, `timestamp` the time when it was added."""

    seq: int
    timestamp: str


class StoredLot(msgspec.Struct, frozen=True, gc=False):
    """A lot in the log, or a part of one. `seqs` are its messages' places, in order; they share the timestamp."""

    lot: Lot
    seqs: Sequence[int]
    timestamp: str


def stored_lots(messages: Iterable[LogMessage]) -> list[StoredLot]:
    """Return messages of the log, in the order of their seqs, as lots."""
    stored: list[StoredLot] = []
    for timestamp, alike in groupby(messages, attrgetter("timestamp")):
        found = list(alike)
        seqs = iter([message.seq for message in found])
        stored += [StoredLot(lot, list(islice(seqs, len(lot.ids))), timestamp) for lot in lots_of(found)]
    return stored


class Appended(msgspec.Struct, frozen=True, gc=False):
    """All messages of a lot were appended, one after the other from `first_seq` on.

    All are `tainted`, or none, and all have the same `budget`, if they have one.
    """

    first_seq: int
    tainted: bool = False
    budget: Budget | None = None


class Added(msgspec.Struct, frozen=True, gc=False):
    """The outcome of one message.

    `seq` is its place, or that of the message that this sender had sent with the same id before (`duplicate`). It
    is None for a message that waits until it is due (`scheduled`), for an unknown message that was only to be
    looked up, and for a tainted one that must not be (`forbidden`). `tainted` is that of a message that was
    appended now, and `budget` that of one that was appended, or was not because it is spent.
    """

    seq: int | None
    duplicate: bool = False
    scheduled: bool = False
    tainted: bool = False
    forbidden: bool = False
    budget: Budget | None = None


Outcome = Appended | list[Added]
"""What became of a lot: an `Added` for each message where they were not all appended."""


def each(lot: Lot, outcome: Outcome) -> list[Added]:
    """Return what became of each message of a lot."""
    if isinstance(outcome, Appended):
        seqs = range(outcome.first_seq, outcome.first_seq + len(lot))
        return [Added(seq, tainted=outcome.tainted, budget=outcome.budget) for seq in seqs]
    return outcome


def outcomes_of(parts: Iterable[Lot], lots: Iterable[Lot], outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    """Yield what became of each of the lots that were `joined`, from what became of the fewer ones."""
    remaining = iter(parts)
    for lot, outcome in zip(lots, outcomes, strict=True):
        at, count = 0, len(lot.ids)
        while at < count:
            end = at + len(next(remaining).ids)
            if isinstance(outcome, Appended):
                yield Appended(outcome.first_seq + at, outcome.tainted, outcome.budget)
            else:
                yield outcome[at:end]
            at = end


def outcome_of(added: list[Added]) -> Outcome:
    """Return what became of a lot, from what became of each of its messages."""
    first_seq, tainted, budget = added[0].seq, added[0].tainted, added[0].budget
    if first_seq is None:
        return added
    seqs = range(first_seq, first_seq + len(added))
    alike = [Added(seq, tainted=tainted, budget=budget) for seq in seqs]
    return Appended(first_seq, tainted, budget) if added == alike else added
