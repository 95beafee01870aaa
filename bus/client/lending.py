"""A handler's place among the running ones, which it lends to another while it waits.

Owns also when nobody is at work on the handler's message: while all runs that the handler has opened only wait.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from contextvars import ContextVar
from typing import Protocol

import anyio

from .message import Message

__all__ = ["Lender", "Slot", "slot", "waiting_for_reply"]


class Lender(Protocol):
    """Owner of the handlers' places."""

    def lend(self) -> None:
        """Let another handler run in place of a waiting one."""

    async def take_back(self) -> None:
        """Reclaim a handler's place, once one is free."""

    def park(self, message: Message | None) -> bool:
        """Let a message wait outside the credit; return False if that cannot be."""

    def unpark(self, message: Message | None) -> None:
        """Note that work on a message goes on."""

    def note_idle(self, slot: Slot, idle: bool) -> None:
        """Note whether a handler only waits, in its runs."""


class Slot:
    """One handler's place among the running ones, lent while it waits for replies; it may have no message.

    `scope` is the one in which the handler runs.
    """

    def __init__(self, lender: Lender, message: Message | None, scope: anyio.CancelScope) -> None:
        self._lender = lender
        self._message = message
        self._scope = scope
        self._waiting = 0
        self._runs = 0
        self._resting = 0
        self._idle = False
        self._parked = False

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

    def run_opened(self) -> None:
        """Note that the handler opens a run."""
        self._runs += 1
        self._look()

    def run_closed(self) -> None:
        """Note that the handler is done with a run, which did not rest."""
        self._runs -= 1

    def run_rests(self) -> None:
        """Note that nothing is done in a run until it is taken again."""
        self._resting += 1
        self._look()

    def run_taken(self) -> None:
        """Note that work in a run goes on."""
        self._resting -= 1
        self._look()

    def let_go(self) -> None:
        """Cancel the handler."""
        self._scope.cancel()

    def _look(self) -> None:
        idle = 0 < self._runs == self._resting
        if idle is not self._idle:
            self._idle = idle
            self._lender.note_idle(self, idle)
        if idle and not self._parked:
            self._parked = self._lender.park(self._message)
        elif self._parked and not idle:
            self._parked = False
            self._lender.unpark(self._message)


slot: ContextVar[Slot | None] = ContextVar("posthouse_slot", default=None)
"""The slot of the handler that runs in this context."""


def waiting_for_reply() -> AbstractAsyncContextManager[None]:
    """Return a context for waiting in a handler, which lends its place. Outside a handler it does nothing."""
    return slot.get() or nullcontext()
