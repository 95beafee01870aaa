"""Signals that end a program gracefully: received, if they can be at all, and sent."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager, suppress

import anyio
import anyio.abc

__all__ = ["received_signals", "send_signal"]


@contextmanager
def received_signals(*names: str) -> Iterator[AsyncIterator[signal.Signals]]:
    """Receive those of the signals that this system has.

    Outside the main thread, and with asyncio on Windows, none can be received; there Ctrl-C is a KeyboardInterrupt,
    which cancels the program.
    """
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    with ExitStack() as stack:
        received: AsyncIterator[signal.Signals]
        try:
            received = stack.enter_context(anyio.open_signal_receiver(*numbers))
        except (NotImplementedError, RuntimeError, ValueError):  # asyncio on Windows, trio and uvloop in a thread
            received = _never()
        yield received


def send_signal(process: anyio.abc.Process, number: signal.Signals) -> None:
    """Send a process a signal, unless it has ended.

    `Process.send_signal` first looks whether the process has ended. It then takes the exit code from asyncio, which
    returns 255.
    """
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


async def _never() -> AsyncIterator[signal.Signals]:
    await anyio.sleep_forever()
    yield signal.SIGINT
