"""A read-only check of a whole database: the command `posthouse check`.

Owns what is checked, and what counts as damage. *Damage* means that something stored is missing or altered; a
*warning* is worth knowing, but nothing is lost.

The file is opened read-only and without a lock: a worker may be using it. Each part is read in its own transaction,
so that the worker can checkpoint its WAL in between. This must run in another process than the worker's: closing
the file there would drop the worker's locks (docs/design.md).

The file may be hostile. Views and triggers are damage, and nothing else is read beside them. Each part may take so
many steps of SQLite's machine for its pages.
"""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from bus.errors import DatabaseUnusable

from ..findings import LogFindings, Progress, ReadEntry, add_findings, mailbox_faults
from ..keyed_rows import KEYED_VALUES, altered_keys
from ..keys import KEYS
from ..message_rows import intact
from ..moving.movable import warning_of
from ..removals import REMOVALS
from ..seals import is_sealed, removed_names
from .file.lockfile import Mark, read_mark
from .file.place import find_place
from .file.read_only import UNREADABLE, open_read_only
from .file.reader import is_text
from .file.schema import migrations, read_move, schema_faults
from .messages.arrivals import SCHEDULED, is_intact_scheduled
from .messages.rows import COLUMNS
from .messages.sealed import BY_PATTERNS, GROUPS, MAILBOXES, MISSING, PATTERNS, SUBSCRIPTIONS
from .security import SECURITY_EVENTS

__all__ = ["Check"]

_MESSAGES_A_PORTION = 2_000
"""Messages read in one transaction: some milliseconds, in which the worker cannot checkpoint its WAL."""

_PORTION = (
    f"SELECT {COLUMNS}, recipient_type FROM bot_messages WHERE seq BETWEEN ? AND ? ORDER BY seq LIMIT"
    f" {_MESSAGES_A_PORTION}"
)

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

_JSON_COLUMNS = (
    ("workflows", "definition"),
    ("workflows", "replaced"),
    ("workflow_runs", "context"),
    ("workflow_runs", "trigger_payload"),
    ("workflow_runs", "definition"),
    ("workflow_runs", "result"),
    ("workflow_runs", "attributes"),
    ("workflow_schedules", "schedule"),
    ("workflow_steps", "input"),
    ("workflow_steps", "output"),
    ("workflow_signals", "payload"),
)

_FOREIGN = "SELECT 1 FROM sqlite_master WHERE type IN ('trigger', 'view')"

_STEPS_A_CALL = 100_000
"""How often SQLite calls back: some milliseconds."""

_STEPS_MIN, _STEPS_A_PAGE = 200_000_000, 1_000_000
"""The steps for one part: some seconds, and for each page many times what its smallest rows take."""


class Check:
    """One check of a database; see `bus.model.repository.StoreCheck`."""

    def __init__(self, path: Path, mark: Mark | None = None) -> None:
        """Check a database; `mark` is that of the one it was copied from, if it is a copy."""
        self.path = path
        self._mark = mark
        self.damage: list[str] = []
        self.warnings: list[str] = []
        self.counts: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<Check {self.path} damage={len(self.damage)} warnings={len(self.warnings)} {self.counts}>"

    @property
    def database(self) -> str:
        """The file that is checked."""
        return str(self.path)

    def run(self) -> Iterator[Progress]:
        """Read everything."""
        place = find_place(self.path)
        status = place.named.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DatabaseUnusable(f"{self.path} is not a file; name the database itself")
        while True:
            # Without a WAL there is no writer, and only with `immutable` does SQLite leave no files of its own
            # behind. If a worker has begun to write meanwhile, such a reading is invalid: repeat it.
            alone = not place.wal.exists()
            # The mark is read first, so that messages written meanwhile do not look like a loss.
            mark = self._mark or read_mark(place.lock)
            with closing(open_read_only(place.database, alone=alone)) as connection:
                reading = _Reading(connection, mark)
                yield from reading.run()
            if not (alone and place.wal.exists()):
                break
        self.damage, self.warnings, self.counts = reading.damage, reading.warnings, reading.counts
        if mark is not None and mark.restoring:
            self.damage.append("its restoration was interrupted: run `posthouse restore` again")
        if status.st_nlink > 1:
            self.warnings.append(
                f"the file has {status.st_nlink} names (hard links): a WAL beside another name was not read"
            )


# ── Reading ──────────────────────────────────────────────────────────────────────────────────────────────


