"""What the core asks the shell to do, and the collecting of it.

Owns the effects, and the one place where they gather while an event is decided (`Turn`).

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from ..mailbox.mailbox import Mailbox
from ..model.repository import PageRequest, SurveyRequest
from ..wire.codec import encode
from ..wire.frames import RETRY, Ack, Code, ErrorFrame, Extend, Hello, Nak, Ok, Query, Subscribe, Term, Workflow
from .steady import LogTime, Steady

__all__ = [
    "Ask",
    "Count",
    "Effect",
    "FindStart",
    "Locate",
    "Moment",
    "Read",
    "Send",
    "Survey",
    "Tap",
    "Turn",
    "unsent",
]


class Moment(NamedTuple):
    """A point in time: seconds of a clock that never goes back, and the wall clock as text."""

    now: float
    wall: str


class Send(NamedTuple):
    """Send a frame to a connection; `seqs` are the messages that it delivers."""

    address: bytes
    frame: bytes
    seqs: tuple[int, ...] = ()


class Tap(NamedTuple):
    """Send a live copy to whoever listens."""

    topic: bytes
    frame: bytes


class Read(NamedTuple):
    """Read a page, and give it to `Core.page_read`."""

    request: PageRequest


class Count(NamedTuple):
    """Count what a page without a limit would have, and give it to `Core.counted`.

    `number` is that of the question in its mailbox's backlog.
    """

    request: PageRequest
    number: int


class Survey(NamedTuple):
    """Look through a part of the log for retention, and give it to `Core.surveyed`."""

    request: SurveyRequest


class Ask(NamedTuple):
    """Answer a question, or carry out a workflow call, from the store."""

    address: bytes
    bot_id: str
    query: Query | Workflow


class FindStart(NamedTuple):
    """Find the last seq before a time, and give it to `Core.start_found`."""

    address: bytes
    session_id: str
    subscribe: Subscribe
    time: str


class Locate(NamedTuple):
    """Find out whom messages are for that a request names, and give it to `Core.located`.

    A returning client holds them, or a settle names them and they are not in flight for its session. `mailboxes`
    are those that the settle changed, to be saved before it is answered.
    """

    address: bytes
    session_id: str
    request: Hello | Ack | Nak | Term | Extend
    seqs: tuple[int, ...]
    mailboxes: tuple[Mailbox, ...] = ()


Effect = Send | Tap | Read | Count | Survey | Ask | FindStart | Locate


def unsent(failed: Send, queue: Iterable[Effect]) -> set[int]:
    """Return the messages that nobody was sent: those of a failed send, and those queued behind it."""
    sends = [each for each in queue if isinstance(each, Send) and each.address == failed.address]
    return {seq for send in (failed, *sends) for seq in send.seqs}


class Turn:
    """One event's moment, and the effects that were decided so far, in order."""

    def __init__(self, last_timestamp: str = "") -> None:
        self.moment = Moment(0.0, "")
        self.log_time = LogTime(last_timestamp)
        self._steady = Steady()
        self._effects: list[Effect] = []

    def __repr__(self) -> str:
        return f"<Turn {self.moment.wall} effects={len(self._effects)}>"

    def steady(self) -> str:
        """Return the wall-clock time as if the clock had not been set since the start."""
        return self._steady.at(*self.moment)

    def add(self, effect: Effect) -> None:
        """Decide on an effect."""
        self._effects.append(effect)

    def send(self, address: bytes, frame: msgspec.Struct) -> None:
        """Send a frame."""
        self._effects.append(Send(address, encode(frame)))

    def answer(self, address: bytes, number: int, value: Any) -> None:
        """Answer a request with a value."""
        self.send(address, Ok(request=number, value=msgspec.Raw(encode(value))))

    def refuse(self, address: bytes, code: Code, message: str, number: int | None) -> None:
        """Refuse a frame."""
        self.send(address, ErrorFrame(code=code, message=message, request=number, retry=code in RETRY))

    def take(self) -> list[Effect]:
        """Return what was decided."""
        effects, self._effects = self._effects, []
        return effects
