"""A worker's time as the leader: its lease, what ends it, and how it is handed over.

Owns the end of an open store whose lease is over: nothing more is written, and what is served ends with
OwnershipLost, even if PostgreSQL cannot be reached.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import anyio
from anyio import to_thread

from bus.errors import OwnershipLost, StoreError
from bus.model.leadership import Candidate, Leader, LeaderLease, Sighting

from .leadership import LOOK, STANDING_BY, STANDS_BY, give_up, sighting_of
from .reader import Reader
from .renewing import Renewing, steady_clock
from .writer import Transaction, Writer

__all__ = ["PostgresqlTenure"]

_LOOK_SECONDS = 1.0
"""How often the loop shows that it is alive."""

_HEIR_SECONDS_MAX = 5.0
"""How long a worker that gave its lease up waits for another one that stands by, and has to load the log."""

_HEIR_PAUSE_SECONDS = 0.02


class PostgresqlTenure:
    """See `bus.model.leadership.Tenure`. The lease began after `sent_at`."""

    def __init__(self, url: str, candidate: Candidate, leader: Leader, before: Sighting, *, sent_at: float) -> None:
        self.leader = leader
        self.before = before
        self._lease = LeaderLease(candidate, sent_at)
        self.reader: Reader | None = None
        """What may be asked about it, once the store is open."""
        self._writer: Writer | None = None
        self._reason: str | None = None
        self._wake = anyio.Event()
        self._released = False
        self._loop = asyncio.get_running_loop()
        self._renewing = Renewing(url, leader.fence, candidate, self._lease, self._lost)

    def __repr__(self) -> str:
        return f"<PostgresqlTenure {self.leader} {self._lease}>"

    def is_over(self) -> bool:
        """Return True if nothing may be sent to clients any more."""
        return self._lease.is_over(steady_clock())

    async def guard(self, writer: Writer) -> None:
        """Wait until the lease is lost, and let nothing more be written then; return if it was given up."""
        self._writer = writer
        while not self._released:
            now = steady_clock()
            self._renewing.alive_at = now
            if now >= self._lease.over_at:
                self._reason = self._reason or "its lease is over, and no renewal was confirmed"
            if self._reason is not None:
                writer.abandon(OwnershipLost(f"this worker does not lead any more: {self._reason}"))
                return
            with anyio.move_on_after(min(self._lease.over_at - now, _LOOK_SECONDS)):
                await self._wake.wait()

    async def standing_by(self) -> int:
        """Return how many workers stand by."""
        return 0 if self.reader is None else int((await self.reader.fetch(STANDING_BY, STANDS_BY))[0][0])

    async def release(self) -> int:
        """End the lease, after everything that was written; return how many workers stand by.

        If it is lost, or cannot be given up, it expires. A second call has no effect.
        """
        if self._released:
            return 0
        await self.stop()
        # Before another worker may see that it was given up. What was answered until then was true.
        self._lease.give_up()
        standing_by = 0

        async def operation(transaction: Transaction) -> int:
            await give_up(transaction.connection, self.leader.fence)
            return int(await transaction.connection.fetchval(STANDING_BY, STANDS_BY))

        if self._writer is not None:
            with suppress(StoreError):
                standing_by = await self._writer.run(operation)
        self._released = True
        self._wake.set()
        return standing_by

    async def give_up(self) -> Leader | None:
        """End it; see `Tenure`."""
        if not await self.release() or self.reader is None:
            return None
        with anyio.move_on_after(_HEIR_SECONDS_MAX), suppress(StoreError):
            while True:
                heir = sighting_of(await self.reader.fetch(LOOK)).leader
                if heir is not None and heir.fence > self.leader.fence:
                    return heir
                await anyio.sleep(_HEIR_PAUSE_SECONDS)
        return None

    async def stop(self) -> None:
        """Renew no more."""
        await to_thread.run_sync(self._renewing.stop)

    def _lost(self, reason: str) -> None:
        """Note in the thread of `Renewing` that the lease is lost."""
        self._reason = reason
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._wake.set)
