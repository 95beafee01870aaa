"""How a worker logs: JSON, one object a line, or lines for people, on standard error, which may fail.

Owns the form of an entry. Nothing here raises: an entry that cannot be rendered is replaced by one that says so.
"""

from __future__ import annotations

import atexit
import json
import logging
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from ..settings import Log
from .log_stream import LogStream, hold_standard_descriptors
from .repeats import Repeats

__all__ = ["ForPeople", "WorkerLog"]

_ENTRY: Sequence[Processor] = (
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
)


class _Lines:
    """Writes rendered lines, of any level."""

    def __init__(self, stream: LogStream) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        self._stream.write(f"{line}\n")

    debug = info = warning = error = critical = exception = msg


_LEVELS = {name.lower(): level for name, level in logging.getLevelNamesMapping().items()} | {
    "exception": logging.ERROR,
    "msg": logging.INFO,
}
"""The levels of structlog's methods."""


class ForPeople(structlog.dev.ConsoleRenderer):
    """Renders lines for people; what a terminal would interpret is escaped as in JSON."""

    def __call__(self, logger: WrappedLogger, name: str, event_dict: EventDict) -> str:
        """Return the line of an entry."""
        shown = {key: _escaped(value) if isinstance(value, str) else value for key, value in event_dict.items()}
        return super().__call__(logger, name, shown)


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


class WorkerLog:
    """The log of this process until it ends: everything written to `sys.stderr` goes through it."""

    def __init__(self) -> None:
        hold_standard_descriptors()
        self._render: Processor = structlog.processors.JSONRenderer()
        self._least = logging.INFO
        self._repeats = Repeats()
        self._lock = threading.Lock()
        self._stream = LogStream(2, lost=self._lost_line, idle=self._write_repeats)
        sys.stderr = self._stream
        atexit.register(self.finish)

    def __repr__(self) -> str:
        return f"<WorkerLog {self._stream!r}>"

    def configure(self, settings: Log) -> None:
        """Apply the log settings."""
        for_people = settings.format == "console" or (settings.format == "auto" and self._stream.isatty())
        self._render = ForPeople() if for_people else structlog.processors.JSONRenderer()
        self._least = logging.getLevelNamesMapping()[settings.level.upper()]
        structlog.configure(
            processors=[self._process],
            # Loggers keep this one for good, and the level may change: `_process` looks at it.
            wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
            logger_factory=lambda *names: _Lines(self._stream),
            cache_logger_on_first_use=True,
        )

    def finish(self) -> None:
        """Write the last lines, as far as possible within a second."""
        self._stream.finish()

    def _process(self, logger: WrappedLogger, method: str, entry: EventDict) -> str:
        if _LEVELS[method] < self._least:
            raise structlog.DropEvent
        try:
            with self._lock:
                admitted = self._repeats.admit(method, entry, time.monotonic(), _error_of(entry))
        except Exception:
            admitted = True
        if not admitted:
            raise structlog.DropEvent
        return self._line(logger, method, entry)

    def _line(self, logger: WrappedLogger, method: str, entry: EventDict) -> str:
        event = entry.get("event")
        try:
            rendered: Any = entry
            for processor in (*_ENTRY, self._render):
                rendered = processor(logger, method, rendered)
            return str(rendered)
        except Exception as error:
            fault = f"this entry cannot be rendered: {type(error).__name__}"
            return json.dumps(
                {"event": event if isinstance(event, str) else "log", "level": method, "fault": fault}
            )

    def _write_repeats(self, at_end: bool) -> None:
        with self._lock:
            counted = self._repeats.take_due(time.monotonic(), at_end=at_end)
        for entry in counted:
            self._stream.write(self._line(None, entry.pop("level"), entry) + "\n")

    def _lost_line(self, lines: int, reason: str) -> str:
        return self._line(None, "warning", {"event": "log_lost", "lines": lines, "reason": reason}) + "\n"


def _error_of(entry: EventDict) -> BaseException | None:
    error = entry.get("exc_info")
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        return error
    return sys.exc_info()[1] if error else None
