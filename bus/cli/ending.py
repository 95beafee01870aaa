"""How a command runs and ends: connected briefly, or until a signal.

Owns the exit codes: 0 if a command succeeded, 1 if the worker refused or nobody replied, 2 for wrong usage, 69
(sysexits) if no worker answered, 74 if the output could not be written, 77 if a key or its rights do not allow it,
and 128 plus the signal's number if a signal ended it.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import anyio.abc

from ..bot import Bot, connect
from ..errors import (
    BusError,
    CredentialsError,
    DatabaseDamaged,
    DatabaseInUse,
    DatabaseNewer,
    DatabaseUnusable,
    Forbidden,
    HandshakeError,
    KeyFileUnusable,
    Revoked,
    StoreFailure,
    UnknownBot,
    UnknownChannel,
    WorkerUnavailable,
)
from ..signals import received_signals
from .options import Link
from .streams import (
    EXIT_CONFIG,
    EXIT_DATA,
    EXIT_DENIED,
    EXIT_IN_USE,
    EXIT_OUTPUT,
    EXIT_REFUSED,
    EXIT_SIGNAL,
    EXIT_UNAVAILABLE,
    Signals,
    output_failed,
    show_error,
)

__all__ = [
    "Impossible",
    "ask",
    "code_of",
    "first",
    "open_bot",
    "run",
    "serve",
    "until_signal",
]

T = TypeVar("T")


class Impossible(Exception):
    """The request cannot be carried out, as a command found out from the worker's answers; the text says why."""


class _Shown(logging.Handler):
    """Shows the client's warnings, each as a line of the command."""

    def emit(self, record: logging.LogRecord) -> None:
        show_error(record.getMessage())


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run a command's work; an error that ends it becomes one line and an exit code.

    The code is determined inside the handlers and raised outside of them: early releases of Python 3.11 lose a
    SystemExit that is raised in an `except*` block.
    """
    client = logging.getLogger("posthouse.client")
    if not client.handlers:
        client.addHandler(_Shown(logging.WARNING))
    code = 0
    try:
        return anyio.run(work)
    except* (BusError, Impossible, StoreFailure) as errors:
        error = first(errors)
        show_error(_in_words(error))
        code = code_of(error)
    except* OSError as errors:
        error = first(errors)
        assert isinstance(error, OSError)
        code = output_failed(error)
    except* KeyboardInterrupt:
        Signals.ended = True
        code = EXIT_SIGNAL + signal.SIGINT
    sys.exit(code)


_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (WorkerUnavailable, EXIT_UNAVAILABLE),
    (CredentialsError, EXIT_DENIED),
    (Forbidden, EXIT_DENIED),
    (HandshakeError, EXIT_DENIED),
    (Revoked, EXIT_DENIED),
    (KeyFileUnusable, EXIT_CONFIG),
    (DatabaseInUse, EXIT_IN_USE),
    (DatabaseUnusable, EXIT_CONFIG),
    (DatabaseDamaged, EXIT_DATA),
    (DatabaseNewer, EXIT_DATA),
    (StoreFailure, EXIT_OUTPUT),
)
"""The exit code of each error; of all others it is EXIT_REFUSED."""


def _in_words(error: BaseException) -> str:
    """Return what an error says, and where to look for a name that nobody has."""
    match error:
        case UnknownChannel():
            return f"{error}; see 'posthouse channels'"
        case UnknownBot() if "group" in str(error):
            return f"{error}; see 'posthouse bots' and 'posthouse channels'"
        case UnknownBot():
            return f"{error}; see 'posthouse bots'"
    return str(error)


def code_of(error: BaseException) -> int:
    """Return the exit code of a command that an error ended."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), EXIT_REFUSED)


def first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error in a group, and in the groups in it."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def until_signal(work: Callable[[], Awaitable[None]]) -> int | None:
    """Work until done, or until SIGINT, SIGTERM or SIGHUP cancels it; then return the signal's number."""
    received: int | None = None

    async def watch(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        nonlocal received
        with received_signals("SIGINT", "SIGTERM", "SIGHUP") as signals:
            task_status.started()
            async for number in signals:
                received = number
                Signals.ended = True
                tasks.cancel_scope.cancel()
                return

    async with anyio.create_task_group() as tasks:
        await tasks.start(watch)
        await work()
        tasks.cancel_scope.cancel()
    return received


def serve(work: Callable[[], Awaitable[None]]) -> None:
    """Run the work of a command that serves: SIGINT and SIGTERM are how it ends, and no failure."""
    number = run(lambda: until_signal(work))
    if number not in (None, signal.SIGINT, signal.SIGTERM):
        sys.exit(EXIT_SIGNAL + number)


def ask(link: Link, question: Callable[[Bot], Awaitable[T]]) -> T:
    """Connect, and make a request. The session gets no messages from the bot's mailbox."""

    async def connected() -> T:
        async with open_bot(link, max_in_flight=0) as bot:
            return await question(bot)

    return run(connected)


def open_bot(link: Link, *, max_in_flight: int, tap_url: str | None = None) -> Bot:
    """Return the bot that a command acts as, not connected yet."""
    return connect(
        link.urls,
        tap_url=tap_url,
        bot=link.name or None,
        credentials=link.file,
        max_in_flight=max_in_flight,
        timeout=link.patience.for_answer,
        wait=link.patience.for_worker,
        read_only=link.read_only,
    )
