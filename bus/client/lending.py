"""A handler's place among the running ones, which it lends to another while it waits."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from contextvars import ContextVar
from typing import Protocol

import anyio

__all__ = ["Lender", "Slot", "slot", "waiting_for_reply"]


class Lender(Protocol):
    """Owner of the handlers' places."""

    def lend(self) -> None:
        """Let another handler run in place of a waiting one."""

    async def take_back(self) -> None:
        """Reclaim a handler's place, once one is free."""


class Slot:
    """One handler's place among the running ones, lent while the handler waits for replies."""

    def __init__(self, lender: Lender) -> None:
        self._lender = lender
        self._waiting = 0

    async def __aenter__(self) -> None:
        self._waiting += 1
        if self._waiting == 1:
            self._lender.lend()

    async def __aexit__(self, *_: object) -> None:
        self._waiting -= 1
        if self._waiting == 0:
            # Shielded, because a handler cancelled here would otherwise end with a place that it does not hold.
            with anyio.CancelScope(shield=True):
                await self._lender.take_back()


slot: ContextVar[Slot | None] = ContextVar("posthouse_slot", default=None)
"""The slot of the handler that runs in this context."""


def waiting_for_reply() -> AbstractAsyncContextManager[None]:
    """Return a context for waiting in a handler, which lends its place. Outside a handler it does nothing."""
    return slot.get() or nullcontext()
