"""The file that a history is written to, one JSON line for each event.

The file must not lie on what is being broken, and this process must outlive the worker.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from .history import (
    ENDINGS,
    Action,
    Deliver,
    Delivery,
    Event,
    Fail,
    Gap,
    Invoke,
    Mark,
    Ok,
    Presence,
    Present,
    Settle,
    Unknown,
)

__all__ = ["Recorder", "read_history"]

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


class Recorder:
    """Appends events to a file; may be used by many threads.

    `incarnation` grows with every mark `started`, which is to be made before the new worker can answer. `endings`
    has the time of every mark after which a session of before cannot live: clients look at it while they wait.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.incarnation = 0
        self.endings: list[float] = []
        self.events = 0
        self.answers = 0
        """How many calls were acknowledged."""
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
            self.answers += 1
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

    def gap(self, process: str, *, bot: str, session: str, from_seq: int, to_seq: int, reason: str) -> None:
        """Write down what a bot was told that it lost."""
        with self._lock:
            now = self._now(process)
            self._write(Gap(bot=bot, session=session, from_seq=from_seq, to_seq=to_seq, reason=reason, **now))

    def present(self, process: str, *, bot: str, session: str, bots: Sequence[str]) -> None:
        """Write down who a bot was told is there."""
        with self._lock:
            self._write(Present(bot=bot, session=session, bots=tuple(bots), **self._now(process)))

    def presence(self, process: str, **told: Any) -> None:
        """Write down what a bot was told of who came or went; the values are those of `Presence`."""
        with self._lock:
            self._write(Presence(**told, **self._now(process)))

    def mark(self, what: str, note: str = "", *, process: str = "driver") -> None:
        """Write down what happened to the worker."""
        with self._lock:
            self.incarnation += what == "started"
            if what in ENDINGS:
                self.endings.append(time.monotonic())
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
