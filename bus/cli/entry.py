"""How the process of a command begins and ends, whatever its streams are and whenever it is interrupted.

Owns the three standard streams, SIGINT outside of the commands' own work, and what becomes of an error of the
output: 0 where the reader has gone, as after `| head`, and 74 (sysexits) where nothing can be written.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from types import FrameType
from typing import Any

import rich_click as click

from .ending import EXIT_SIGNAL, Signals, output_failed

__all__ = ["Entry", "claim_streams"]

_INTERRUPTED = EXIT_SIGNAL + signal.SIGINT


class Entry(click.RichGroup):
    """The command that all others are in. Within a test's own process it leaves streams and signals alone."""

    is_program = False
    """Whether this process is the command, and ends with it."""

    @classmethod
    def begin(cls) -> None:
        """Make this process the command. From here on, Ctrl-C ends it without a traceback."""
        cls.is_program = True
        _on_interrupt(_exit_at_once)

    def main(self, *args: Any, **options: Any) -> Any:
        """Run the command that the arguments name, and exit with its code."""
        if not self.is_program:
            return super().main(*args, **options)
        claim_streams()
        before = _identity(sys.stdout.fileno())
        try:
            super().main(*args, **options)
            code: Any = 0
        except SystemExit as ended:
            code = ended.code or 0
        except OSError as error:
            code = output_failed(error)
        if Signals.ended:
            # A thread may still be writing to a reader that takes nothing, and would be waited for.
            os._exit(code)
        try:
            sys.stdout.flush()
        except OSError as error:
            code = output_failed(error)
        _on_interrupt(signal.SIG_IGN)  # too late: the command has ended, and Python takes its handlers down
        # Libraries that notice by themselves that the reader has gone replace the output, and exit with 1.
        sys.exit(0 if code == 1 and _identity(sys.stdout.fileno()) != before else code)

    def invoke(self, context: click.Context) -> Any:
        """Run the command itself."""
        if self.is_program:
            _on_interrupt(signal.default_int_handler)
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            Signals.ended = True
            sys.exit(_INTERRUPTED)
        except OSError as error:
            sys.exit(output_failed(error))
        finally:
            if self.is_program:
                _on_interrupt(_exit_at_once)


def _on_interrupt(handler: Any) -> None:
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # in the background, a shell has it ignored
        signal.signal(signal.SIGINT, handler)


def _exit_at_once(number: int, frame: FrameType | None) -> None:
    os._exit(EXIT_SIGNAL + number)


def claim_streams() -> None:
    """Make the standard streams ones that can be used.

    Where one is closed, nothing else may get its number, a database for instance: reading it, or writing it, fails
    then, but for standard error, which goes nowhere. And what the output cannot encode is escaped as in JSON.
    """
    for number, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDWR)):
        if _identity(number) is None:
            os.open(os.devnull, flags)
    sys.stdin = sys.stdin or os.fdopen(0, "r", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stdout.reconfigure(errors="json")  # type: ignore[union-attr]
    encoding = sys.stderr.encoding if sys.stderr else None
    errors = io.BufferedWriter(_Errors(2, "w", closefd=False))
    sys.stderr = io.TextIOWrapper(errors, encoding, "backslashreplace", line_buffering=True, write_through=True)


class _Errors(io.FileIO):
    """Standard error. Where nobody can read it, nothing is the worse for that."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _identity(number: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(number)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        return None
    return found.st_dev, found.st_ino