class _Reading:
    """One pass through an open database."""

    def __init__(self, connection: sqlite3.Connection, mark: Mark | None) -> None:
        self._connection = connection
        self._mark = mark
        self._is_foreign = False
        """Whether it has views or triggers, so that reading it may run anything."""
        self._budget = _Budget(connection)
        self._messages = _Messages(connection)
        self.damage: list[str] = []
        self.warnings: list[str] = []
        self.counts: dict[str, int] = {}

    def run(self) -> Iterator[Progress]:
        yield Progress("the file")
        self._part("the file", self._structure)
        if self._is_foreign:
            return
        self._part("the move to another place", self._moving)
        yield from self._read_messages()
        self._part("the scheduled messages", self._scheduled)
        yield Progress("bots and channels")
        self._part("the bots and channels", self._references)
        yield Progress("mailboxes")
        self._part("the mailboxes", self._places)
        yield Progress("security events")
        self._part("the security events", self._security)
        yield Progress("keyed values")
        self._part("the keyed values", self._keyed)
        yield Progress("workflows")
        self._part("the workflows", self._workflows)

    def _part(self, name: str, read: Callable[[], None]) -> None:
        """Read a part in one transaction. If it cannot be read, the other parts still are."""
        try:
            self._connection.execute("BEGIN")
            self._budget.renew()
            read()
        except UNREADABLE as error:
            self.damage.append(f"{name} cannot be read: {error}")
        finally:
            if self._connection.in_transaction:
                self._connection.rollback()

    def _structure(self) -> None:
        """Check the schema, the pages, the indexes and the foreign keys."""
        objects = self._connection.execute(_FOREIGN).fetchall()
        self._is_foreign = bool(objects)
        add_findings(self.damage, schema_faults(self._connection, {migration.name for migration in migrations()}))
        if self._is_foreign:
            return
        lines: list[str] = []
        try:
            for (text,) in self._connection.execute("PRAGMA integrity_check"):
                lines += [line for line in text.splitlines() if line != "ok" and not line.startswith("***")]
        finally:
            add_findings(self.damage, [f"the file: {line}" for line in lines])
        broken = self._connection.execute("PRAGMA foreign_key_check").fetchall()
        add_findings(self.damage, [f"a row of {row[0]} refers to a missing row of {row[2]}" for row in broken])

    def _read_messages(self) -> Iterator[Progress]:
        messages = self._messages
        self._budget.renew()
        try:
            yield from messages.run()
        except UNREADABLE as error:
            self.damage.append(f"the messages cannot be read: {error}")
        found = messages.found
        self.counts |= {"messages": found.count, "last_seq": messages.last_seq}
        for faults in found.damage():
            add_findings(self.damage, faults)
        add_findings(self.warnings, found.holes())

    def _scheduled(self) -> None:
        """Check the checksums of scheduled messages."""
        altered = [row[0] for row in self._connection.execute(SCHEDULED) if not is_intact_scheduled(row)]
        add_findings(
            self.damage, [f"scheduled message {id}: not as stored: the checksum differs" for id in altered]
        )

    def _moving(self) -> None:
        if (warning := warning_of(read_move(self._connection))) is not None:
            self.warnings.append(warning)

    def _references(self) -> None:
        """Find names of unknown bots and channels. The log outlives what it names, so these are only warnings."""
        for name, table in _COUNTS.items():
            [[self.counts[name]]] = self._connection.execute(f"SELECT COUNT(*) FROM {table}")
        bots = {row[0] for row in self._connection.execute("SELECT id FROM bots")}
        channels = {row[0] for row in self._connection.execute("SELECT name FROM bot_channels")}
        removed = removed_names(str(row[0]) for row in self._connection.execute("SELECT what FROM removals"))
        unknown = self._messages.found.unknown(bots | removed[0], channels | removed[1])
        subscribers = self._connection.execute("SELECT DISTINCT bot_id FROM bot_subscriptions ORDER BY bot_id")
        unknown += [
            f"bot {bot_id!r} has subscriptions but is unknown" for (bot_id,) in subscribers if bot_id not in bots
        ]
        add_findings(self.warnings, unknown)
        altered = [
            f"{what} {row[0]!r}: not as stored: the checksum differs"
            for what, sql in _SEALED
            for row in self._connection.execute(sql)
            if not is_sealed(row)
        ]
        for table in ("log", "bots", "bot_channels", "dead_letters"):
            rows = self._connection.execute(f"SELECT * FROM {table}")
            altered += [f"a text in {table} is not UTF-8: {row!r}" for row in rows if not is_text(row)]
        add_findings(self.damage, altered)

    def _places(self) -> None:
        """Check that the log reaches as far as was acknowledged, and mailboxes no further than the log."""
        [[last_seq]] = self._connection.execute("SELECT COALESCE(MAX(seq), 0) FROM bot_messages")
        epochs = [row[0] for row in self._connection.execute("SELECT epoch FROM log")]
        mark = self._mark
        if mark is not None and [mark.epoch] == epochs and mark.last_seq > last_seq:
            self.damage.append(f"the log ends at message {last_seq}, but {mark.last_seq} was acknowledged")
        found: list[str] = []
        mailboxes: set[str] = set()
        for row in self._connection.execute(MAILBOXES):
            mailbox_id = row[0]
            mailboxes.add(mailbox_id)
            if not is_sealed(row):
                found.append(f"the mailbox of {mailbox_id!r} is not as stored: the checksum differs")
            found += [
                f"the mailbox of {mailbox_id!r} {fault}" for fault in mailbox_faults(row, last_seq, self._is_there)
            ]
        for mailbox_id, seq in self._connection.execute("SELECT mailbox_id, seq FROM dead_letters"):
            if mailbox_id not in mailboxes:
                found.append(f"message {seq} is a dead letter of {mailbox_id!r}, which has no mailbox")
            if not self._is_there(seq):
                found.append(f"a dead letter of {mailbox_id!r} is message {seq}, which is missing")
        for what, sql in MISSING.items():
            found += [f"the {what} {row[0]!r} is needed, but missing" for row in self._connection.execute(sql)]
        add_findings(self.damage, found)

    def _security(self) -> None:
        """Check the checksums of security events."""
        rows = self._connection.execute(SECURITY_EVENTS)
        altered = [row[0] for row in rows if not is_sealed(row)]
        add_findings(self.damage, [f"security event {id}: not as stored: the checksum differs" for id in altered])
        removals = [row for row in self._connection.execute(REMOVALS) if not is_sealed(row[1:])]
        add_findings(self.damage, [f"removal {row[0]}: not as stored: the checksum differs" for row in removals])

    def _keyed(self) -> None:
        """Check the checksums of keyed values."""
        add_findings(self.damage, altered_keys(self._connection.execute(KEYED_VALUES)))

    def _is_there(self, seq: int) -> bool:
        return bool(self._connection.execute("SELECT 1 FROM bot_messages WHERE seq = ?", (seq,)).fetchall())

    def _workflows(self) -> None:
        """Check that what a workflow is resumed from is JSON, and that the rest is text."""
        for table, column in _JSON_COLUMNS:
            rows = self._connection.execute(
                f"SELECT id FROM {table} WHERE {column} IS NOT NULL AND NOT json_valid({column})"
            )
            add_findings(self.damage, [f"the {column} of {row[0]!r} in {table} cannot be read" for row in rows])
        for table in ("workflows", "workflow_runs", "workflow_steps", "workflow_commits"):
            rows = self._connection.execute(f"SELECT * FROM {table}")
            add_findings(
                self.damage, [f"a text of {row[0]!r} in {table} is not UTF-8" for row in rows if not is_text(row)]
            )


