"""Messages on their way into the log, and what became of them.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter

import msgspec

__all__ = ["Added", "Appended", "LogMessage", "Lot", "NewMessage", "Outcome", "each", "lots_of", "outcome_of"]


class NewMessage(msgspec.Struct, frozen=True, gc=False):
    """A checked message that is not in the log yet. `body` and `headers` are JSON as it was sent.

    It is not delivered at or after `expires_at`. With a `due_at` it waits beside the log until then. With
    `known_only` it is looked up by its id and not stored: if it is known, its sender is answered as for any repeat.
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


class Lot(msgspec.Struct, frozen=True, gc=False):
    """Checked messages that differ only in id and body, in order: mostly those of one frame.

    What they share is checked, stored, encoded and delivered once. A single message is a lot of one. The fields are
    those of `NewMessage`.
    """

    ids: Sequence[str]
    bodies: Sequence[bytes]
    sender_bot_id: str
    sender_bot_name: str
    recipient_bot_id: str | None
    recipient_channel: str | None
    message_type: str
    reply_to: str | None
    headers: bytes
    expires_at: str | None = None
    due_at: str | None = None
    known_only: bool = False

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
        return msgspec.structs.replace(self, ids=self.ids[start:end], bodies=self.bodies[start:end])

    def only_known(self) -> Lot:
        """Return the messages as ones that are only to be looked up."""
        return msgspec.structs.replace(self, known_only=True)

    def messages(self) -> Iterator[NewMessage]:
        """Yield the messages one by one."""
        for id, body in zip(self.ids, self.bodies, strict=True):
            yield NewMessage(
                id,
                self.sender_bot_id,
                self.sender_bot_name,
                self.recipient_bot_id,
                self.recipient_channel,
                self.message_type,
                body,
                self.reply_to,
                self.headers,
                self.expires_at,
                self.due_at,
                self.known_only,
            )


def lots_of(messages: Iterable[NewMessage]) -> list[Lot]:
    """Return messages as lots, each of neighbours that differ only in id and body."""
    lots: list[Lot] = []
    for shared, alike in groupby(messages, key=_shared):
        ids, bodies = zip(*((message.id, message.body) for message in alike), strict=True)
        lots.append(Lot(ids, bodies, *shared))
    return lots


_shared = attrgetter(*Lot.__struct_fields__[2:])


class LogMessage(NewMessage, frozen=True, gc=False, kw_only=True):
    """A message in the log. `seq` is its place, `timestamp` the time when it was added."""

    seq: int
    timestamp: str


class Appended(msgspec.Struct, frozen=True, gc=False):
    """All messages of a lot were appended, one after the other from `first_seq` on."""

    first_seq: int


class Added(msgspec.Struct, frozen=True, gc=False):
    """The outcome of one message.

    `seq` is its place, or that of the message that this sender had sent with the same id before (`duplicate`). It
    is None for a message that waits until it is due (`scheduled`), for an id of another sender's message
    (`conflict`), and for an unknown message that was only to be looked up.
    """

    seq: int | None
    duplicate: bool = False
    scheduled: bool = False
    conflict: bool = False


Outcome = Appended | list[Added]
"""What became of a lot: an `Added` for each message where they were not all appended."""


def each(lot: Lot, outcome: Outcome) -> list[Added]:
    """Return what became of each message of a lot."""
    if isinstance(outcome, Appended):
        return [Added(seq) for seq in range(outcome.first_seq, outcome.first_seq + len(lot))]
    return outcome


def outcome_of(added: list[Added]) -> Outcome:
    """Return what became of a lot, from what became of each of its messages."""
    first_seq = added[0].seq
    if first_seq is not None and added == [Added(seq) for seq in range(first_seq, first_seq + len(added))]:
        return Appended(first_seq)
    return added
