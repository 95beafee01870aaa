"""Removals by operators, and the records of all removals.

Owns the SQL. What is removed, and what its record says, is one transaction.
"""

from __future__ import annotations

import asyncpg
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
from ..server.reader import Reader
from .pages import count_waiting
from .subscriptions import remove_pattern, unsubscribe

__all__ = ["ADD_REMOVAL", "REMOVALS", "note_scrub", "read_removals", "recorded", "remove_what"]

REMOVALS = "SELECT number, id, at, bot_id, bot_name, reference, what, scrubbed_at, checksum FROM removals"

ADD_REMOVAL = """
    INSERT INTO removals (id, at, bot_id, bot_name, reference, what, scrubbed_at, checksum)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"""

_DEAD_LETTERS = "mailbox_id = $1 AND seq = ANY($2::bigint[])"

_DEAD_LETTERS_OF = "FROM dead_letters WHERE mailbox_id = $1"

_SUBSCRIPTION = "bot_id = $1 AND channel_name = $2 AND pattern IS NULL"

_MEMBERS = "FROM bot_subscriptions WHERE channel_name = $1 AND group_name = $2"

_OF_BOT = {
    "subscriptions": "FROM bot_subscriptions WHERE bot_id = $1",
    "patterns": "FROM bot_patterns WHERE bot_id = $1",
    "dead_letters": _DEAD_LETTERS_OF,
    "keys": "FROM keys WHERE bot_id = $1",
}
# Named one by one, so that an index finds them among those that have ended.
_OPEN = "('pending', 'running', 'paused', 'crashed')"
_KEPT_OF_BOT = {
    "runs": f"FROM workflow_runs WHERE holder_bot_id = $1 AND status IN {_OPEN}",
    "definitions": "FROM workflows WHERE owner_bot_id = $1",
    "delayed": "FROM scheduled_messages WHERE sender_bot_id = $1 OR recipient_bot_id = $1",
}

_IN_MAILBOXES = "mailbox_id = ANY($1::text[])"

_DELAYED = "sender_bot_id = $1 AND id = ANY($2::text[])"


async def recorded(connection: asyncpg.Connection, id: str) -> str | None:
    """Return what is recorded of a removal with an id, or None."""
    what: str | None = await connection.fetchval("SELECT what FROM removals WHERE id = $1", id)
    return what


async def remove_what(connection: asyncpg.Connection, change: Remove) -> Removed:
    """Carry out a removal, or return what it did before, or would do."""
    what = await recorded(connection, change.id)
    if what is not None:
        return removed_before(what, change)
    removed = await _remove(connection, change, Removed(change.kind, change.name))
    if not change.carries_out(removed):
        return removed
    removed = msgspec.structs.replace(removed, done=True)
    await connection.execute(ADD_REMOVAL, *removal_row(change, removed))
    return removed


async def _remove(connection: asyncpg.Connection, change: Remove, nothing: Removed) -> Removed:
    match change.what:
        case None:
            return nothing
        case DiscardDeadLetters(mailbox_id, seqs):
            rows = await connection.fetch(
                f"SELECT seq FROM dead_letters WHERE {_DEAD_LETTERS} ORDER BY seq", mailbox_id, seqs
            )
            if not change.dry_run:
                await connection.execute(f"DELETE FROM dead_letters WHERE {_DEAD_LETTERS}", mailbox_id, seqs)
            found = tuple(row[0] for row in rows)
            return msgspec.structs.replace(nothing, counts={"dead_letters": len(found)}, seqs=found)
        case CancelDelayed(sender_bot_id, ids):
            rows = await connection.fetch(
                f"SELECT id FROM scheduled_messages WHERE {_DELAYED} ORDER BY id", sender_bot_id, ids
            )
            if not change.dry_run:
                await connection.execute(f"DELETE FROM scheduled_messages WHERE {_DELAYED}", sender_bot_id, ids)
            waiting = tuple(row[0] for row in rows)
            return msgspec.structs.replace(nothing, counts={"delayed": len(waiting)}, ids=waiting)
        case PurgeMailbox():
            return msgspec.structs.replace(nothing, counts={"waiting": await _waiting(connection, change.what)})
        case EndSubscription(bot_id, channel, waiting, passes_to):
            there = await connection.fetchval(
                f"SELECT COUNT(*) FROM bot_subscriptions WHERE {_SUBSCRIPTION}", bot_id, channel
            )
            if not change.dry_run:
                await unsubscribe(connection, RemoveSubscription(bot_id, channel, passes_to))
            counts = {"subscriptions": there, "waiting": await _waiting(connection, waiting)}
            return msgspec.structs.replace(nothing, counts=counts)
        case EndPattern(bot_id, pattern, waiting, passed):
            there = await connection.fetchval(
                "SELECT COUNT(*) FROM bot_patterns WHERE bot_id = $1 AND pattern = $2", bot_id, pattern
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
    connection: asyncpg.Connection, change: Remove, what: CloseChannel, nothing: Removed
) -> Removed:
    mailboxes = [each.unread.mailbox_id for each in what.groups]
    counts = {"waiting": sum([await _waiting(connection, each) for each in what.groups])}
    for name, (sql, value) in {
        "subscriptions": ("FROM bot_subscriptions WHERE channel_name = $1", what.channel),
        "groups": ("FROM channel_groups WHERE channel_name = $1", what.channel),
        "dead_letters": (f"FROM dead_letters WHERE {_IN_MAILBOXES}", mailboxes),
        "delayed": ("FROM scheduled_messages WHERE recipient_channel = $1", what.channel),
    }.items():
        counts[name] = await connection.fetchval(f"SELECT COUNT(*) {sql}", value)
    removed = msgspec.structs.replace(
        nothing, counts=counts, in_the_way={name: count for name, count in counts.items() if count}
    )
    if not change.carries_out(removed):
        return removed
    await connection.execute("DELETE FROM bot_channels WHERE name = $1", what.channel)  # and what refers to it
    await connection.execute(f"DELETE FROM dead_letters WHERE {_IN_MAILBOXES}", mailboxes)
    await connection.execute("DELETE FROM mailboxes WHERE id = ANY($1::text[])", mailboxes)
    return removed


