"""How a session with the primary begins, and which errors mean that it has ended.

Owns the settings of every session, and that each begins with an empty commit that waits: what is visible after a
crash or a cancelled wait may be on no standby yet, so nothing is believed before that commit is answered
(docs/decisions/0076-a-log-in-postgresql.md). Every session is with the primary: standbys show commits in another
order.
"""

from __future__ import annotations

import ssl

import asyncpg

from bus.errors import DatabaseUnusable, InvalidValue, StorageBusy, StorageFull, StoreError, StoreFailed

from ...urls import shown
from .checks import SCHEMA, SERVER, Server, refusals
from .hosts import HOST_SECONDS_MAX, Reign, find_primary, terminate

__all__ = ["CLOSE_SECONDS_MAX", "SCHEMA", "connect", "is_lost", "make_safe", "refusal", "translate", "unreachable"]

CLOSE_SECONDS_MAX = 1.0
"""How long a server may take to answer a goodbye: then the connection is dropped, and nothing is lost."""

_SETTINGS = {
    "application_name": "posthouse",
    "search_path": SCHEMA,
    "timezone": "UTC",
    "default_transaction_isolation": "read committed",
    "jit": "off",
    # Nothing that has begun is given up by the server, neither a batch that waits for a standby nor one for a lock.
    "statement_timeout": "0",
    "lock_timeout": "0",
    # But for a transaction whose worker is silent in the middle of it: its locks would hold up whoever takes over.
    "idle_in_transaction_session_timeout": "30s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "4",
}

_ENDED = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,  # it was the primary, and is a standby now
    # No host is the primary now; or the server ended an idle session, which asyncpg reports when it is used next.
    asyncpg.InternalClientError,
    OSError,
)
"""What a failover looks like to those who are connected, or try to be."""

_EMPTY_COMMIT = "SELECT pg_logical_emit_message(true, 'posthouse', '')"
"""A transaction that writes nothing but its commit, which is answered when all that came before it is safe, too."""


async def connect(
    url: str, host_seconds: float = HOST_SECONDS_MAX, /, **settings: str
) -> tuple[asyncpg.Connection, Server, Reign]:
    """Connect to the primary of a URL, which may name several hosts; each of them may be silent for so long.

    Raise DatabaseUnusable if it needs a person before it can be used, and an error that `is_lost` knows if it
    cannot be reached now.

    `synchronous_commit` is kept as it is now, whatever the server's configuration is changed to later. Nothing that
    the session shows may be believed before `make_safe`. `settings` replace those of every session.
    """
    try:
        connection, reign = await find_primary(url, _SETTINGS | settings, host_seconds)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, ssl.SSLCertVerificationError) as error:
        if isinstance(error, _ENDED) and not isinstance(
            error, ssl.SSLCertVerificationError | asyncpg.ProtocolViolationError
        ):
            raise
        raise DatabaseUnusable(f"{shown(url)} cannot be used: {error}; {_way_out(error)}") from error
    except (ValueError, IndexError):  # of its parts, with which it may repeat a password
        raise DatabaseUnusable(f"{shown(url)} cannot be used: it is not valid; {_way_out(None)}") from None
    try:
        server = Server(*await connection.fetchrow(SERVER))
        if refused := refusals(server):
            raise DatabaseUnusable(f"{shown(url)} cannot be used: {'; '.join(refused)}")
        await connection.execute(f"SET synchronous_commit = {server.synchronous_commit}")
    except Exception as error:
        told = terminate(connection, error)
        if told is error:
            raise
        raise told from error
    except BaseException:
        connection.terminate()
        raise
    return connection, server, reign


def _way_out(error: Exception | None) -> str:
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        return "check the user, the password (in the URL, PGPASSWORD or ~/.pgpass), and the server's pg_hba.conf"
    if isinstance(error, asyncpg.ProtocolViolationError):
        return "connect to the servers themselves, not through pgbouncer or another pooler"
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return "create it, with createdb for instance"
    return "check the URL and its parameters, and the rights of the role"


def unreachable(url: str, error: BaseException) -> StoreFailed:
    """Return our error for one by which no session could be made, or by which it was lost."""
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return StoreFailed(
            f"no server of {shown(url)} is the primary: let a standby be promoted, or start the primary"
        )
    return StoreFailed(
        f"{shown(url)} cannot be reached ({error or type(error).__name__}): start PostgreSQL, and check the hosts"
        " and ports"
    )


async def make_safe(connection: asyncpg.Connection) -> None:
    """Wait until everything that a session shows is safe, however long that takes."""
    await connection.execute(_EMPTY_COMMIT)


def is_lost(connection: asyncpg.Connection | None, error: BaseException) -> bool:
    """Return True if an error means that the session is over, and nothing about the transaction."""
    return isinstance(error, _ENDED) or (
        isinstance(error, asyncpg.InterfaceError) and connection is not None and connection.is_closed()
    )


def refusal(error: Exception) -> Exception:
    """Return our error for one of a single operation, whose value PostgreSQL cannot hold; any other as it is."""
    if isinstance(error, asyncpg.CharacterNotInRepertoireError):
        return InvalidValue("a text", "must not contain a zero character")
    return error


def translate(error: asyncpg.PostgresError) -> StoreError | None:
    """Return our error for one about the server itself, after which nothing of the transaction is stored.

    None for any other, which only concerns the operation that it comes from.
    """
    if isinstance(error, asyncpg.DiskFullError):
        return StorageFull("the disk of PostgreSQL is full; nothing was stored")
    if isinstance(
        error, asyncpg.DeadlockDetectedError | asyncpg.QueryCanceledError | asyncpg.LockNotAvailableError
    ):
        return StorageBusy(f"another program got in the way in PostgreSQL ({error}); nothing was stored")
    if isinstance(error, asyncpg.PostgresIOError | asyncpg.DataCorruptedError | asyncpg.IndexCorruptedError):
        return StoreFailed(f"PostgreSQL reported {error.sqlstate}: {error}; check its log and its disk")
    return None
