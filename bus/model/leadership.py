"""Which worker of a house leads, for how long it may believe that, and what the store offers for it.

Owns the rules of a lease. The store holds when it expires, by the store's own clock, and nobody takes over before.
The leader counts by a clock of its own, from when it *sent* the last renewal that was confirmed, and sends nothing
more once four fifths of the lease are over: even if its clock runs a little slower, that is before anybody else may
lead. A lease only keeps workers apart. That an earlier leader stores nothing is up to its fence.

Pure.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import msgspec

__all__ = [
    "RENEWALS_MIN",
    "USABLE_FRACTION",
    "Candidate",
    "Election",
    "Leader",
    "LeaderLease",
    "Sighting",
    "Tenure",
]

USABLE_FRACTION = 0.8
"""How much of a lease its holder uses, by its own clock."""

RENEWALS_MIN = 3
"""Renewals that are due within the usable part of a lease: two of them may fail."""


def _machine(worker_id: str) -> str:
    return worker_id[-12:]


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that would lead: its id, where its clients and listeners find it, and the lease that it asks for.

    Its id is a UUID. The last twelve digits are the node, the same for all workers among which a bound address is
    unique.
    """

    worker_id: str
    url: str | None = None
    """Where bots connect; None if no address is known that others can reach."""
    tap: str | None = None
    lease_seconds: float = 10.0
    renew_seconds: float = 2.0
    is_bound: bool = False
    """Whether it listens at `url` itself: then no other worker of the same `machine` does."""
    is_new: bool = False
    """Whether it has just started."""

    @property
    def machine(self) -> str:
        """Where it runs: the node of its id."""
        return _machine(self.worker_id)


class Leader(NamedTuple):
    """A worker that leads, or led."""

    worker_id: str
    fence: int
    """Higher than that of every leader before."""
    url: str | None
    tap: str | None
    since: str


class Sighting(NamedTuple):
    """What the store says about leadership: who leads, or None, and who led before."""

    leader: Leader | None
    before: Leader | None = None
    given_up: bool = False
    """Whether the one before ended its lease itself."""

    def is_free_for(self, candidate: Candidate) -> bool:
        """Return True if a candidate may take over.

        One that has just bound the leader's address on its machine may at once: the leader must have ended. So may
        one that leads already, and does not know it any more.
        """
        leader = self.leader
        if leader is None or leader.worker_id == candidate.worker_id:
            return True
        has_its_address = candidate.is_bound and candidate.url is not None and candidate.url == leader.url
        return candidate.is_new and has_its_address and candidate.machine == _machine(leader.worker_id)


class LeaderLease:
    """How long its holder may act on it. Times are seconds of a clock of the holder that never stands still."""

    def __init__(self, candidate: Candidate, sent_at: float) -> None:
        self._seconds = candidate.lease_seconds
        self._renew_seconds = candidate.renew_seconds
        self._sent_at = sent_at
        self._given_up = False

    def __repr__(self) -> str:
        return f"<LeaderLease of {self._seconds} s until {self.over_at}{' given up' if self._given_up else ''}>"

    def confirm(self, sent_at: float) -> None:
        """Note that a renewal is stored safely that was sent at this time."""
        self._sent_at = max(self._sent_at, sent_at)

    def give_up(self) -> None:
        """Note that the lease is over, whatever is confirmed later."""
        self._given_up = True

    @property
    def over_at(self) -> float:
        """When it is over, unless it is renewed."""
        return self._sent_at + USABLE_FRACTION * self._seconds

    @property
    def renew_at(self) -> float:
        """When the next renewal is due."""
        return self._sent_at + self._renew_seconds

    @property
    def patience_seconds(self) -> float:
        """How long a renewal may take before it is tried in another way, for which there is time left."""
        return USABLE_FRACTION * self._seconds / 2

    def is_over(self, now: float) -> bool:
        """Return True if its holder must send nothing more."""
        return self._given_up or now >= self.over_at


class Tenure(Protocol):
    """A worker's time as the leader, which ends with the store that was opened for it."""

    leader: Leader
    before: Sighting
    """What was seen of leadership when it began."""

    def is_over(self) -> bool:
        """Return True if nothing may be sent to clients any more, by a clock that also counts frozen time."""

    async def standing_by(self) -> int:
        """Return how many workers stand by."""

    async def give_up(self) -> Leader | None:
        """End it, after everything that was stored, so that another worker may lead at once.

        Return who leads then; None if no worker stands by, or none has taken over after a while. Nothing is stored
        afterwards.
        """


class Election(Protocol):
    """What a worker that stands by sees of leadership."""

    async def look(self) -> Sighting:
        """Return who leads, by the store's clock. Raise StoreFailed if the store cannot be reached."""

    async def prepare(self) -> None:
        """Do in advance what taking over would wait for, as far as that changes nothing. Raise as `look` does."""

    async def wait(self, seconds: float) -> None:
        """Wait until the leader gives its lease up, at most so many seconds. It may be missed: look again."""

    async def aclose(self) -> None:
        """Look no more."""
