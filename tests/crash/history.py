"""What clients did and saw, event by event: the evidence that the checker judges by.

Owns the records and the file they are appended to, one JSON line each. A client writes down what it is about to do
before it sends it (`Invoke`), and then what came of it: `Ok`, `Fail` where it was certainly refused, or `Unknown`
where no answer came, because the worker was killed or the time ran out. An `Invoke` that nothing follows is unknown
too. So the order of lines is an order in real time: what was answered before something else was invoked stands
before it.

The file must not lie on what is being broken, and this process must outlive the worker.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import msgspec

__all__ = [
    "ENDINGS",
    "Action",
    "Checkpoint",
    "Commit",
    "Deliver",
    "Delivery",
    "Event",
    "Fail",
    "Final",
    "Hello",
    "Invoke",
    "Mark",
    "Ok",
    "Publish",
    "ReadRun",
    "Recorder",
    "RunState",
    "Sent",
    "Settle",
    "Stored",
    "Subscribe",
    "Unknown",
    "Unsubscribe",
    "digest",
    "read_history",
]


def digest(body: Any) -> str:
    """Give what tells one body from another."""
    encoded = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(encoded).hexdigest()[:16]


# ── What a client can do ─────────────────────────────────────────────────────────────────────────────────


class Hello(msgspec.Struct, frozen=True, tag="hello", omit_defaults=True):
    """Open a session. `Ok` has its id and the end of the log as the worker gave it."""

    bot: str


class Sent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message as it was sent: to a bot or to a channel; `body` is its digest."""

    id: str
    body: str
    to: str | None = None
    channel: str | None = None


class Publish(msgspec.Struct, frozen=True, tag="publish", omit_defaults=True):
    """Send messages in one frame.

    `Ok` has a seq each, None for one that was refused or waits until it is due, and the `duplicates` and those
    that are `scheduled` as the worker named them.
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
    """Settle what was delivered in this session. One that is not `confirmed` is never answered."""

    bot: str
    session: str
    how: Literal["ack", "nak", "term"]
    seqs: tuple[int, ...]
    confirmed: bool = False


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


Action = Hello | Publish | Subscribe | Unsubscribe | Settle | Checkpoint | Commit | ReadRun


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
    session: str = ""
    last_seq: int | None = None
    start_seq: int | None = None
    created: bool | None = None
    removed: bool | None = None
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


class Deliver(_Event, frozen=True, tag="deliver"):
    """A bot was handed messages, in this session."""

    bot: str
    session: str
    messages: tuple[Delivery, ...]


class Mark(_Event, frozen=True, tag="mark"):
    """Something happened to the worker: `started`, `killed`, `stopped`, or a fault by its own name."""

    what: str
    note: str = ""


Event = Invoke | Ok | Fail | Unknown | Deliver | Mark

ENDINGS = ("killed", "stopped", "started")
"""Marks after which nothing that was sent before can take effect any more: that worker is gone."""


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
    each mailbox gave up on, `backlogs` how much each one still waits for. A mailbox is named like its bot, or
    `channel/group`.
    """

    messages: tuple[Stored, ...] = ()
    subscriptions: dict[str, tuple[str, ...]] = {}
    dead_letters: dict[str, tuple[int, ...]] = {}
    backlogs: dict[str, int] = {}
    runs: dict[str, RunState] = {}


# ── The file ─────────────────────────────────────────────────────────────────────────────────────────────

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


class Recorder:
    """Appends events to a file; may be used by many threads.

    `incarnation` grows with every mark `started`, which is to be made before the new worker can answer. `endings`
    grows with every mark after which a session of before cannot live: clients look at it while they wait.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.incarnation = 0
        self.endings = 0
        self.events = 0
        self._file = path.open("ab")
        self._lock = threading.Lock()
        self._calls = 0
        self._owners: dict[int, str] = {}
        self._began = time.monotonic()

    def __repr__(self) -> str:
        return f"<Recorder {self.path} events={self.events} incarnation={self.incarnation}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write no more."""
        self._file.close()

    def invoke(self, process: str, action: Action) -> int:
        """Write down what is about to be sent; give the number to name its outcome by."""
        with self._lock:
            self._calls += 1
            if not isinstance(action, Settle) or action.confirmed:
                self._owners[self._calls] = process
            self._write(Invoke(call=self._calls, action=action, **self._now(process)))
            return self._calls

    def ok(self, call: int, **values: Any) -> None:
        """Write down that a call was acknowledged; the values are those of `Ok`."""
        with self._lock:
            self._write(Ok(call=call, **values, **self._now(self._owners.pop(call))))

    def fail(self, call: int, why: str = "") -> None:
        """Write down that a call was refused."""
        with self._lock:
            self._write(Fail(call=call, why=why, **self._now(self._owners.pop(call))))

    def unknown(self, call: int, why: str = "") -> None:
        """Write down that nobody knows what came of a call."""
        with self._lock:
            self._write(Unknown(call=call, why=why, **self._now(self._owners.pop(call))))

    def deliver(self, process: str, *, bot: str, session: str, messages: Sequence[Delivery]) -> None:
        """Write down what a bot was handed."""
        with self._lock:
            now = self._now(process)
            self._write(Deliver(bot=bot, session=session, messages=tuple(messages), **now))

    def mark(self, what: str, note: str = "", *, process: str = "driver") -> None:
        """Write down what happened to the worker."""
        with self._lock:
            self.incarnation += what == "started"
            self.endings += what in ENDINGS
            self._write(Mark(what=what, note=note, **self._now(process)))

    def _now(self, process: str) -> dict[str, Any]:
        at = round(time.monotonic() - self._began, 6)
        return {"at": at, "process": process, "incarnation": self.incarnation}

    def _write(self, event: Event) -> None:
        self.events += 1
        self._file.write(_encoder.encode(event) + b"\n")
        self._file.flush()


def read_history(path: Path) -> list[Event]:
    """Read a file back."""
    return list(_events(path.read_bytes().splitlines()))


def _events(lines: Iterable[bytes]) -> Iterable[Event]:
    return (_decoder.decode(line) for line in lines)
