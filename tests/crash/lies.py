"""Workers that are broken on purpose: what the checker has to find, so that its silence means something.

Owns the lies about the disk, subscriptions and order, and the telling of every lie (`lies_of_mailboxes`,
`lies_of_runs`, `lies_of_removals`, `lies_of_time`, `lies_of_engines`, `lies_of_values` and `lies_of_wills` have the
others). Each replaces a piece of the product's inside in a process that becomes a worker. They are switches of
these tests, and the product knows nothing of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import aiosqlite
import anyio
import msgspec

from bus.core import events
from bus.core.dispatch import Dispatch
from bus.core.matching import Matching
from bus.core.recording import SecurityRecord
from bus.mailbox.mailbox import Mailbox
from bus.mailbox.parcel import WireDeliveries
from bus.mailbox.sessions import Session
from bus.mailbox.turns import HandedOut
from bus.model.repository import AddSubscription, CommitWork, MailboxState, RemoveSubscription, Subscribed
from store.sqlite.commits import Commits
from store.sqlite.file import database
from store.sqlite.file.lockfile import LockFile
from store.sqlite.file.writer import Transaction, Writer
from store.sqlite.log import SqliteLog
from store.sqlite.workflows.runs import Runs

from .lies_of_engines import TELLERS_OF_ENGINES
from .lies_of_mailboxes import TELLERS, replace
from .lies_of_removals import TELLERS_OF_REMOVALS
from .lies_of_runs import TELLERS_OF_RUNS
from .lies_of_time import TELLERS_OF_TIME
from .lies_of_values import TELLERS_OF_VALUES
from .lies_of_wills import TELLERS_OF_WILLS

__all__ = ["LIES", "LIES_OF_POWER", "tell"]

LIES: dict[str, set[str]] = {
    "ack_before_commit": {"lost"},
    "torn_commit": {"torn", "redelivered"},
    "forgotten_checkpoint": {"checkpoints"},
    "dropped_subscription": {"subscriptions", "lost"},
    "kept_subscription": {"subscriptions", "not_subscribed"},
    "missed_channel": {"subscriptions", "lost"},
    "vanished_unnoticed": {"presence"},
    "swapped_order": {"out_of_order"},
    "position_too_early": {"lost"},
    "forgotten_in_flight": {"lost"},
    "ack_in_the_wrong_mailbox": {"redelivered"},
}
"""Each lie that kills alone bring to light, with the kinds of violations of which one has to be found."""

LIES_OF_POWER = ("no_sync", "no_checkpoint")
"""Those that only a power cut brings to light: a killed process leaves all that it wrote with the system."""

_WINDOW_SECONDS = 0.01
"""How long a lie leaves what it said and what is on disk apart: else a kill would seldom meet it."""


def tell(name: str) -> None:
    """Break this process in one way. Raises KeyError where nobody knows the lie."""
    _TELLERS[name]()


# ── The disk ─────────────────────────────────────────────────────────────────────────────────────────────


def _ack_before_commit() -> None:
    def make(honest: Any) -> Any:
        async def commit(writer: Any, group: Any) -> None:
            transaction = Transaction(writer._connection, writer.last_seq, alone=False)
            try:
                for pending in group.pendings:
                    pending.result = await pending.operation(transaction)
            except Exception:
                await writer._connection.rollback()
                await honest(writer, group)
                return
            writer.last_seq = transaction.last_seq
            group.done.set()
            await anyio.sleep(_WINDOW_SECONDS)
            await writer._connection.commit()
            writer._committed(writer.last_seq)

        return commit

    replace(Writer, "_commit", make)


def _torn_commit() -> None:
    def make(honest: Any) -> Any:
        async def carry_out(commits: Commits, transaction: Transaction, work: Any) -> Any:
            answer = await honest(commits, transaction, work)
            await transaction.connection.commit()
            if work.lots:  # whose trace is seen before the commit is repeated
                await anyio.sleep(4 * _WINDOW_SECONDS)
            return answer

        return carry_out

    replace(Commits, "carry_out", make)


def _forgotten_checkpoint() -> None:
    turn = itertools.count(1)

    def make(honest: Any) -> Any:
        async def checkpoint(
            runs: Runs, connection: aiosqlite.Connection, work: CommitWork, *now: Any, **too: Any
        ) -> Any:
            if next(turn) % 3 == 0:
                work = msgspec.structs.replace(work, context=None, status=None)
            return await honest(runs, connection, work, *now, **too)

        return checkpoint

    replace(Runs, "checkpoint", make)


def _no_sync() -> None:
    def make(honest: Any) -> Any:
        async def prepare(path: Any, connection: aiosqlite.Connection, *watch: Any, **options: Any) -> Any:
            identity = await honest(path, connection, *watch, **options)
            await connection.execute("PRAGMA synchronous = NORMAL")
            return identity

        return prepare

    replace(database, "_prepare", make)


class _WithoutCheckpoint:
    """A connection that says that it made a checkpoint, and writes nothing whose sync would do as well."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def execute(self, sql: str, *parameters: Any) -> None:
        if not sql.startswith("UPDATE log"):
            await self._connection.execute(sql, *parameters)

    async def execute_fetchall(self, sql: str, *parameters: Any) -> Iterable[Any]:
        if "wal_checkpoint" in sql:
            return [(0, 0, 0)]
        return await self._connection.execute_fetchall(sql, *parameters)


