"""A connection of a browser or a program: it is closed if the head of a request is not complete in time.

The server itself limits only the time between two requests, up to the first byte of the second one. Without this, a
few hundred silent connections, of anybody who reaches the page, would keep everybody else away for good.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["IDLE_SECONDS", "TimedConnection"]

IDLE_SECONDS = 75
"""As long as a connection may wait for its next request."""

_HEAD_SECONDS = 20.0
"""For the head of the first request."""


class TimedConnection(H11Protocol):
    """A connection with a limit to how long it may be silent."""

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._wait(_HEAD_SECONDS)

    def on_response_complete(self) -> None:
        """Wait for the next one."""
        self._wait(IDLE_SECONDS)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        if self._head is not None:
            self._head.cancel()
        super().connection_lost(exc)

    def _wait(self, seconds: float) -> None:
        if self._head is not None:
            self._head.cancel()
        self._head = self.loop.call_later(seconds, self._look)

    def _look(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
