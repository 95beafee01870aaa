"""Who holds a run, over PostgreSQL: the part of the repository that claims runs, and keeps places for slots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

from bus.errors import InvalidTransition, InvalidValue, SlotsTaken
from bus.model.leases import Claimant
from bus.model.openings import RunOpening
from bus.model.records import Claim, Lease, RunStatus, WorkflowRun, later, parse_timestamp, timestamp
from bus.model.values import status_value

from .queueing import end_places, find_next
from .schedules import PostgresqlSchedules
from .unit import Needs, Unit

__all__ = ["PostgresqlHolds"]

_FIND_LEASE = """
    SELECT holder_bot_id, fence, lease_expires_at, cancel_by FROM workflow_runs
    WHERE id = $1 AND holder_bot_id IS NOT NULL"""


class PostgresqlHolds(PostgresqlSchedules):
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
        claimed = await self._write(
            lambda unit: self.runs.claim(unit, run_id, claimant(unit)),
            Needs(records=(run_id,), claimed=(run_id,)),
        )
        if isinstance(claimed, SlotsTaken | InvalidTransition):
            raise claimed
        return claimed

    def _claimant(self, holder: str, opening: RunOpening) -> Callable[[Unit], Claimant]:
        """Return who claims a run, in a unit of work. Raise InvalidValue."""
        seconds = self._lease_seconds(opening.lease_seconds)
        place = seconds
        if opening.place_seconds is not None:
            place = self._lease_seconds(min(opening.place_seconds, self._rules.lease_seconds_max), "place_seconds")

        def claimant(unit: Unit) -> Claimant:
            return Claimant(
                holder,
                unit.now,
                _after(unit, seconds),
                place_until=_after(unit, place),
                place_enough=_after(unit, place / 2),
                claim_id=opening.claim_id,
                wall=unit.now,
                cleans_up=opening.cleans_up,
            )

        return claimant

    async def leave_queue(self, run_id: str) -> None:
        """Keep no slot for a run whose claim was refused."""
        await self.end_places([run_id], 0)

    async def end_places(self, run_ids: Sequence[str] | None, seconds: float) -> None:
        """Keep the places of these runs for at most so many seconds from now on."""
        await self._write(lambda unit: end_places(unit.connection, run_ids, later(unit.now, seconds)), settles=True)

    async def next_runs(self) -> list[str]:
        """Return the runs that wait for a slot and have one now."""
        return await find_next(self._database.read, await self._now())

    async def renew_run(self, run_id: str, fence: int, lease_seconds: float | None = None) -> Lease:
        """Restart the lease."""
        seconds = self._lease_seconds(lease_seconds)
        return await self._write(
            lambda unit: self.runs.renew(unit, run_id, fence, _after(unit, seconds), by=self._by),
            Needs(runs=(run_id,)),
        )

    async def release_run(self, run_id: str, fence: int, status: RunStatus = RunStatus.PENDING) -> WorkflowRun:
        """Release a run as pending or paused."""
        wanted = status_value(status, RunStatus)
        return await self._write(
            lambda unit: self.runs.release(unit, run_id, fence, wanted, by=self._by), Needs(records=(run_id,))
        )

    async def get_lease(self, run_id: str) -> Lease | None:
        """Return the lease of a run, live or expired."""
        for holder, fence, expires_at, cancel_by in await self._fetch(_FIND_LEASE, run_id):
            return Lease(run_id=run_id, holder=holder, fence=fence, expires_at=expires_at, cancel_by=cancel_by)
        return None

    def _lease_seconds(self, lease_seconds: float | None, what: str = "lease_seconds") -> timedelta:
        seconds = self._rules.lease_seconds if lease_seconds is None else lease_seconds
        most = self._rules.lease_seconds_max
        if not 0 < seconds <= most:
            raise InvalidValue(what, f"must be above 0 and at most {most:g}, not {seconds:g}")
        return timedelta(seconds=seconds)


def _after(unit: Unit, seconds: timedelta) -> str:
    return timestamp(parse_timestamp(unit.now) + seconds)
