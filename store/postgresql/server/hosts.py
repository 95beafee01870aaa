"""The hosts of a URL: which of their servers is the primary that counts.

Owns three rules. All hosts are asked at the same time, so that one that swallows connections does not keep us from
the others. While one of them is silent, standbys are asked again: the next primary is among them. And of several
servers that say they are the primary, the one that was promoted last counts: the former one does not know yet that
it was replaced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from urllib.parse import urlsplit

import anyio
import asyncpg

__all__ = ["HOST_SECONDS_MAX", "Reign", "find_primary", "terminate"]

HOST_SECONDS_MAX = 10.0
"""For one host: no batch has begun, so giving up loses nothing."""

_AGAIN_SECONDS = 0.3
"""After which a standby is asked again."""

_OTHERS_SECONDS_MAX = 0.5
"""How long the other hosts may take after one of them was the primary."""

# The name of a WAL file begins with its timeline, which grows with each promotion.
_REIGN = "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8), pg_postmaster_start_time()"


class Reign(NamedTuple):
    """What orders primaries: one that is promoted has a later timeline, one that starts again a later start."""

    timeline: str
    started_at: datetime


async def find_primary(
    url: str, settings: Mapping[str, str], host_seconds: float = HOST_SECONDS_MAX
) -> tuple[asyncpg.Connection, Reign]:
    """Connect to the primary that was promoted last; each host may be silent for so long.

    If there is none, raise TargetServerAttributeNotMatched, or what the hosts said.
    """
    hosts = _of_each_host(url)
    silent = set(hosts)
    found: list[tuple[Reign, asyncpg.Connection]] = []
    errors: list[Exception] = []
    all_answered = anyio.Event()

    async def ask(host_url: str) -> None:
        while True:
            may_follow = await ask_once(host_url)
            if not may_follow or not silent:
                return
            with anyio.move_on_after(_AGAIN_SECONDS):
                await all_answered.wait()
            if found and not silent:
                return

    async def ask_once(host_url: str) -> bool:
        """Return True if it is a standby, which may become the primary."""
        connection: asyncpg.Connection | None = None
        try:
            with anyio.fail_after(host_seconds):
                connection = await asyncpg.connect(
                    host_url, target_session_attrs="primary", server_settings=dict(settings)
                )
                reign = Reign(*await connection.fetchrow(_REIGN))
        except BaseException as error:
            if not isinstance(error, Exception):
                if connection is not None:
                    connection.terminate()
                raise
            errors.append(error if connection is None else terminate(connection, error))
            return isinstance(error, asyncpg.TargetServerAttributeNotMatched)
        finally:
            silent.discard(host_url)
            if not silent:
                all_answered.set()
        found.append((reign, connection))
        tasks.cancel_scope.deadline = anyio.current_time() + _OTHERS_SECONDS_MAX
        return False

    try:
        async with anyio.create_task_group() as tasks:
            for each in hosts:
                tasks.start_soon(ask, each)
    except BaseException:
        for _, connection in found:
            connection.terminate()
        raise
    if not found:
        raise _most_telling(errors)
    *others, (reign, connection) = sorted(found, key=lambda each: each[0])
    for _, other in others:
        other.terminate()
    return connection, reign


def terminate(connection: asyncpg.Connection, error: Exception) -> Exception:
    """Drop a session after an error; return that, or one of the network if the session had ended before."""
    ended = isinstance(error, asyncpg.InterfaceError) and connection.is_closed()
    connection.terminate()
    return ConnectionResetError(str(error)) if ended else error


def _of_each_host(url: str) -> list[str]:
    """Return the URL once for each host that it names."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    return [parts._replace(netloc=f"{user}{at}{host}").geturl() for host in hosts.split(",")]


def _most_telling(errors: Sequence[Exception]) -> Exception:
    """Return the error of a standby, whose primary may come, or else of a server, or else of the network."""
    standbys = [error for error in errors if isinstance(error, asyncpg.TargetServerAttributeNotMatched)]
    answers = [error for error in errors if not isinstance(error, OSError)]
    return (standbys or answers or errors)[0]
