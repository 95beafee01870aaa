"""A check of a whole database of PostgreSQL's: the command `posthouse check`.

Owns what is checked, and what counts as damage, as `store.sqlite.check` does for a file: *damage* means that
something stored is missing or altered; a *warning* is worth knowing, but nothing is lost. PostgreSQL's own pages
and indexes are for its own tools (pg_amcheck, and the checksums of its pages).

Nothing is written. Each part is read in a transaction of its own, so that the server can clean up in between, and
a worker may be at work.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import msgspec

from bus.errors import StoreFailed

from ..findings import LogFindings, Progress, ReadEntry, add_findings, mailbox_faults, unsettled_seqs
from ..keyed_rows import KEYED_VALUES, altered_keys
from ..keys import KEYS
from ..message_rows import intact
from ..moving.movable import warning_of
from ..removals import REMOVALS
from ..seals import is_sealed, removed_names
from ..urls import shown
from .messages.arrivals import SCHEDULED, is_intact_scheduled
from .messages.rows import COLUMNS, read_row
from .messages.sealed import BY_PATTERNS, GROUPS, MAILBOXES, MISSING, PATTERNS, SUBSCRIPTIONS
from .security import SECURITY_EVENTS, event_row
from .server.catalog import schema_faults
from .server.connecting import connect, is_lost, unreachable
from .server.incarnation import read_move
from .server.schema import missing_migrations

__all__ = ["Check"]

_MESSAGES_A_PORTION = 2_000
"""Messages that are read at once: what they take in memory."""

_PORTION = f"""
    SELECT {COLUMNS} FROM bot_messages WHERE seq BETWEEN $1 AND $2 ORDER BY seq LIMIT {_MESSAGES_A_PORTION}"""

_VALUES_A_PORTION = 20
"""Values of workflows, or of keys, that are read at once: each may have megabytes."""

_COUNTS = {
    "scheduled_messages": "scheduled_messages",
    "channels": "bot_channels",
    "bots": "bots",
    "subscriptions": "bot_subscriptions",
    "workflow_runs": "workflow_runs",
}

_SEALED = (
    ("a subscription of", SUBSCRIPTIONS),
    ("a subscription of", BY_PATTERNS),
    ("a subscription of", PATTERNS),
    ("a group of", GROUPS),
    ("the key", KEYS),
)

_JSON_COLUMNS = {
    "workflows": ("definition", "replaced"),
    "workflow_runs": (
        "trigger_payload", "context", "error", "result", "attributes", "cancel_reason", "definition",
    ),
    "workflow_steps": ("input", "output", "error"),
    "workflow_signals": ("payload",),
    "workflow_schedules": ("schedule",),
    "workflow_commits": ("seqs",),
}  # fmt: skip

_WITHOUT_RUN = """
    SELECT DISTINCT run_id FROM {} AS it
    WHERE NOT EXISTS (SELECT FROM workflow_runs WHERE workflow_runs.id = it.run_id) LIMIT 101"""

_END = """
    SELECT (SELECT count(*) FROM log), (SELECT max(last_seq) FROM log_end),
           COALESCE((SELECT min(seq) FROM bot_messages), 1), COALESCE((SELECT max(seq) FROM bot_messages), 0)"""

_THERE = "SELECT seq FROM bot_messages WHERE seq = ANY($1::bigint[])"

_UNREADABLE = (asyncpg.PostgresError, UnicodeDecodeError)
"""What a damaged page, or a damaged text, looks like."""


class Check:
    """One check of a database; see `bus.model.repository.StoreCheck`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.damage: list[str] = []
        self.warnings: list[str] = []
        self.counts: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<Check {self.database} damage={len(self.damage)} warnings={len(self.warnings)} {self.counts}>"

    @property
    def database(self) -> str:
        """The URL that is checked, without its password."""
        return shown(self._url)

    def run(self) -> Iterator[Progress]:
        """Read everything, in an event loop of its own."""
        with asyncio.Runner() as runner:
            connection, *_ = runner.run(self._within(connect(self._url, application_name="posthouse check")))
            try:
                reading = _Reading(connection, self)
                steps = reading.run()
                while (step := runner.run(self._within(anext(steps, None)))) is not None:
                    yield step
            finally:
                connection.terminate()

    async def _within(self, waited: Awaitable[Any]) -> Any:
        """Wait for something. Raise StoreFailed if the server cannot be reached, or is lost."""
        try:
            return await waited
        except Exception as error:
            if is_lost(None, error):
                raise unreachable(self._url, error) from error
            if isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError):
                raise StoreFailed(f"{self.database} cannot be read: {error}") from error
            raise


