"""Signals that end a program gracefully, if they can be received at all."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager

import anyio

__all__ = ["received_signals"]


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


async def _never() -> AsyncIterator[signal.Signals]:
    await anyio.sleep_forever()
    yield signal.SIGINT
