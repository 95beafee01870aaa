"""What the core asks the shell to do.

Owns the effects, and `Turn`, which collects them while an event is handled.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from ..mailbox.mailbox import Mailbox
from ..model.keys import Principal
from ..model.repository import PageRequest, Remove, RunSurvey, SurveyRequest
from ..wire.codec import encode
from ..wire.frames import (
    RETRY,
    Ack,
    Code,
    ErrorFrame,
    Extend,
    Hello,
    Nak,
    Ok,
    Query,
    Refusal,
    RequestFrame,
    Subscribe,
    Term,
    Workflow,
)
from .recent import RecentEvents
from .steady import LogTime, Steady

__all__ = [
    "Ask",
    "Count",
    "Effect",
    "EmptyTap",
    "EndPlaces",
    "FindRuns",
    "FindStart",
    "Locate",
    "LookUp",
    "Moment",
    "Note",
    "Read",
    "Reconfigure",
    "Send",
    "Silence",
    "Survey",
    "Tap",
    "Turn",
    "denied",
    "unsent",
]


class Moment(NamedTuple):
    """A point in time: seconds of a monotonic clock, and the wall clock as text."""

    now: float
    wall: str


class Send(NamedTuple):
    """Send a frame to a connection; `seqs` are the messages that it delivers."""

    address: bytes
    frame: bytes
    seqs: tuple[int, ...] = ()


class Tap(NamedTuple):
    """Send a live copy to the tap's listeners."""

    topic: bytes
    frame: bytes


class EmptyTap(NamedTuple):
    """Close the tap, and open it again without its listeners."""

    reason: str


class Silence(NamedTuple):
    """Send nothing more to a connection, until another one has its address: its key has ended."""

    address: bytes


class Note(NamedTuple):
    """Log an event for operators: its name and its fields, without anything that bots say to each other.

    `address`, among the fields, stands for the bot whose session is there if it is bytes; a text is where a
    connection came from.
    """

    event: str
    fields: dict[str, Any]


class Read(NamedTuple):
    """Read a page, and pass it to `Core.page_read`."""

    request: PageRequest


class Count(NamedTuple):
    """Count the direct messages that a page without limits would have, by sender, for `Core.counted`.

    `number` identifies the question in the mailbox's backlog.
    """

    request: PageRequest
    number: int


class LookUp(NamedTuple):
    """Find out what a removal would do, or did before, and pass it to `Core.looked_up`."""

    change: Remove


class Survey(NamedTuple):
    """Read a part of the log, or runs, for retention, and pass it to `Core.surveyed`."""

    request: SurveyRequest | RunSurvey


class Ask(NamedTuple):
    """Answer a query, or carry out a workflow call, from the store."""

    address: bytes
    bot_id: str
    query: Query | Workflow
    principal: Principal | None = None


class Reconfigure(NamedTuple):
    """Read the configuration again, pass it to `Core.configure`, and answer the request."""

    address: bytes
    request: int


class FindStart(NamedTuple):
    """Find the last seq before a time, and pass it to `Core.start_found`."""

    address: bytes
    bot_id: str
    session_id: str
    subscribe: Subscribe
    time: str


class FindRuns(NamedTuple):
    """Read what is known of runs that changed, and pass it to `Core.runs_found`.

    `run_ids` are True for those that somebody else than their holder changed; `slots` asks who is next for theirs.
    Without `run_ids`, it asks who is next for any slot.
    """

    run_ids: Mapping[str, bool]
    slots: bool


class EndPlaces(NamedTuple):
    """Keep no places for these runs: the sessions that claimed them have ended."""

    run_ids: tuple[str, ...]


class Locate(NamedTuple):
    """Find the recipients of messages that a request names, and pass them to `Core.located`.

    A returning client holds these messages, or a settle names them and they are not in flight for its session.
    `mailboxes` are those that the settle changed, to be saved before it is answered.
    """

    address: bytes
    session_id: str
    request: Hello | Ack | Nak | Term | Extend
    seqs: tuple[int, ...]
    mailboxes: tuple[Mailbox, ...] = ()


Effect = (
    Send
    | Silence
    | Tap
    | EmptyTap
    | Note
    | Read
    | Count
    | LookUp
    | Survey
    | Ask
    | FindStart
    | FindRuns
    | EndPlaces
    | Locate
    | Reconfigure
)


def unsent(failed: Send, queue: Iterable[Effect]) -> set[int]:
    """Return the messages that were not sent: those of a failed send, and those queued behind it."""
    sends = [each for each in queue if isinstance(each, Send) and each.address == failed.address]
    return {seq for send in (failed, *sends) for seq in send.seqs}


class Turn:
    """One event's moment, and the effects decided so far, in order."""

    def __init__(self, last_timestamp: str = "") -> None:
        self.moment = Moment(0.0, "")
        self.log_time = LogTime(last_timestamp)
        self.recent = RecentEvents()
        self.noted: tuple[Callable[[Note, Moment], None], ...] = ()
        """Called with each note: some are recorded, or told on a channel, as well as logged."""
        self._steady = Steady()
        self._effects: list[Effect] = []

    def __repr__(self) -> str:
        return f"<Turn {self.moment.wall} effects={len(self._effects)}>"

    def steady(self) -> str:
        """Return the wall-clock time as if the clock had not been set since the start."""
        return self._steady.at(*self.moment)

    def add(self, effect: Effect) -> None:
        """Add an effect."""
        self._effects.append(effect)

    def send(self, address: bytes, frame: msgspec.Struct) -> None:
        """Send a frame."""
        self._effects.append(Send(address, encode(frame)))

    def answer(self, address: bytes, number: int, value: Any) -> None:
        """Answer a request with a value."""
        self.send(address, Ok(request=number, value=msgspec.Raw(encode(value))))

    def note(self, event: str, **fields: Any) -> None:
        """Add an event to be logged for operators."""
        note = Note(event, fields)
        self._effects.append(note)
        for noted in self.noted:
            noted(note, self.moment)

    def refuse(
        self,
        address: bytes,
        code: Code,
        message: str,
        number: int | None,
        details: dict[str, Any] | None = None,
    ) -> None:
        """Refuse a frame."""
        self.note("refused", address=address, code=code, **denied(details))
        self.send(address, _error(code, message, number, details))

    def refuse_request(
        self, address: bytes, request: RequestFrame, error: Refusal, principal: Principal | None
    ) -> None:
        """Refuse a client's frame; a hello by the bot that it names, and with keys by the one whose key it is."""
        key, by = (None, None) if principal is None else (principal.public_key, principal.bot_name)
        if isinstance(request, Hello):
            fields = {"bot": request.bot, "client": request.client, "code": error.code, "key": key, "by": by}
            self.note("session_refused", **fields)
        elif error.code != Code.UNKNOWN_SESSION:  # every client gets that after a restart
            self.note("refused", address=address, code=error.code, key=key, **denied(error.details))
        number = getattr(request, "request", None)
        self.send(address, _error(error.code, error.message, number, error.details))

    def take(self) -> list[Effect]:
        """Return the effects, and clear them."""
        effects, self._effects = self._effects, []
        return effects


def denied(details: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what the log tells of something that was not allowed: what was tried, and on what."""
    details = details or {}
    return {name: details[name] for name in ("action", "object") if name in details}


def _error(code: Code, message: str, number: int | None, details: dict[str, Any] | None = None) -> ErrorFrame:
    return ErrorFrame(code=code, message=message, request=number, retry=code in RETRY, details=details)
