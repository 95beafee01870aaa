"""A worker's standard error, which never raises and never blocks the caller.

Owns the descriptor and a thread that writes to it. Lines wait in a bounded queue, so a pipe that nobody reads stops
only that thread. Lines that cannot be written are counted. The count of lines lost to an error (no reader any more,
a full disk) is written before the next line that can be written, and that of lines lost to a full queue when the
queue is empty.

The descriptor stays blocking: it may be shared with other processes, to which O_NONBLOCK would apply too.
"""

from __future__ import annotations

import io
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

__all__ = ["LogStream", "hold_standard_descriptors"]

_LINES_MAX = 10_000
_BYTES_MAX = 4 * 1024 * 1024
"""Limits of the queue: some minutes of a worker that logs a lot."""

_RETRY_SECONDS = 1.0
"""How often a log that could not be written is retried, and repeats are checked."""

_CLOSE_SECONDS = 1.0
"""How long to wait at the end for a reader to take the last lines."""

_GLANCE_SECONDS = 0.1

_STARVED_SECONDS = 10.0
"""How long to wait at the end if lines could be written but the thread gets no processor time."""


def hold_standard_descriptors() -> None:
    """Open those of descriptors 0, 1 and 2 that are closed, so that no database or socket gets their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)


class LogStream(io.TextIOBase):
    """A text stream that accepts every line at once, and drops those that cannot be written.

    `lost` returns the line that says how many were lost, and why. `idle` is called about once a second in the
    writing thread, and once more at the end, with True.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        lost: Callable[[int, str], str],
        idle: Callable[[bool], None] = lambda at_end: None,
    ) -> None:
        self._descriptor = descriptor
        self._lost_line = lost
        self._idle = idle
        self._changed = threading.Condition(threading.RLock())
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._partial = ""
        self._lost = 0
        self._reason = ""
        self._failing = False
        """Whether the last attempt to write failed."""
        self._torn = False
        """Whether a line was written partially: the next one must not continue it."""
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<LogStream {self._descriptor} lines={len(self._queue)} lost={self._lost}>"

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the written text."""
        return "utf-8"

    def fileno(self) -> int:
        """Return the descriptor that is written to."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """Return True, although writing may fail."""
        return True

    def write(self, text: str) -> int:
        """Accept text. Complete lines are written soon, the rest when its line is complete."""
        with self._changed:
            *lines, self._partial = (self._partial + text).split("\n")
            for line in lines:
                self._put(f"{line}\n".encode("utf-8", "backslashreplace"))
        return len(text)

    def finish(self, seconds: float = _CLOSE_SECONDS) -> None:
        """Write what is queued, unless nobody reads it within this time. Later text is not written."""
        if self._partial:
            self.write("\n")
        with self._changed:
            self._closing = True
            self._changed.notify()
        deadline = time.monotonic() + _STARVED_SECONDS
        self._thread.join(seconds)
        while self._thread.is_alive() and time.monotonic() < deadline and self._has_room():
            self._thread.join(_GLANCE_SECONDS)

    def _has_room(self) -> bool:
        return bool(select.select([], [self._descriptor], [], 0)[1])

    def _put(self, line: bytes) -> None:
        if len(self._queue) >= _LINES_MAX or self._queued_bytes + len(line) > _BYTES_MAX:
            self._lose("nobody read it")
        else:
            self._queue.append(line)
            self._queued_bytes += len(line)
            self._changed.notify()

    def _lose(self, reason: str) -> None:
        with self._changed:
            self._lost += 1
            self._reason = reason

    # ── The thread ───────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        ended = False
        while not ended:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing, _RETRY_SECONDS)
            if self._closing:
                self._idle(True)
                ended = True
            self._write_queue()
            if not ended:
                self._idle(False)

    def _write_queue(self) -> None:
        """Write what is queued, and how many lines were lost: first if the last write failed, otherwise last."""
        while True:
            with self._changed:
                line = self._queue.popleft() if self._queue else None
                self._queued_bytes -= len(line or b"")
                lost = self._lost if self._failing or line is None else 0
            if lost and self._write(self._lost_line(lost, self._reason).encode("utf-8", "backslashreplace")):
                with self._changed:
                    self._lost -= lost
            if line is None:
                return
            if (lost and self._failing) or not self._write(line):
                self._lose(self._reason)

    def _write(self, line: bytes) -> bool:
        rest = memoryview(b"\n" + line if self._torn else line)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [])  # another process made it non-blocking
            except OSError as error:
                self._torn = self._torn or len(rest) < len(line)
                self._reason = error.strerror or str(error)
                self._failing = True
                return False
        self._torn = self._failing = False
        return True
