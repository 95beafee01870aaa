"""Who holds a run, over SQLite: the part of the repository that claims runs, and keeps places for slots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from bus.errors import InvalidTransition, InvalidValue, SlotsTaken
from bus.model.leases import Claimant
from bus.model.openings import RunOpening
from bus.model.records import Claim, Lease, RunStatus, WorkflowRun, timestamp
from bus.model.values import status_value

from .queueing import end_places, find_next
from .schedules import SqliteSchedules

__all__ = ["SqliteHolds"]


class SqliteHolds(SqliteSchedules):
    """The holds of a WorkflowRepository's runs."""

    async def claim_run(
        self,
        run_id: str,
        holder: str,
        lease_seconds: float | None = None,
        *,
        claim_id: str | None = None,
        place_seconds: float | None = None,
        cleans_up: bool = False,
    ) -> Claim:
        """Claim a run that nobody holds, under a lease and with a new fence."""
        opening = RunOpening(
            run_id=run_id,
            workflow="",
            lease_seconds=lease_seconds,
            claim_id=claim_id,
            place_seconds=place_seconds,
            cleans_up=cleans_up,
        )
        claimant = self._claimant(holder, opening)
        claimed = await self._write(lambda connection, now: self.runs.claim(connection, run_id, claimant(now)))
        if isinstance(claimed, SlotsTaken | InvalidTransition):
            raise claimed
        return claimed

    def _claimant(self, holder: str, opening: RunOpening) -> Callable[[str], Claimant]:
        """Return who claims a run, at a time by the clock of runs. Raise InvalidValue."""
        seconds = self._lease_seconds(opening.lease_seconds)
        place = seconds
        if opening.place_seconds is not None:
            place = self._lease_seconds(min(opening.place_seconds, self._rules.lease_seconds_max), "place_seconds")

        def claimant(wall: str) -> Claimant:
            now = self._lease_clock()
            return Claimant(
                holder,
                timestamp(now),
                timestamp(now + seconds),
                place_until=timestamp(now + place),
                place_enough=timestamp(now + place / 2),
                claim_id=opening.claim_id,
                wall=wall,
                cleans_up=opening.cleans_up,
            )

        return claimant

    async def leave_queue(self, run_id: str) -> None:
        """Keep no slot for a run whose claim was refused."""
        await self.end_places([run_id], 0)

    async def end_places(self, run_ids: Sequence[str] | None, seconds: float) -> None:
        """Keep the places of these runs for at most so many seconds from now on."""
        until = timestamp(self._lease_clock() + timedelta(seconds=seconds))
        await self._write(lambda connection, _: end_places(connection, run_ids, until))

    async def next_runs(self) -> list[str]:
        """Return the runs that wait for a slot and have one now."""
        return await find_next(self._database.read, self.lease_now())

    async def renew_run(self, run_id: str, fence: int, lease_seconds: float | None = None) -> Lease:
        """Restart the lease."""
        seconds = self._lease_seconds(lease_seconds)
        return await self._write(
            lambda connection, _: self.runs.renew(
                connection, run_id, fence, timestamp(self._lease_clock() + seconds), by=self._by
            )
        )

    async def release_run(self, run_id: str, fence: int, status: RunStatus = RunStatus.PENDING) -> WorkflowRun:
        """Release a run as pending or paused."""
        wanted = status_value(status, RunStatus)
        return await self._write(
            lambda connection, now: self.runs.release(connection, run_id, fence, wanted, now, by=self._by)
        )

    async def get_lease(self, run_id: str) -> Lease | None:
        """Return the lease of a run, live or expired."""
        rows = await self._database.read.execute_fetchall(
            "SELECT holder_bot_id, fence, lease_expires_at, cancel_by FROM workflow_runs"
            " WHERE id = ? AND holder_bot_id IS NOT NULL",
            (run_id,),
        )
        return next((_lease(run_id, row) for row in rows), None)

    def _lease_seconds(self, lease_seconds: float | None, what: str = "lease_seconds") -> timedelta:
        seconds = self._rules.lease_seconds if lease_seconds is None else lease_seconds
        most = self._rules.lease_seconds_max
        if not 0 < seconds <= most:
            raise InvalidValue(what, f"must be above 0 and at most {most:g}, not {seconds:g}")
        return timedelta(seconds=seconds)


def _lease(run_id: str, row: Sequence[Any]) -> Lease:
    return Lease(run_id=run_id, holder=row[0], fence=row[1], expires_at=row[2], cancel_by=row[3])