async def _remove_bot(connection: asyncpg.Connection, change: Remove, what: RemoveBot, nothing: Removed) -> Removed:
    counts = {"sessions": what.sessions, "waiting": await _waiting(connection, what.waiting)}
    for name, sql in {**_KEPT_OF_BOT, **_OF_BOT}.items():
        counts[name] = await connection.fetchval(f"SELECT COUNT(*) {sql}", what.bot_id)
    in_the_way = {name: count for name, count in counts.items() if count}
    removed = msgspec.structs.replace(nothing, counts=counts, ids=(what.bot_id,), in_the_way=in_the_way)
    if not change.carries_out(removed):
        return removed
    for sql in _OF_BOT.values():
        await connection.execute(f"DELETE {sql}", what.bot_id)
    await connection.execute("DELETE FROM mailboxes WHERE id = $1", what.bot_id)
    await connection.execute("DELETE FROM bots WHERE id = $1", what.bot_id)
    return removed


async def _waiting(connection: asyncpg.Connection, waiting: PurgeMailbox | None) -> int:
    return 0 if waiting is None else waiting.returned + await count_waiting(connection, waiting.unread)


async def _close_group(
    connection: asyncpg.Connection, change: Remove, what: CloseGroup, nothing: Removed
) -> Removed:
    group, mailbox = (what.channel, what.group), (what.waiting.unread.mailbox_id,)
    counts = {"waiting": await _waiting(connection, what.waiting), "in_flight": what.in_flight}
    for name, sql, values in (("members", _MEMBERS, group), ("dead_letters", _DEAD_LETTERS_OF, mailbox)):
        counts[name] = await connection.fetchval(f"SELECT COUNT(*) {sql}", *values)
    in_the_way = {name: count for name, count in counts.items() if count}
    removed = msgspec.structs.replace(nothing, counts=counts, in_the_way=in_the_way)
    if not change.carries_out(removed):
        return removed
    await connection.execute(f"DELETE {_MEMBERS}", *group)
    await connection.execute("DELETE FROM channel_groups WHERE channel_name = $1 AND name = $2", *group)
    await connection.execute(f"DELETE {_DEAD_LETTERS_OF}", *mailbox)
    await connection.execute("DELETE FROM mailboxes WHERE id = $1", *mailbox)
    return removed


async def read_removals(reader: Reader, after: int, limit: int) -> list[Removal]:
    """Return records in their order."""
    rows = await reader.fetch(f"{REMOVALS} WHERE number > $1 ORDER BY number LIMIT $2", after, limit)
    return [removal_of(row) for row in rows]


async def note_scrub(connection: asyncpg.Connection, through: int, at: str) -> None:
    """Note the time since when nothing is left of what was removed, up to a record."""
    for number, *values, _ in await connection.fetch(
        f"{REMOVALS} WHERE scrubbed_at IS NULL AND number <= $1 ORDER BY number", through
    ):
        await connection.execute(
            "UPDATE removals SET scrubbed_at = $1, checksum = $2 WHERE number = $3",
            at,
            seal(*values[:6], at),
            number,
        )
