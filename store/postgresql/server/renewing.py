"""Renewing a lease from a thread of its own, with a connection of its own.

A long batch does not delay a renewal, nor does an event loop that is busy for seconds, as when a large log is
loaded. A renewal counts from when it was sent, and only once its commit is answered, which is when it is safe. A
commit that comes with a warning was not waited for, and is followed by an empty one that is. A renewal on its way
is never cancelled: its connection is dropped, also if it takes long, because another server may be the primary now.

A loop that does nothing for a minute will not do anything any more: the lease is left to expire.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import asyncpg

from bus.model.leadership import Candidate, LeaderLease

from .connecting import connect, is_lost, make_safe
from .leadership import renew

__all__ = ["Renewing", "steady_clock"]

_PAUSE_SECONDS_MAX = 1.0
"""Between attempts to reach the primary."""

_NAME = "posthouse lease"
"""The `application_name` of its session."""

_STUCK_SECONDS = 60.0

_FROZEN_TOO: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux's monotonic clock stands still while the machine sleeps; this one does not."""


def steady_clock() -> float:
    """Return seconds of a clock that is never set, and also runs while the process or the machine is frozen."""
    return time.clock_gettime(_FROZEN_TOO)


class Renewing:
    """Renews a lease until it is stopped, or lost; then `lost` is called in the thread, with the reason."""

    def __init__(
        self, url: str, fence: int, candidate: Candidate, lease: LeaderLease, lost: Callable[[str], None]
    ) -> None:
        self._url = url
        self._fence = fence
        self._candidate = candidate
        self._lease = lease
        self._lost = lost
        self.alive_at = steady_clock()
        """When the loop that this lease is for was last seen to do something."""
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(self._renew())
        self._connection: asyncpg.Connection | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<Renewing fence={self._fence} {self._lease} {'stopped' if self._stopped else 'running'}>"

    def stop(self) -> None:
        """Renew no more, and wait for the thread, which ends at once. What is on its way may still arrive."""
        self._stopped = True
        with suppress(RuntimeError):  # the loop is closed: the thread has ended
            self._loop.call_soon_threadsafe(self._drop)
        self._thread.join()

    def _drop(self) -> None:
        # In this order: cancelling a command of a connection asks the server to cancel it, too.
        if self._connection is not None:
            self._connection.terminate()
        self._task.cancel()

    def _run(self) -> None:
        try:
            with suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._task)
        finally:
            self._loop.close()

    async def _renew(self) -> None:
        pause = 0.05
        while not self._stopped:
            try:
                self._connection, *_ = await connect(
                    self._url, self._lease.patience_seconds, application_name=_NAME
                )
                pause = 0.05
                self._lost(await self._renew_by(self._connection))
                return
            except Exception as error:
                if not is_lost(self._connection, error) and not isinstance(error, asyncpg.PostgresError):
                    self._lost(f"the lease cannot be renewed: {error!r}")
                    return
            finally:
                if self._connection is not None:
                    self._connection.terminate()
            await asyncio.sleep(pause)
            pause = min(2 * pause, _PAUSE_SECONDS_MAX)

    async def _renew_by(self, connection: asyncpg.Connection) -> str:
        """Renew until the lease is lost, and return why. Raises if the connection is lost."""
        warnings: list[object] = []
        connection.add_log_listener(lambda _, message: warnings.append(message))
        while True:
            await asyncio.sleep(self._lease.renew_at - steady_clock())
            sent_at = steady_clock()
            if sent_at - self.alive_at > _STUCK_SECONDS:
                return f"the worker has done nothing for {_STUCK_SECONDS:.0f} seconds"
            silence = self._loop.call_later(self._lease.patience_seconds, connection.terminate)
            if not await renew(connection, self._fence, self._candidate.lease_seconds):
                return "another worker has taken over"
            if warnings:
                await make_safe(connection)
                warnings.clear()
            silence.cancel()
            self._lease.confirm(sent_at)