class _Reading:
    """One pass through a database."""

    def __init__(self, connection: asyncpg.Connection, check: Check) -> None:
        self._connection = connection
        self._check = check
        self._log = LogFindings()

    async def run(self) -> AsyncIterator[Progress]:
        yield Progress("the schema")
        if await missing_migrations(self._connection, self._check.database):
            self._check.warnings.append(
                "the schema is of an earlier version: the next start of a worker migrates it"
            )
        else:
            await self._structure()
        await self._part("the move to another place", self._moving)
        async for progress in self._messages():
            yield progress
        await self._part("the scheduled messages", self._scheduled)
        yield Progress("bots and channels")
        await self._part("the bots and channels", self._references)
        yield Progress("mailboxes")
        await self._part("the mailboxes", self._places)
        yield Progress("security events")
        await self._part("the security events", self._security)
        yield Progress("keyed values")
        await self._part("the keyed values", self._keyed)
        yield Progress("workflows")
        await self._part("the workflows", self._workflows)

    async def _part(self, name: str, read: Callable[[], Awaitable[None]]) -> None:
        """Read a part in one transaction. If it cannot be read, the other parts still are."""
        try:
            async with self._connection.transaction(isolation="repeatable_read", readonly=True):
                await read()
        except _UNREADABLE as error:
            if is_lost(self._connection, error):
                raise
            self._check.damage.append(f"{name} cannot be read: {error}")

    async def _structure(self) -> None:
        try:
            add_findings(self._check.damage, await schema_faults(self._connection))
        except asyncpg.InsufficientPrivilegeError as error:
            self._check.warnings.append(f"the schema was not compared: {error} (GRANT TEMPORARY ON DATABASE)")

    async def _moving(self) -> None:
        if (warning := warning_of(await read_move(self._connection))) is not None:
            self._check.warnings.append(warning)

    async def _messages(self) -> AsyncIterator[Progress]:
        logs, last_seq, first, last = await self._connection.fetchrow(_END)
        if (logs, last_seq) == (0, None) or logs != 1 or last_seq is None:
            self._check.damage.append("the rows that say which log this is, and where it ends, are not there once")
        elif last > last_seq:
            self._check.damage.append(f"message {last} is beyond the log's end, {last_seq}")
        start = first
        while start <= last:
            yield Progress("messages", start - first, last - first + 1)
            end = min(start + _MESSAGES_A_PORTION - 1, last)
            try:
                entries = await self._read(start, last)
            except _UNREADABLE as error:
                if is_lost(self._connection, error):
                    raise
                await self._search(start, end)
            else:
                self._log.note(entries)
                end = entries[-1].seq if entries else last
            start = end + 1
        self._check.counts |= {"messages": self._log.count, "last_seq": last_seq or last}
        for faults in self._log.damage():
            add_findings(self._check.damage, faults)
        add_findings(self._check.warnings, self._log.holes())

    async def _read(self, first: int, last: int) -> list[ReadEntry]:
        rows = map(read_row, await self._connection.fetch(_PORTION, first, last))
        return [
            ReadEntry(row[0], intact(row), row[2], row[4], row[5], (row[4] is None) is (row[5] is None))
            for row in rows
        ]

    async def _search(self, first: int, last: int) -> None:
        """Find the unreadable messages of a range by bisection, and check the others."""
        try:
            entries = await self._read(first, last)
        except _UNREADABLE as error:
            if is_lost(self._connection, error):
                raise
            if first == last:
                self._log.note_unreadable(first)
                return
            middle = (first + last) // 2
            await self._search(first, middle)
            await self._search(middle + 1, last)
        else:
            self._log.note(entries)

    async def _scheduled(self) -> None:
        altered = [row[0] async for row in self._connection.cursor(SCHEDULED) if not is_intact_scheduled(row)]
        self._damage([f"scheduled message {id}: not as stored: the checksum differs" for id in altered])

    async def _references(self) -> None:
        fetch = self._connection.fetch
        for name, table in _COUNTS.items():
            [[self._check.counts[name]]] = await fetch(f"SELECT count(*) FROM {table}")
        bots = {row[0] for row in await fetch("SELECT id FROM bots")}
        channels = {row[0] for row in await fetch("SELECT name FROM bot_channels")}
        subscribers = await fetch("SELECT DISTINCT bot_id FROM bot_subscriptions ORDER BY bot_id")
        removed = removed_names([row[0] for row in await fetch("SELECT what FROM removals")])
        unknown = self._log.unknown(bots | removed[0], channels | removed[1])
        unknown += [f"bot {row[0]!r} has subscriptions but is unknown" for row in subscribers if row[0] not in bots]
        add_findings(self._check.warnings, unknown)
        for what, sql in _SEALED:
            altered = [row[0] for row in map(tuple, await fetch(sql)) if not is_sealed(row)]
            self._damage([f"{what} {name!r}: not as stored: the checksum differs" for name in altered])

    async def _places(self) -> None:
        """Check that mailboxes reach no further than the log, and that what they owe is there."""
        fetch = self._connection.fetch
        [[last_seq]] = await fetch("SELECT max(last_seq) FROM log_end")
        mailboxes = list(map(tuple, await fetch(MAILBOXES)))
        dead_letters = await fetch("SELECT mailbox_id, seq FROM dead_letters")
        wanted = {seq for row in mailboxes for seq in unsettled_seqs(row)} | {seq for _, seq in dead_letters}
        there = {row[0] for row in await fetch(_THERE, sorted(wanted))}
        found: list[str] = []
        for row in mailboxes:
            if not is_sealed(row):
                found.append(f"the mailbox of {row[0]!r} is not as stored: the checksum differs")
            faults = mailbox_faults(row, last_seq or 0, there.__contains__)
            found += [f"the mailbox of {row[0]!r} {fault}" for fault in faults]
        found += [
            f"a dead letter of {mailbox_id!r} is message {seq}, which is missing"
            for mailbox_id, seq in dead_letters
            if seq not in there
        ]
        for what, sql in MISSING.items():
            found += [f"the {what} {row[0]!r} is needed, but missing" for row in await fetch(sql)]
        self._damage(found)

    async def _security(self) -> None:
        rows = self._connection.cursor(SECURITY_EVENTS)
        altered = [row[0] async for row in rows if not is_sealed(event_row(row))]
        self._damage([f"security event {id}: not as stored: the checksum differs" for id in altered])
        removals = self._connection.cursor(REMOVALS)
        altered = [row[0] async for row in removals if not is_sealed(tuple(row)[1:])]
        self._damage([f"removal {number}: not as stored: the checksum differs" for number in altered])

    async def _keyed(self) -> None:
        rows = self._connection.cursor(KEYED_VALUES, prefetch=_VALUES_A_PORTION)
        self._damage([line async for row in rows for line in altered_keys([tuple(row)])])

    async def _workflows(self) -> None:
        """Check that what a workflow is resumed from is JSON, and that steps and signals have their run."""
        for table, columns in _JSON_COLUMNS.items():
            key = "run_id || '/' || id" if table == "workflow_signals" else "id"
            rows = self._connection.cursor(
                f"SELECT {key}, {', '.join(columns)} FROM {table}", prefetch=_VALUES_A_PORTION
            )
            self._damage(
                [
                    f"the {column} of {row[0]!r} in {table} cannot be read"
                    async for row in rows
                    for column, text in zip(columns, row[1:], strict=True)
                    if text is not None and not _is_json(text)
                ]
            )
        for table in ("workflow_steps", "workflow_signals"):
            lost = await self._connection.fetch(_WITHOUT_RUN.format(table))
            self._damage([f"run {row[0]!r} has rows in {table}, but is missing" for row in lost])

    def _damage(self, found: list[str]) -> None:
        add_findings(self._check.damage, found)


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True
