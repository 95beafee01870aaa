"""The row of leadership: who leads, where its clients find it, and until when, by the server's clock.

Owns the table `leadership`. It says when another worker *may* take over; that one of them alone writes is up to the
fence (`incarnation`). A renewal is refused as soon as any program has raised the fence.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg

from bus.errors import OwnershipLost
from bus.model.leadership import Candidate, Leader, Sighting
from bus.model.records import timestamp

from .incarnation import Incarnation, LogEnd, lock_workers

__all__ = [
    "GIVEN_UP",
    "LOOK",
    "STANDING_BY",
    "STANDS_BY",
    "give_up",
    "has_leadership",
    "look_at_leadership",
    "renew",
    "sighting_of",
    "take_lead",
]

STANDS_BY = "posthouse stands by"
"""The `application_name` of a worker that stands by: who is connected stands by."""

_EXISTS = "SELECT to_regclass('leadership') IS NOT NULL"

LOOK = """
    SELECT worker_id, fence, url, tap, since, expires_at IS NULL, coalesce(expires_at > clock_timestamp(), false)
    FROM leadership"""
"""What `sighting_of` is made of."""

_TAKE = """
    INSERT INTO leadership (worker_id, fence, url, tap, since, expires_at)
    VALUES ($1, $2, $3, $4, clock_timestamp(), clock_timestamp() + make_interval(secs => $5))
    ON CONFLICT (one) DO UPDATE SET worker_id = $1, fence = $2, url = $3, tap = $4, since = excluded.since,
        expires_at = excluded.expires_at
    RETURNING since"""

# A lease that was given up stays so, even if a renewal that was sent before comes later.
_RENEW = """
    UPDATE leadership SET expires_at = clock_timestamp() + make_interval(secs => $2)
    WHERE fence = $1 AND expires_at IS NOT NULL AND (SELECT fence FROM log_end) = $1 RETURNING fence"""

GIVEN_UP = "posthouse_given_up"
"""Workers that stand by listen to this channel. It only saves them waiting for their next look."""

_GIVE_UP = f"""
    WITH given AS (UPDATE leadership SET expires_at = NULL WHERE fence = $1 RETURNING one)
    SELECT pg_notify('{GIVEN_UP}', '') FROM given"""

STANDING_BY = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database()"
"""The number of workers that stand by; $1 is `STANDS_BY`."""


async def has_leadership(connection: asyncpg.Connection) -> bool:
    """Return True if the database has the table; without it no worker leads."""
    return bool(await connection.fetchval(_EXISTS))


async def look_at_leadership(connection: asyncpg.Connection, *, lock: bool = False) -> Sighting:
    """Return who leads, as far as this session sees. Nobody does in a database that no worker has served.

    With `lock`, nobody renews the lease before the end of the transaction.
    """
    if not await has_leadership(connection):
        return Sighting(None)
    return sighting_of(await connection.fetch(f"{LOOK} FOR UPDATE" if lock else LOOK))


def sighting_of(rows: Sequence[Sequence[Any]]) -> Sighting:
    """Return what the row of leadership says, if there is one."""
    if not rows:
        return Sighting(None)
    worker_id, fence, url, tap, since, given_up, leads = rows[0]
    found = Leader(worker_id, fence, url, tap, timestamp(since))
    return Sighting(found if leads else None, None if leads else found, given_up)


async def take_lead(
    connection: asyncpg.Connection,
    candidate: Candidate,
    take: Callable[[asyncpg.Connection, str], Awaitable[tuple[Incarnation, LogEnd]]],
    clock: Callable[[], float],
    *,
    forced: bool = False,
) -> tuple[Incarnation, LogEnd, Sighting, Leader, float]:
    """Become the leader, and with `take` the only writer. Raise OwnershipLost if another leads, unless `forced`.

    Return also what was seen before, and a time by `clock` before the lease began. All of it is safe when this has
    returned.
    """
    if not forced:
        _raise_if_led(await look_at_leadership(connection), candidate)
    async with connection.transaction():
        await lock_workers(connection)
        before = await look_at_leadership(connection, lock=True)  # again: another candidate may have been first
        if not forced:
            _raise_if_led(before, candidate)
        incarnation, end = await take(connection, candidate.worker_id)
        sent_at = clock()
        since = await connection.fetchval(
            _TAKE, *incarnation, candidate.url, candidate.tap, candidate.lease_seconds
        )
    leader = Leader(*incarnation, candidate.url, candidate.tap, timestamp(since))
    return incarnation, end, before, leader, sent_at


def _raise_if_led(sighting: Sighting, candidate: Candidate) -> None:
    if sighting.leader is not None and not sighting.is_free_for(candidate):
        raise OwnershipLost(f"another worker leads, with fence {sighting.leader.fence}")


async def renew(connection: asyncpg.Connection, fence: int, lease_seconds: float) -> bool:
    """Renew a lease, even one that has expired, if nobody has taken over. Return False if the fence was raised."""
    return await connection.fetchval(_RENEW, fence, lease_seconds) is not None


async def give_up(connection: asyncpg.Connection, fence: int) -> None:
    """End a lease, in the caller's transaction: another worker may lead as soon as that is committed."""
    await connection.execute(_GIVE_UP, fence)
