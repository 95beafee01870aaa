"""How a thread's checkpoints are kept under keys.

Owns keys and rows. There are three kinds of keys, each beginning with its letter and the thread:

- `c/THREAD/NAMESPACE/ID`: a checkpoint. The id is turned over, so that the newest comes first in the order of keys.
- `w/THREAD/NAMESPACE/ID/TASK`: what a task of that checkpoint has written so far.
- `p/THREAD/DIGEST`: a piece of a large value, known by its digest. A value that has not changed since the
  checkpoint before refers to the same pieces, and one to which something was appended shares those, too.

The end of a value that has changed is within the row, so that most checkpoints are one key. It becomes a piece with
the first checkpoint in which the value has stayed as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from ...errors import InvalidValue

__all__ = [
    "CheckpointRow",
    "Cut",
    "KeptChannel",
    "RowParts",
    "Typed",
    "WritesRow",
    "checkpoint_key",
    "joined",
    "piece_key",
    "thread_prefix",
    "writes_key",
]

Typed = tuple[str, bytes]
"""A value as a serializer of LangGraph leaves it."""

FORMAT = 2
"""The first one had no ends of values."""

INLINE_BYTES_MAX = 1024
"""Of a value that is within each checkpoint: a piece of its own would take about as much."""

ROW_BYTES = 32 * 1024
"""Of what is longer and within a row all the same, because it is new: rows are remembered, and listed."""

PIECE_BYTES = 16 * 1024
"""Of a large value. Each step writes what does not fill one anew, and each read asks for all of them."""

PIECES_MAX = 64
"""Of a value: a larger one has larger pieces, by a power of two, so that few change their places when it grows."""

_DOUBLINGS_MAX = 4
"""Of the size of pieces. Several are read at once, and the worker keeps few answers for one bot."""

_HEAD_BYTES = 8
"""What is kept in front of the pieces: there is the length of a list, which changes when something is appended."""

_PART_CHARACTERS_MAX = {"thread": 120, "namespace": 160, "id": 160, "task": 60}
"""Of a key, which has 512: what is longer is shortened, and made unique by its digest."""

_TURNED_OVER = bytes(range(255, -1, -1))


class KeptChannel(msgspec.Struct, frozen=True, array_like=True):
    """A value: its type, for the serializer; its beginning, or all of it; the digests of the pieces that follow.

    `version` is that of its channel, and `tail` what follows the pieces.
    """

    kind: str
    head: bytes
    pieces: tuple[bytes, ...] = ()
    version: str | int | float | None = None
    tail: bytes = b""


class CheckpointRow(msgspec.Struct, frozen=True, array_like=True):
    """A checkpoint, without the values of its channels, and what they are kept as."""

    format: int
    thread: str
    namespace: str
    id: str
    parent: str | None
    checkpoint: Typed
    metadata: Typed
    channels: dict[str, KeptChannel]

    @property
    def key(self) -> str:
        """Its key."""
        return checkpoint_key(self.thread, self.namespace, self.id)

    def pieces(self) -> set[bytes]:
        """Return the digests of all pieces of its values."""
        return {digest for kept in self.channels.values() for digest in kept.pieces}

    def encode(self) -> bytes:
        """Return it as it is stored."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> CheckpointRow:
        """Return a stored one. Raise InvalidValue for one that a later version wrote."""
        row = msgspec.msgpack.decode(data, type=cls)
        if row.format > FORMAT:
            raise InvalidValue(f"checkpoint {row.id!r}", "a later version of posthouse wrote it: install that")
        return row


