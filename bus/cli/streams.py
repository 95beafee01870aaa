"""The standard streams of a command, output to them, and the exit codes.

Every command loads this, so it imports little.
"""

from __future__ import annotations

import codecs
import errno
import io
import json
import os
import sys
from contextlib import suppress
from typing import Any

import rich_click as click

__all__ = [
    "EXIT_CONFIG",
    "EXIT_DATA",
    "EXIT_DENIED",
    "EXIT_IN_USE",
    "EXIT_OUTPUT",
    "EXIT_REFUSED",
    "EXIT_SIGNAL",
    "EXIT_UNAVAILABLE",
    "Signals",
    "claim_streams",
    "identity",
    "note",
    "output_failed",
    "plain",
    "plain_lines",
    "say",
    "show_error",
    "stream_fault",
]

EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_OUTPUT, EXIT_DENIED, EXIT_SIGNAL = 1, 69, 74, 77, 128

EXIT_DATA, EXIT_IN_USE, EXIT_CONFIG = 65, 75, 78
"""Of commands that work at the files of a worker that is stopped; they are those of `serve`."""


class Signals:
    """Whether a signal ended the command's work."""

    ended = False


def plain(text: str) -> str:
    """Return a text in one line, with JSON escapes for characters that a terminal would interpret."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def plain_lines(text: str) -> str:
    """Return a text with its lines as they are, and each of them as `plain` returns it."""
    return "\n".join(map(plain, text.split("\n")))


def say(text: str = "", *, end: str = "\n") -> None:
    """Print to standard output, and flush."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def note(text: str) -> None:
    """Print a line to standard error; ignore errors if nobody can read it."""
    with suppress(OSError):
        click.echo(plain(text), err=True)


def show_error(text: str) -> None:
    """Print the one line that says what went wrong."""
    note(f"posthouse: {' '.join(text.splitlines())}")


def stream_fault(error: OSError) -> str:
    """Return what is wrong with a standard stream, in words."""
    return "it is closed" if error.errno == errno.EBADF else error.strerror or str(error)


def output_failed(error: OSError) -> int:
    """Return the exit code for an error of the output: 0 if its reader has gone.

    Python's remaining output is discarded. Raises the error itself if it is not one of the output.
    """
    if error.errno is None or error.filename is not None:
        raise error
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return 0
    show_error(f"standard output cannot be written: {stream_fault(error)}")
    return EXIT_OUTPUT


def claim_streams() -> None:
    """Make the standard streams usable.

    If one is closed, nothing else, such as a database, may get its number: reading or writing it then fails, except
    that standard error discards its output. Characters that the output cannot encode are escaped as in JSON.
    """
    for number, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDWR)):
        if identity(number) is None:
            os.open(os.devnull, flags)
    sys.stdin = sys.stdin or os.fdopen(0, "r", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stdout.reconfigure(errors="json")  # type: ignore[union-attr]
    encoding = sys.stderr.encoding if sys.stderr else None
    errors = io.BufferedWriter(_Errors(2, "w", closefd=False))
    sys.stderr = io.TextIOWrapper(errors, encoding, "backslashreplace", line_buffering=True, write_through=True)


class _Errors(io.FileIO):
    """Standard error, which ignores errors if nobody can read it."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _escape(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error("json", _escape)


def identity(number: int) -> tuple[int, int] | None:
    """Return what a descriptor leads to; None if it is closed."""
    try:
        found = os.fstat(number)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        return None
    return found.st_dev, found.st_ino
