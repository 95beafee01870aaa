"""How the process of a command begins and ends, with any streams and whenever it is interrupted.

Owns the three standard streams, SIGINT outside the commands' own work, and the exit codes for errors of the output:
0 if the reader has gone, as after `| head`, and 74 (sysexits) if nothing can be written.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Mapping
from importlib import import_module
from types import FrameType
from typing import TYPE_CHECKING, Any

import rich_click as click

from .streams import EXIT_SIGNAL, Signals, claim_streams, identity, output_failed, plain_lines

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

__all__ = ["Entry"]

_BEGINNING = 3
"""So many characters of a command's name say which one is meant."""

_INTERRUPTED = EXIT_SIGNAL + signal.SIGINT


class Entry(click.RichGroup):
    """The group of all commands. In a test's process it leaves streams and signals alone."""

    def __init__(self, *args: Any, elsewhere: Mapping[str, str] | None = None, **options: Any) -> None:
        """Create the group. `elsewhere` maps command names to `module:function`, imported when used."""
        super().__init__(*args, **options)
        self._elsewhere = elsewhere or {}

    def list_commands(self, context: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*super().list_commands(context), *self._elsewhere})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Return a command, imported if necessary."""
        if name not in self._elsewhere:
            return super().get_command(context, name)
        module, _, function = self._elsewhere[name].partition(":")
        command: click.Command = getattr(import_module(module), function)
        return command

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first argument names; otherwise the error names those like it."""
        name, names = args[0], self.list_commands(context)
        if name not in names and not context.resilient_parsing:
            from difflib import get_close_matches  # only a mistake needs it

            begun = [each for each in names if len(name) >= _BEGINNING and each.startswith(name)]
            if near := begun or get_close_matches(name, names):
                raise click.UsageError(f"no such command {name!r}: did you mean {' or '.join(near)}?", context)
        return super().resolve_command(context, args)

    is_program = False
    """Whether this process is the command, and ends with it."""

    @classmethod
    def begin(cls) -> None:
        """Make this process the command. From now on, Ctrl-C ends it without a traceback."""
        cls.is_program = True
        _on_interrupt(_exit_at_once)
        sys.unraisablehook = _not_raised

    def main(self, *args: Any, **options: Any) -> Any:
        """Run the command named by the arguments, and exit with its code."""
        if not self.is_program:
            return super().main(*args, **options)
        claim_streams()
        stdout, before = sys.stdout, identity(sys.stdout.fileno())
        try:
            super().main(*args, **options)
            code: Any = 0
        except SystemExit as ended:
            code = ended.code or 0
        except OSError as error:
            code = output_failed(error)
        if Signals.ended:
            # A thread may still be writing to a reader that reads nothing, and Python would wait for it.
            os._exit(code)
        try:
            sys.stdout.flush()
        except OSError as error:
            code = output_failed(error)
        _on_interrupt(signal.SIG_IGN)  # too late: the command has ended, and Python restores its handlers
        # Libraries that detect that the reader has gone replace the output, and exit with 1.
        replaced = sys.stdout is not stdout or identity(sys.stdout.fileno()) != before
        gc.freeze()  # Python looks for cycles as it ends, which takes a third of the time of a short command
        sys.exit(0 if code == 1 and replaced else code)

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
        except click.ClickException as error:
            vars(error)["message"] = plain_lines(error.message)
            raise
        finally:
            if self.is_program:
                _on_interrupt(_exit_at_once)


def _on_interrupt(handler: Any) -> None:
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a shell ignores it in background jobs
        signal.signal(signal.SIGINT, handler)


def _exit_at_once(number: int, frame: FrameType | None) -> None:
    os._exit(EXIT_SIGNAL + number)


def _not_raised(what: UnraisableHookArgs) -> None:
    """Handle an error of a finalizer or a weak reference's callback. There, Python would lose an interrupt."""
    if issubclass(what.exc_type, KeyboardInterrupt):
        os._exit(_INTERRUPTED)
    sys.__unraisablehook__(what)
