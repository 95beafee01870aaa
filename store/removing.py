"""What a removal finds and deletes, in every backend: which parts of the tables each kind is about.

Owns the counts, what is in the way, and the SQL of the parts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal

import msgspec

from bus.model.removing import waiting_in
from bus.model.repository import (
    CancelDelayed,
    CloseChannel,
    CloseGroup,
    Counted,
    DiscardDeadLetters,
    EndPattern,
    EndSubscription,
    PageRequest,
    PurgeMailbox,
    Remove,
    RemoveBot,
    Removed,
    What,
)
from bus.model.wills import WILLS

from .keyed_rows import VALUED
from .statements import Statements

__all__ = ["CountWaiting", "TablePart", "Tables", "delete", "find"]

TablePart = Literal[
    "dead letters", "dead letters of mailboxes", "delayed", "delayed for channel", "delayed of bot", "subscription",
    "subscriptions of channel", "subscriptions of bot", "members", "group", "groups of channel", "channel",
    "mailboxes", "keys of bot", "runs of bot", "definitions of bot", "will of bot", "bot",
    "pattern", "patterns of bot",
]  # fmt: skip
"""A part of a table."""

_Named = tuple[TablePart, tuple[Any, ...]]
"""A part with its values: names, or sequences of them."""


# Named one by one, so that an index finds them among those that have ended.
_OPEN = "('pending', 'running', 'paused', 'crashed')"

_PARTS: dict[TablePart, str] = {
    "dead letters": "dead_letters WHERE mailbox_id = ?1 AND seq IN [?2]",
    "dead letters of mailboxes": "dead_letters WHERE mailbox_id IN [?1]",
    "delayed": "scheduled_messages WHERE sender_bot_id = ?1 AND id IN [?2]",
    "delayed for channel": "scheduled_messages WHERE recipient_channel = ?1",
    "delayed of bot": "scheduled_messages WHERE sender_bot_id = ?1 OR recipient_bot_id = ?1",
    "subscription": "bot_subscriptions WHERE bot_id = ?1 AND channel_name = ?2 AND pattern IS NULL",
    "pattern": "bot_patterns WHERE bot_id = ?1 AND pattern = ?2",
    "patterns of bot": "bot_patterns WHERE bot_id = ?1",
    "subscriptions of channel": "bot_subscriptions WHERE channel_name = ?1",
    "subscriptions of bot": "bot_subscriptions WHERE bot_id = ?1",
    "members": "bot_subscriptions WHERE channel_name = ?1 AND group_name = ?2",
    "group": "channel_groups WHERE channel_name = ?1 AND name = ?2",
    "groups of channel": "channel_groups WHERE channel_name = ?1",
    "channel": "bot_channels WHERE name = ?1",
    "mailboxes": "mailboxes WHERE id IN [?1]",
    "keys of bot": "keys WHERE bot_id = ?1",
    "runs of bot": f"workflow_runs WHERE holder_bot_id = ?1 AND status IN {_OPEN}",
    "definitions of bot": "workflows WHERE owner_bot_id = ?1",
    "will of bot": f"keyed_values WHERE store = '{WILLS}' AND key = ?1 AND {VALUED}",
    "bot": "bots WHERE id = ?1",
}

CountWaiting = Callable[[PageRequest, Iterable[Counted]], Awaitable[int]]
"""Returns how many messages of a mailbox are unread."""


class Tables:
    """The tables, in a transaction or as they are read."""

    def __init__(self, run: Statements, count_waiting: CountWaiting) -> None:
        self._run = run
        self.count_waiting = count_waiting

    def __repr__(self) -> str:
        return f"<Tables {self._run}>"

    async def find(self, part: TablePart, column: str, *values: Any) -> tuple[Any, ...]:
        """Return the values of a column, in their order."""
        rows = await self._run(f"SELECT {column} FROM {_PARTS[part]} ORDER BY {column}", *values)
        return tuple(row[0] for row in rows)

    async def count(self, part: TablePart, *values: Any) -> int:
        """Return how many rows there are."""
        [[count]] = await self._run(f"SELECT COUNT(*) FROM {_PARTS[part]}", *values)
        return int(count)

    async def delete(self, part: TablePart, *values: Any) -> None:
        """Delete the rows."""
        await self._run(f"DELETE FROM {_PARTS[part]}", *values)


async def find(tables: Tables, change: Remove) -> Removed:
    """Count what is to be removed, and what is in the way."""
    found, what = Removed(change.kind, change.name), change.what
    match what:
        case DiscardDeadLetters(mailbox_id, seqs):
            letters = await tables.find("dead letters", "seq", mailbox_id, seqs)
            return msgspec.structs.replace(found, counts={"dead_letters": len(letters)}, seqs=letters)
        case CancelDelayed(sender_bot_id, ids):
            delayed = await tables.find("delayed", "id", sender_bot_id, ids)
            return msgspec.structs.replace(found, counts={"delayed": len(delayed)}, ids=delayed)
    counts = _known(what)
    for each in waiting_in(what):
        counts["waiting"] += each.returned + await tables.count_waiting(each.unread, change.counted)
    for name, (part, values) in _counted(what).items():
        counts[name] = await tables.count(part, *values)
    found = msgspec.structs.replace(found, counts=counts)
    if not isinstance(what, CloseGroup | CloseChannel | RemoveBot):
        return found
    in_the_way = {name: count for name, count in counts.items() if count}
    ids = (what.bot_id,) if isinstance(what, RemoveBot) else ()
    return msgspec.structs.replace(found, ids=ids, in_the_way=in_the_way)


async def delete(tables: Tables, what: What | None) -> None:
    """Delete what was found."""
    for part, values in _deleted(what):
        await tables.delete(part, *values)


def _known(what: What | None) -> dict[str, int]:
    """Return the counts that the core knows, in the order in which all are told."""
    match what:
        case RemoveBot(sessions=sessions):
            return {"sessions": sessions, "waiting": 0}
        case CloseGroup(in_flight=in_flight):
            return {"waiting": 0, "in_flight": in_flight}
        case EndSubscription() | EndPattern():
            return {"subscriptions": 0, "waiting": 0}
        case None:
            return {}
        case _:
            return {"waiting": 0}


def _counted(what: What | None) -> dict[str, _Named]:
    match what:
        case EndSubscription(bot_id, channel):
            return {"subscriptions": ("subscription", (bot_id, channel))}
        case EndPattern(bot_id, pattern):
            return {"subscriptions": ("pattern", (bot_id, pattern))}
        case CloseGroup(channel, group, mailbox):
            return {
                "members": ("members", (channel, group)),
                "dead_letters": ("dead letters of mailboxes", (_ids(mailbox),)),
            }
        case CloseChannel(channel, groups):
            return {
                "subscriptions": ("subscriptions of channel", (channel,)),
                "groups": ("groups of channel", (channel,)),
                "dead_letters": ("dead letters of mailboxes", (_ids(*groups),)),
                "delayed": ("delayed for channel", (channel,)),
            }
        case RemoveBot(bot_id):
            return {
                "runs": ("runs of bot", (bot_id,)),
                "definitions": ("definitions of bot", (bot_id,)),
                "delayed": ("delayed of bot", (bot_id,)),
                "subscriptions": ("subscriptions of bot", (bot_id,)),
                "patterns": ("patterns of bot", (bot_id,)),
                "dead_letters": ("dead letters of mailboxes", ([bot_id],)),
                "keys": ("keys of bot", (bot_id,)),
                "wills": ("will of bot", (bot_id,)),
            }
        case _:
            return {}


def _deleted(what: What | None) -> list[_Named]:
    match what:
        case DiscardDeadLetters(mailbox_id, seqs):
            return [("dead letters", (mailbox_id, seqs))]
        case CancelDelayed(sender_bot_id, ids):
            return [("delayed", (sender_bot_id, ids))]
        case EndSubscription(bot_id, channel):
            return [("subscription", (bot_id, channel))]
        case CloseGroup(channel, group, mailbox):
            return [("members", (channel, group)), ("group", (channel, group)), *_mailboxes(_ids(mailbox))]
        case CloseChannel(channel, groups):
            return [("channel", (channel,)), *_mailboxes(_ids(*groups))]  # with what refers to it
        case RemoveBot(bot_id):
            parts: list[TablePart] = ["subscriptions of bot", "patterns of bot", "keys of bot"]
            return [*((part, (bot_id,)) for part in parts), *_mailboxes([bot_id]), ("bot", (bot_id,))]
        case PurgeMailbox() | EndPattern() | None:
            return []  # what ends with a pattern, and what passes to another, is the backend's to say


def _mailboxes(ids: list[str]) -> list[_Named]:
    return [("dead letters of mailboxes", (ids,)), ("mailboxes", (ids,))]


def _ids(*mailboxes: PurgeMailbox) -> list[str]:
    return [each.unread.mailbox_id for each in mailboxes]
