"""What holds up a worker that takes over: a session of an earlier one that is silent within a transaction.

Owns the end of such a session. PostgreSQL ends one by itself only between two statements
(`idle_in_transaction_session_timeout`). While it is given a statement in parts, as when one is prepared, it waits
for its client without a limit, and keeps its locks: for a process that is frozen, the kernel answers. The lease of
that worker is over, and what it has not committed was never answered. A session that waits for a standby is left
alone, and so are those of commands.
"""

from __future__ import annotations

import anyio
import asyncpg

from bus.model.repository import StoreWatch

from .connecting import is_lost
from .primary import Primary

__all__ = ["clear_way"]

_LOOK_SECONDS = 1.0
"""Much longer than taking over waits if nothing holds it up."""

# Materialised, so that none is ended before all is known of it.
_END = """
    WITH silent AS MATERIALIZED (
        SELECT pid FROM unnest(pg_blocking_pids($1)) AS blocking (pid) JOIN pg_stat_activity USING (pid)
        WHERE application_name IN ('posthouse', 'posthouse lease') AND wait_event_type = 'Client'
              AND state_change < clock_timestamp() - make_interval(secs => $2)
    )
    SELECT pid, pg_terminate_backend(pid) FROM silent"""

_ENDED = (
    "a session of an earlier worker (process {} of PostgreSQL) was silent, and held this worker up: it was ended"
)

_FORBIDDEN = (
    "a session of another role holds this worker up, which may not end it ({}): let all workers of a house have the"
    " same role, or end it with pg_terminate_backend"
)


async def clear_way(primary: Primary, waiting: int, silent_seconds: float, watch: StoreWatch | None) -> None:
    """End what holds up a session with this process id, and has been silent for so long, until cancelled."""
    while True:
        await anyio.sleep(_LOOK_SECONDS)
        connection: asyncpg.Connection | None = None
        try:
            connection, _ = await primary.connect()
            while True:
                for pid, ended in await connection.fetch(_END, waiting, silent_seconds):
                    if ended and watch is not None:
                        watch.warn(_ENDED.format(pid))
                await anyio.sleep(_LOOK_SECONDS)
        except asyncpg.InsufficientPrivilegeError as error:
            if watch is not None:
                watch.warn(_FORBIDDEN.format(error))
            return
        except Exception as error:
            if not is_lost(connection, error):
                raise
        finally:
            if connection is not None:
                connection.terminate()