class _Budget:
    """How many steps SQLite may still take; beyond it, a statement is interrupted."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        [[pages]] = connection.execute("PRAGMA page_count")
        self._calls_max = (_STEPS_MIN + pages * _STEPS_A_PAGE) // _STEPS_A_CALL
        self._calls = 0
        connection.set_progress_handler(self._count, _STEPS_A_CALL)

    def renew(self) -> None:
        """Begin the next part."""
        self._calls = 0

    def _count(self) -> bool:
        self._calls += 1
        return bool(self._calls > self._calls_max)


class _Messages:
    """The log, read in portions."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.last_seq = 0
        self.found = LogFindings()

    def run(self) -> Iterator[Progress]:
        first, self.last_seq = self._connection.execute(
            "SELECT COALESCE(MIN(seq), 1), COALESCE(MAX(seq), 0) FROM bot_messages"
        ).fetchone()
        start = first
        while start <= self.last_seq:
            yield Progress("messages", start - first, self.last_seq - first + 1)
            try:
                entries = self._read(start, self.last_seq)
            except sqlite3.DatabaseError:
                end = min(start + _MESSAGES_A_PORTION - 1, self.last_seq)
                self._search(start, end)
            else:
                self.found.note(entries)
                end = entries[-1].seq if entries else self.last_seq
            start = end + 1

    def _read(self, first: int, last: int) -> list[ReadEntry]:
        """Read a portion of a range, all of it or, on an error, nothing. The bodies are not kept."""
        rows = self._connection.execute(_PORTION, (first, last))
        return [ReadEntry(row[0], intact(row), row[2], row[4], row[5], _is_astray(row)) for row in rows]

    def _search(self, first: int, last: int) -> None:
        """Find the unreadable messages of a range by bisection, and check the others."""
        try:
            entries = self._read(first, last)
        except sqlite3.DatabaseError:
            if first == last:
                self.found.note_unreadable(first)
                return
            middle = (first + last) // 2
            self._search(first, middle)
            self._search(middle + 1, last)
        else:
            self.found.note(entries)


def _is_astray(row: Sequence[Any]) -> bool:
    kind = row[14]
    return (row[4] is None, row[5] is None) != (kind == "channel", kind == "direct")
