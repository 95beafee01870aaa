"""Removals by operators, and the records of all removals.

Owns the SQL. What is removed, and what its record says, is one transaction.
"""

from __future__ import annotations

import json

import aiosqlite
import msgspec

from bus.model.repository import (
    CancelDelayed,
    CloseChannel,
    CloseGroup,
    DiscardDeadLetters,
    EndPattern,
    EndSubscription,
    PurgeMailbox,
    Removal,
    Remove,
    RemoveBot,
    Removed,
    RemovePattern,
    RemoveSubscription,
)

from ...seals import removal_of, removal_row, removed_before, seal
from ..file.reader import Reader
from .pages import count_waiting
from .subscriptions import remove_pattern, unsubscribe

__all__ = ["ADD_REMOVAL", "REMOVALS", "note_scrub", "read_removals", "recorded", "remove_what"]

REMOVALS = "SELECT number, id, at, bot_id, bot_name, reference, what, scrubbed_at, checksum FROM removals"

ADD_REMOVAL = """
    INSERT INTO removals (id, at, bot_id, bot_name, reference, what, scrubbed_at, checksum)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""

_DEAD_LETTERS = "mailbox_id = ? AND seq IN (SELECT value FROM json_each(?))"

_DEAD_LETTERS_OF = "FROM dead_letters WHERE mailbox_id = ?"

_SUBSCRIPTION = "bot_id = ? AND channel_name = ? AND pattern IS NULL"

_MEMBERS = "FROM bot_subscriptions WHERE channel_name = ? AND group_name = ?"

_OF_BOT = {
    "subscriptions": "FROM bot_subscriptions WHERE bot_id = ?",
    "patterns": "FROM bot_patterns WHERE bot_id = ?",
    "dead_letters": _DEAD_LETTERS_OF,
    "keys": "FROM keys WHERE bot_id = ?",
}
# Named one by one, so that an index finds them among those that have ended.
_OPEN = "('pending', 'running', 'paused', 'crashed')"
_KEPT_OF_BOT = {
    "runs": f"FROM workflow_runs WHERE holder_bot_id = ? AND status IN {_OPEN}",
    "definitions": "FROM workflows WHERE owner_bot_id = ?",
    "delayed": "FROM scheduled_messages WHERE sender_bot_id = ?1 OR recipient_bot_id = ?1",
}

_IN_MAILBOXES = "mailbox_id IN (SELECT value FROM json_each(?))"

_DELAYED = "sender_bot_id = ? AND id IN (SELECT value FROM json_each(?))"


async def recorded(connection: aiosqlite.Connection, id: str) -> str | None:
    """Return what is recorded of a removal with an id, or None."""
    for (what,) in await connection.execute_fetchall("SELECT what FROM removals WHERE id = ?", (id,)):
        return str(what)
    return None


async def remove_what(connection: aiosqlite.Connection, change: Remove) -> Removed:
    """Carry out a removal, or return what it did before, or would do."""
    what = await recorded(connection, change.id)
    if what is not None:
        return removed_before(what, change)
    removed = await _remove(connection, change, Removed(change.kind, change.name))
    if not change.carries_out(removed):
        return removed
    removed = msgspec.structs.replace(removed, done=True)
    await connection.execute(ADD_REMOVAL, removal_row(change, removed))
    return removed


async def _remove(connection: aiosqlite.Connection, change: Remove, nothing: Removed) -> Removed:
    match change.what:
        case None:
            return nothing
        case DiscardDeadLetters(mailbox_id, seqs):
            named = (mailbox_id, json.dumps(seqs))
            rows = await connection.execute_fetchall(
                f"SELECT seq FROM dead_letters WHERE {_DEAD_LETTERS} ORDER BY seq", named
            )
            if not change.dry_run:
                await connection.execute(f"DELETE FROM dead_letters WHERE {_DEAD_LETTERS}", named)
            found = tuple(row[0] for row in rows)
            return msgspec.structs.replace(nothing, counts={"dead_letters": len(found)}, seqs=found)
        case CancelDelayed(sender_bot_id, ids):
            named = (sender_bot_id, json.dumps(ids))
            rows = await connection.execute_fetchall(
                f"SELECT id FROM scheduled_messages WHERE {_DELAYED} ORDER BY id", named
            )
            if not change.dry_run:
                await connection.execute(f"DELETE FROM scheduled_messages WHERE {_DELAYED}", named)
            waiting = tuple(row[0] for row in rows)
            return msgspec.structs.replace(nothing, counts={"delayed": len(waiting)}, ids=waiting)
        case PurgeMailbox():
            return msgspec.structs.replace(nothing, counts={"waiting": await _waiting(connection, change.what)})
        case EndSubscription(bot_id, channel, waiting, passes_to):
            [[there]] = await connection.execute_fetchall(
                f"SELECT COUNT(*) FROM bot_subscriptions WHERE {_SUBSCRIPTION}", (bot_id, channel)
            )
            if not change.dry_run:
                await unsubscribe(connection, RemoveSubscription(bot_id, channel, passes_to))
            counts = {"subscriptions": there, "waiting": await _waiting(connection, waiting)}
            return msgspec.structs.replace(nothing, counts=counts)
        case EndPattern(bot_id, pattern, waiting, passed):
            [[there]] = await connection.execute_fetchall(
                "SELECT COUNT(*) FROM bot_patterns WHERE bot_id = ? AND pattern = ?", (bot_id, pattern)
            )
            if not change.dry_run:
                await remove_pattern(connection, RemovePattern(bot_id, pattern, passed))
            counts = {"subscriptions": there, "waiting": await _waiting(connection, waiting)}
            return msgspec.structs.replace(nothing, counts=counts)
        case CloseGroup():
            return await _close_group(connection, change, change.what, nothing)
        case CloseChannel():
            return await _close_channel(connection, change, change.what, nothing)
        case RemoveBot():
            return await _remove_bot(connection, change, change.what, nothing)


async def _close_channel(
    connection: aiosqlite.Connection, change: Remove, what: CloseChannel, nothing: Removed
) -> Removed:
    mailboxes = json.dumps([each.unread.mailbox_id for each in what.groups])
    counts = {"waiting": sum([await _waiting(connection, each) for each in what.groups])}
    for name, (sql, value) in {
        "subscriptions": ("FROM bot_subscriptions WHERE channel_name = ?", what.channel),
        "groups": ("FROM channel_groups WHERE channel_name = ?", what.channel),
        "dead_letters": (f"FROM dead_letters WHERE {_IN_MAILBOXES}", mailboxes),
        "delayed": ("FROM scheduled_messages WHERE recipient_channel = ?", what.channel),
    }.items():
        [[counts[name]]] = await connection.execute_fetchall(f"SELECT COUNT(*) {sql}", (value,))
    removed = msgspec.structs.replace(
        nothing, counts=counts, in_the_way={name: count for name, count in counts.items() if count}
    )
    if not change.carries_out(removed):
        return removed
    await connection.execute("DELETE FROM bot_channels WHERE name = ?", (what.channel,))  # and what refers to it
    await connection.execute(f"DELETE FROM dead_letters WHERE {_IN_MAILBOXES}", (mailboxes,))
    await connection.execute("DELETE FROM mailboxes WHERE id IN (SELECT value FROM json_each(?))", (mailboxes,))
    return removed


async def _remove_bot(
    connection: aiosqlite.Connection, change: Remove, what: RemoveBot, nothing: Removed
) -> Removed:
    bot = (what.bot_id,)
    counts = {"sessions": what.sessions, "waiting": await _waiting(connection, what.waiting)}
    for name, sql in {**_KEPT_OF_BOT, **_OF_BOT}.items():
        [[counts[name]]] = await connection.execute_fetchall(f"SELECT COUNT(*) {sql}", bot)
    in_the_way = {name: count for name, count in counts.items() if count}
    removed = msgspec.structs.replace(nothing, counts=counts, ids=(what.bot_id,), in_the_way=in_the_way)
    if not change.carries_out(removed):
        return removed
    for sql in _OF_BOT.values():
        await connection.execute(f"DELETE {sql}", bot)
    await connection.execute("DELETE FROM mailboxes WHERE id = ?", bot)
    await connection.execute("DELETE FROM bots WHERE id = ?", bot)
    return removed


async def _waiting(connection: aiosqlite.Connection, waiting: PurgeMailbox | None) -> int:
    return 0 if waiting is None else waiting.returned + await count_waiting(connection, waiting.unread)


async def _close_group(
    connection: aiosqlite.Connection, change: Remove, what: CloseGroup, nothing: Removed
) -> Removed:
    group, mailbox = (what.channel, what.group), (what.waiting.unread.mailbox_id,)
    counts = {"waiting": await _waiting(connection, what.waiting), "in_flight": what.in_flight}
    for name, sql, values in (("members", _MEMBERS, group), ("dead_letters", _DEAD_LETTERS_OF, mailbox)):
        [[counts[name]]] = await connection.execute_fetchall(f"SELECT COUNT(*) {sql}", values)
    in_the_way = {name: count for name, count in counts.items() if count}
    removed = msgspec.structs.replace(nothing, counts=counts, in_the_way=in_the_way)
    if not change.carries_out(removed):
        return removed
    await connection.execute(f"DELETE {_MEMBERS}", group)
    await connection.execute("DELETE FROM channel_groups WHERE channel_name = ? AND name = ?", group)
    await connection.execute(f"DELETE {_DEAD_LETTERS_OF}", mailbox)
    await connection.execute("DELETE FROM mailboxes WHERE id = ?", mailbox)
    return removed


async def read_removals(reader: Reader, after: int, limit: int) -> list[Removal]:
    """Return records in their order."""
    rows = await reader.execute_fetchall(f"{REMOVALS} WHERE number > ? ORDER BY number LIMIT ?", (after, limit))
    return [removal_of(row) for row in rows]


async def note_scrub(connection: aiosqlite.Connection, through: int, at: str) -> None:
    """Note the time since when nothing is left of what was removed, up to a record."""
    rows = await connection.execute_fetchall(
        f"{REMOVALS} WHERE scrubbed_at IS NULL AND number <= ? ORDER BY number", (through,)
    )
    for number, *values, _ in rows:
        await connection.execute(
            "UPDATE removals SET scrubbed_at = ?, checksum = ? WHERE number = ?",
            (at, seal(*values[:6], at), number),
        )