def _no_checkpoint() -> None:
    def make(honest: Any) -> Any:
        async def prepare(path: Any, connection: aiosqlite.Connection, *watch: Any, **options: Any) -> Any:
            return await honest(path, _WithoutCheckpoint(connection), *watch, **options)

        return prepare

    def make_begin(honest: Any) -> Any:
        def begin(lock: LockFile, epoch: str, last_seq: int) -> None:
            # Its sync takes along what else the file system has in its journal, the WAL among it.
            lock.committed(last_seq)

        return begin

    def make_note(honest: Any) -> Any:
        def note(record: SecurityRecord, *_: Any) -> None:
            """Record nothing: the sync of an event would take along the WAL, too."""

        return note

    replace(database, "_prepare", make)
    replace(LockFile, "begin", make_begin)
    replace(SecurityRecord, "note", make_note)


# ── Subscriptions ────────────────────────────────────────────────────────────────────────────────────────


def _dropped_subscription() -> None:
    turn = itertools.count(1)

    def make(honest: Any) -> Any:
        async def change_log(log: SqliteLog, transaction: Transaction, change: Any) -> Any:
            if not isinstance(change, AddSubscription) or next(turn) % 3:
                return await honest(log, transaction, change)
            start_seq = transaction.last_seq if change.start_seq is None else change.start_seq
            return Subscribed(start_seq, created=True, group=change.group)

        return change_log

    replace(SqliteLog, "_change", make)


def _missed_channel() -> None:
    turn = itertools.count(1)

    def make(honest: Any) -> Any:
        def meet(matching: Matching, channels: Any) -> Any:
            jobs = honest(matching, channels)
            return jobs if next(turn) % 3 else []

        return meet

    replace(Matching, "_meet", make)


def _kept_subscription() -> None:
    left: set[tuple[str, str]] = set()

    def make(honest: Any) -> Any:
        async def change_log(log: SqliteLog, transaction: Transaction, change: Any) -> Any:
            if not isinstance(change, RemoveSubscription):
                return await honest(log, transaction, change)
            key = (change.bot_id, change.channel)
            sql = "SELECT 1 FROM bot_subscriptions WHERE bot_id = ? AND channel_name = ?"
            stands = bool(await transaction.connection.execute_fetchall(sql, key)) and key not in left
            left.add(key)
            return stands

        return change_log

    replace(SqliteLog, "_change", make)


def _vanished_unnoticed() -> None:
    del events._PRESENCE["session_vanished"]  # type: ignore[attr-defined]


# ── Mailboxes ────────────────────────────────────────────────────────────────────────────────────────────


def _swapped_order() -> None:
    turn = itertools.count(1)

    def make(honest: Any) -> Any:
        def hand_out(mailbox: Mailbox, *moment: Any) -> Any:
            given: list[HandedOut] = honest(mailbox, *moment)
            for _, packed, _ in given:
                wires, ending = packed[-1]
                if len(wires) > 1 and next(turn) % 2 == 0:
                    packed[-1] = WireDeliveries([*wires[:-2], *wires[:-3:-1]], ending)
            return given

        return hand_out

    replace(Mailbox, "hand_out", make)


def _position_too_early() -> None:
    def make(honest: Any) -> Any:
        def state(mailbox: Mailbox) -> MailboxState:
            saved: MailboxState = honest(mailbox)
            ready = mailbox.intake._ready.parcels()
            position = max([saved.position, *(parcel.seqs[-1] for parcel in ready)])
            return msgspec.structs.replace(saved, position=position)

        return state

    replace(Mailbox, "state", make)


def _forgotten_in_flight() -> None:
    def make(honest: Any) -> Any:
        def state(mailbox: Mailbox) -> MailboxState:
            saved: MailboxState = honest(mailbox)
            return msgspec.structs.replace(saved, unsettled=saved.unsettled[:-1])

        return state

    replace(Mailbox, "state", make)


def _ack_in_the_wrong_mailbox() -> None:
    def make(honest: Any) -> Any:
        def settle(dispatch: Dispatch, session: Session, seqs: Iterable[int]) -> list[Mailbox]:
            mailboxes: list[Mailbox] = []
            for seq in seqs:
                other = _neighbour(dispatch, session, seq)
                mailboxes += honest(dispatch, session if other is None else other, [seq])
            return list(dict.fromkeys(mailboxes))

        return settle

    replace(Dispatch, "settle", make)


def _neighbour(dispatch: Dispatch, session: Session, seq: int) -> Session | None:
    """Give another bot's session that has the same message in flight."""
    for mailbox in dispatch._directory.mailboxes.values():
        for other in mailbox.sessions:
            if other.bot_id != session.bot_id and seq in other.in_flight:
                return other
    return None


_TELLERS: dict[str, Callable[[], None]] = {
    **TELLERS,
    **TELLERS_OF_REMOVALS,
    **TELLERS_OF_RUNS,
    **TELLERS_OF_TIME,
    **TELLERS_OF_ENGINES,
    **TELLERS_OF_VALUES,
    **TELLERS_OF_WILLS,
    "ack_before_commit": _ack_before_commit,
    "torn_commit": _torn_commit,
    "forgotten_checkpoint": _forgotten_checkpoint,
    "no_sync": _no_sync,
    "no_checkpoint": _no_checkpoint,
    "dropped_subscription": _dropped_subscription,
    "kept_subscription": _kept_subscription,
    "missed_channel": _missed_channel,
    "vanished_unnoticed": _vanished_unnoticed,
    "swapped_order": _swapped_order,
    "position_too_early": _position_too_early,
    "forgotten_in_flight": _forgotten_in_flight,
    "ack_in_the_wrong_mailbox": _ack_in_the_wrong_mailbox,
}
