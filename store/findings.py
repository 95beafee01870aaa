"""What a check of a store finds, in words: the same in every backend.

Owns what counts as damage of the log and of a mailbox, and that findings stay readable: at most a hundred of a
kind, each one line that any terminal can show.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from bus.model.records import WORKER_ID
from bus.model.repository import UnsettledState

__all__ = ["LogFindings", "Progress", "ReadEntry", "add_findings", "mailbox_faults", "unsettled_seqs"]

_FINDINGS_A_KIND = 100
"""Findings of one kind that are listed; the rest are counted. Nobody reads a thousand lines."""

_decode_unsettled = msgspec.json.Decoder(tuple[UnsettledState, ...]).decode
_decode_floors = msgspec.json.Decoder(dict[str, int]).decode


class Progress(NamedTuple):
    """The part being read, and how much of it is done; `total` is None if unknown."""

    part: str
    done: int = 0
    total: int | None = None


class ReadEntry(NamedTuple):
    """What is kept of a message that was read; `is_astray` if its recipient is not of its type."""

    seq: int
    is_intact: bool
    sender: str
    recipient: str | None
    channel: str | None
    is_astray: bool


class LogFindings:
    """The log, whose messages are noted in the order of their seqs: the faulty ones, and the names in it."""

    def __init__(self) -> None:
        self.count = 0
        self._next: int | None = None
        self._unreadable: list[tuple[int, int]] = []
        self._altered: list[tuple[int, int]] = []
        self._astray: list[tuple[int, int]] = []
        self._holes: list[tuple[int, int]] = []
        self._named: dict[tuple[str, str | None], int] = {}
        """The senders, recipients and channels, each with the first message that names it."""

    def __repr__(self) -> str:
        return f"<LogFindings count={self.count}>"

    def note(self, entries: Iterable[ReadEntry]) -> None:
        """Note messages that were read."""
        for seq, is_intact, sender, recipient, channel, is_astray in entries:
            self._see(seq)
            self.count += 1
            if not is_intact:
                _add(self._altered, seq)
            elif is_astray:
                _add(self._astray, seq)
            else:
                self._named.setdefault(("sender", sender), seq)
                self._named.setdefault(("recipient", recipient) if channel is None else ("channel", channel), seq)

    def note_unreadable(self, seq: int) -> None:
        """Note a message that cannot be read."""
        self._see(seq)
        _add(self._unreadable, seq)

    def damage(self) -> Iterator[list[str]]:
        """Yield the findings of each kind that are damage."""
        yield _described(self._unreadable, "cannot be read")
        yield _described(self._altered, "not as stored: the checksum differs")
        yield _described(self._astray, "with a recipient that is not of its type")

    def holes(self) -> list[str]:
        """Return the seqs that are not there, which may have been removed."""
        return _described(self._holes, "not in the log")

    def unknown(self, bots: Collection[str], channels: Collection[str]) -> list[str]:
        """Return names of unknown bots and channels. The log outlives what it names, so these are only warnings."""
        known = {"sender": {*bots, WORKER_ID}, "recipient": bots, "channel": channels}
        return [
            f"message {seq} has the unknown {what} {name!r}"
            for (what, name), seq in self._named.items()
            if name not in known[what]
        ]

    def _see(self, seq: int) -> None:
        if self._next is not None and seq > self._next:
            self._holes.append((self._next, seq - 1))
        self._next = seq + 1


def mailbox_faults(row: Sequence[Any], last_seq: int, is_there: Callable[[int], bool]) -> Iterator[str]:
    """Yield what is wrong with the place of a mailbox, which is a row of `store.seals`."""
    _, position, unsettled_json, floors_json = row[:4]
    try:
        unsettled, floors = _decode_unsettled(unsettled_json), _decode_floors(floors_json)
        furthest = max(int(position), *floors.values(), 0)
    except (ValueError, TypeError, RecursionError) as error:
        yield f"cannot be read: {error}"
        return
    if furthest > last_seq:
        yield f"is at message {furthest}, beyond the log's last one, {last_seq}"
    for unsettled_message in unsettled:
        if not is_there(unsettled_message.seq):
            yield f"has the unsettled message {unsettled_message.seq}, which is missing"


def unsettled_seqs(row: Sequence[Any]) -> list[int]:
    """Return the messages that a mailbox has not settled; none if that cannot be read."""
    try:
        return [message.seq for message in _decode_unsettled(row[2])]
    except (ValueError, RecursionError):
        return []


def add_findings(findings: list[str], found: Sequence[str]) -> None:
    """Add findings of one kind."""
    findings += ["".join(c if c.isprintable() else "\ufffd" for c in text) for text in found[:_FINDINGS_A_KIND]]
    if len(found) > _FINDINGS_A_KIND:
        findings.append(f"and {len(found) - _FINDINGS_A_KIND} more like the last")


def _add(spans: list[tuple[int, int]], seq: int) -> None:
    """Add a seq, in ascending order; adjacent seqs are one finding."""
    if spans and spans[-1][1] == seq - 1:
        spans[-1] = (spans[-1][0], seq)
    else:
        spans.append((seq, seq))


def _described(spans: Iterable[tuple[int, int]], fault: str) -> list[str]:
    return [f"message {a}: {fault}" if a == b else f"messages {a} to {b}: {fault}" for a, b in spans]