class WritesRow(msgspec.Struct, frozen=True, array_like=True):
    """What a task has written, by the index of each write: the channel, and the value."""

    task: str
    path: str
    writes: dict[int, tuple[str, KeptChannel]]

    def pieces(self) -> set[bytes]:
        """Return the digests of all pieces of its values."""
        return {digest for _, kept in self.writes.values() for digest in kept.pieces}

    def after(self, stored: WritesRow) -> WritesRow:
        """Return what is to be stored if something is stored: a write stays, unless its index is negative.

        Those are of errors, interrupts and resumed values, which replace each other.
        """
        stay = {index: write for index, write in stored.writes.items() if index >= 0 or index not in self.writes}
        return msgspec.structs.replace(stored, writes=self.writes | stay)

    def encode(self) -> bytes:
        """Return it as it is stored."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> WritesRow:
        """Return a stored one."""
        return msgspec.msgpack.decode(data, type=cls)


class Cut(NamedTuple):
    """A value that was cut before: what was kept in `pieces` need not get a digest again."""

    data: bytes
    pieces: tuple[bytes, ...]


class RowParts:
    """What a row needs of the values in it: `pieces`, and the room for what is within it."""

    def __init__(self) -> None:
        self.pieces: dict[bytes, bytes] = {}
        self._room = ROW_BYTES

    def __repr__(self) -> str:
        return f"<RowParts {len(self.pieces)} pieces>"

    def add(self, typed: Typed, *, version: str | float | None = None, last: Cut | None = None) -> KeptChannel:
        """Return how a new value is kept."""
        kind, data = typed
        if len(data) <= INLINE_BYTES_MAX or self._takes(len(data)):
            return KeptChannel(kind, data, (), version)
        size = _piece_bytes(len(data))
        end = len(data) - (len(data) - _HEAD_BYTES) % size
        if not self._takes(len(data) - end):
            end = len(data)
        known = last.pieces if last is not None and _piece_bytes(len(last.data)) == size else ()
        digests: list[bytes] = []
        for number, at in enumerate(range(_HEAD_BYTES, end, size)):
            piece = data[at : at + size]
            is_known = last is not None and number < len(known) and last.data[at : at + size] == piece
            digests.append(known[number] if is_known else _digest(piece))
            self.pieces[digests[-1]] = piece
        return KeptChannel(kind, data[:_HEAD_BYTES], tuple(digests), version, data[end:])

    def add_again(self, kept: KeptChannel) -> KeptChannel:
        """Return how a value is kept that did not change: what was within the row before becomes a piece."""
        end = kept.head[_HEAD_BYTES:] + kept.tail  # of a value without pieces all is in its head, otherwise no more
        if len(end) + _HEAD_BYTES <= INLINE_BYTES_MAX:
            return kept
        digest = _digest(end)
        self.pieces[digest] = end
        return KeptChannel(kept.kind, kept.head[:_HEAD_BYTES], (*kept.pieces, digest), kept.version)

    def _takes(self, size_bytes: int) -> bool:
        """Return True, and take the room, if so much may be within the row."""
        if size_bytes > min(PIECE_BYTES, self._room):
            return False
        self._room -= size_bytes
        return True


def thread_prefix(kind: str, thread: str, namespace: str | None = None) -> str:
    """Return how the keys of a kind begin, of a thread, or of one of its namespaces."""
    prefix = f"{kind}/{_part('thread', thread)}/"
    return prefix if namespace is None else f"{prefix}{_part('namespace', namespace)}/"


def checkpoint_key(thread: str, namespace: str, id: str) -> str:
    """Return the key of a checkpoint; of ids, the greater one has the key that comes first."""
    return thread_prefix("c", thread, namespace) + _turned_over(id)


def writes_key(thread: str, namespace: str, id: str, task: str = "") -> str:
    """Return the key of what a task has written, or without a task how those of all tasks of a checkpoint begin."""
    prefix = f"{thread_prefix('w', thread, namespace)}{_turned_over(id)}/"
    return prefix + _part("task", task) if task else prefix


def piece_key(thread: str, digest: bytes) -> str:
    """Return the key of a piece."""
    return thread_prefix("p", thread) + digest.hex()


def joined(kept: KeptChannel, pieces: Mapping[bytes, bytes]) -> Typed:
    """Return a value, of its pieces."""
    return kept.kind, b"".join((kept.head, *(pieces[digest] for digest in kept.pieces), kept.tail))


def _piece_bytes(value_bytes: int) -> int:
    """Return how large the pieces of a value are."""
    return PIECE_BYTES << min((value_bytes // (PIECE_BYTES * PIECES_MAX)).bit_length(), _DOUBLINGS_MAX)


def _digest(piece: bytes) -> bytes:
    return blake2b(piece, digest_size=16).digest()


def _turned_over(id: str) -> str:
    """Return a text whose order is the opposite of that of ids, by code points; the `g` comes after all digits."""
    return _shortened(id.encode().translate(_TURNED_OVER).hex() + "g", "id")


def _part(name: str, text: str) -> str:
    """Return a part of a key, without a slash."""
    return _shortened(quote(text, safe=":|@"), name)


def _shortened(text: str, name: str) -> str:
    most = _PART_CHARACTERS_MAX[name]
    if len(text) <= most:
        return text
    digest = blake2b(text.encode(), digest_size=16).hexdigest()
    return f"{text[: most - len(digest) - 1]}!{digest}"
