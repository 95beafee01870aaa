"""Messages that name new channels, in every backend: those on which nothing is stored are not created.

Owns the savepoint that goes back when a channel turns out to be unused; each backend says how it makes a change.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from bus.model.arriving import founding
from bus.model.repository import AddChannel, AddFirstMessages, AddMessages, Outcome

from .statements import Statements
from .subscriptions import subscribe_all

__all__ = ["add_first"]


class _Transaction(Protocol):
    @property
    def last_seq(self) -> int: ...

    def savepoint(self) -> AbstractAsyncContextManager[None]: ...


class _UnusedError(Exception):
    """A channel was created on which no message is stored."""


async def add_first(
    transaction: _Transaction,
    change: AddFirstMessages,
    *,
    run: Statements,
    make: Callable[[AddChannel | AddMessages], Awaitable[Any]],
) -> list[Outcome]:
    """Add messages and the channels that they need, without those on which nothing turns out to be stored."""
    try:
        async with transaction.savepoint():
            for channel in change.channels:
                await make(AddChannel(channel))
            await subscribe_all(run, change.subscriptions, last_seq=transaction.last_seq)
            added: list[Outcome] = await make(AddMessages(change.lots, change.timestamp))
            if (needed := founding(change, added)) is not change:
                raise _UnusedError
            return added
    except _UnusedError:
        return await add_first(transaction, needed, run=run, make=make)
