"""Removals by operators in the log in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from bus.model.counting import Span, recounted, spans_of
from bus.model.removing import values_in, waiting_in
from bus.model.repository import (
    CancelDelayed,
    CloseChannel,
    CloseGroup,
    Counted,
    DiscardDeadLetters,
    EndPattern,
    EndSubscription,
    Looked,
    PageRequest,
    PurgeMailbox,
    Remove,
    RemoveBot,
    Removed,
    RemovePattern,
    RemoveSubscription,
    What,
)

if TYPE_CHECKING:
    from .fake_log import FakeLog

__all__ = ["look", "remove"]

_Gone = Sequence[tuple[dict[Any, Any], Sequence[Any]]]
"""The tables from which something goes, and the keys of it."""


def look(log: FakeLog, change: Remove) -> Looked:
    if change.id in log.removals:
        return Looked(replace(log.removals[change.id], again=True))
    found, _ = _find(log, change.what, Removed(change.kind, change.name))
    counted = [
        Counted(each.unread.mailbox_id, span, _messages_in(log, each.unread, span))
        for each in waiting_in(change.what)
        for span in spans_of(each.unread)
    ]
    return Looked(found, tuple(counted))


def remove(log: FakeLog, change: Remove) -> Removed:
    if change.id in log.removals:
        return replace(log.removals[change.id], again=True)
    for each in waiting_in(change.what):
        _check_counted(log, each.unread, change)
    found, gone = _find(log, change.what, Removed(change.kind, change.name))
    if not change.carries_out(found):
        return found
    for table, keys in gone:
        for key in keys:
            table.pop(key, None)
    match change.what:
        case DiscardDeadLetters(mailbox_id):
            log.discarded.update((mailbox_id, seq) for seq in found.seqs)
        case EndSubscription(bot_id, channel, _, str() as passes_to):
            log.unsubscribe(RemoveSubscription(bot_id, channel, passes_to))
        case EndPattern(bot_id, pattern, _, passed):
            log.remove_pattern(RemovePattern(bot_id, pattern, passed))
        case CancelDelayed(sender_bot_id):
            log.cancelled.update((id, sender_bot_id) for id in found.ids)
        case PurgeMailbox(unread):
            log.purged[unread.mailbox_id] = max(unread.through_seq, log.purged.get(unread.mailbox_id, 0))
        case _:
            log.keyed.write_whole(values_in(change.what))
    log.removals[change.id] = removed = replace(found, done=True)
    return removed


def _find(log: FakeLog, what: What | None, nothing: Removed) -> tuple[Removed, _Gone]:
    match what:
        case None:
            return nothing, []
        case DiscardDeadLetters(mailbox_id, seqs):
            dead = [(mailbox_id, seq) for seq in sorted({*seqs}) if (mailbox_id, seq) in log.dead_letters]
            found = replace(nothing, counts={"dead_letters": len(dead)}, seqs=tuple(seq for _, seq in dead))
            return found, [(log.dead_letters, dead)]
        case CancelDelayed(sender_bot_id, ids):
            delayed = [(id, sender_bot_id) for id in sorted({*ids}) if (id, sender_bot_id) in log.scheduled]
            found = replace(nothing, counts={"delayed": len(delayed)}, ids=tuple(id for id, _ in delayed))
            return found, [(log.scheduled, delayed)]
        case PurgeMailbox():
            return replace(nothing, counts={"waiting": _waiting(log, what)}), []
        case EndPattern(bot_id, pattern, waits):
            waiting = 0 if waits is None else _waiting(log, waits)
            counts = {"subscriptions": int((bot_id, pattern) in log.patterns), "waiting": waiting}
            return replace(nothing, counts=counts), []
        case EndSubscription(bot_id, channel, waits, passes_to):
            known = log.subscriptions.get((bot_id, channel))
            there = [] if known is None or known.pattern is not None else [(bot_id, channel)]
            waiting = 0 if waits is None else _waiting(log, waits)
            found = replace(nothing, counts={"subscriptions": len(there), "waiting": waiting})
            return found, [(log.subscriptions, there)] if passes_to is None else []
        case CloseGroup():
            return _of_group(log, what, nothing)
        case CloseChannel():
            return _of_channel(log, what, nothing)
        case RemoveBot():
            return _of_bot(log, what, nothing)


def _of_group(log: FakeLog, what: CloseGroup, nothing: Removed) -> tuple[Removed, _Gone]:
    mailbox_id, place = what.waiting.unread.mailbox_id, (what.channel, what.group)
    members = [key for key, each in log.subscriptions.items() if (each.channel, each.group) == place]
    dead = _dead(log, mailbox_id)
    counts = {
        "waiting": _waiting(log, what.waiting),
        "in_flight": what.in_flight,
        "members": len(members),
        "dead_letters": len(dead),
    }
    gone: _Gone = [(log.subscriptions, members), (log.dead_letters, dead), (log.mailboxes, [mailbox_id])]
    return _in_use(nothing, counts), [*gone, (log.groups, [place])]


def _of_channel(log: FakeLog, what: CloseChannel, nothing: Removed) -> tuple[Removed, _Gone]:
    mailbox_ids = [each.unread.mailbox_id for each in what.groups]
    subscriptions = [key for key in log.subscriptions if key[1] == what.channel]
    groups = [key for key in log.groups if key[0] == what.channel]
    dead = _dead(log, *mailbox_ids)
    counts = {
        "waiting": _waiting(log, *what.groups),
        "subscriptions": len(subscriptions),
        "groups": len(groups),
        "dead_letters": len(dead),
        "delayed": sum(each.recipient_channel == what.channel for each in log.scheduled.values()),
    }
    gone: _Gone = [(log.subscriptions, subscriptions), (log.dead_letters, dead), (log.mailboxes, mailbox_ids)]
    return _in_use(nothing, counts), [*gone, (log.groups, groups), (log.channels, [what.channel])]


def _of_bot(log: FakeLog, what: RemoveBot, nothing: Removed) -> tuple[Removed, _Gone]:
    bot_id = what.bot_id
    subscriptions = [key for key in log.subscriptions if key[0] == bot_id]
    patterns = [key for key in log.patterns if key[0] == bot_id]
    keys = [name for name, key in log.keys.items() if key.bot_id == bot_id]
    dead = _dead(log, bot_id)
    delayed = [each for each in log.scheduled.values() if bot_id in (each.sender_bot_id, each.recipient_bot_id)]
    counts = {
        "sessions": what.sessions,
        "waiting": _waiting(log, what.waiting),
        "runs": 0,
        "definitions": 0,
        "delayed": len(delayed),
        "subscriptions": len(subscriptions),
        "patterns": len(patterns),
        "dead_letters": len(dead),
        "keys": len(keys),
        "wills": sum(stored.will.bot_id == bot_id for stored in log.keyed.wills()),
    }
    gone: _Gone = [(log.subscriptions, subscriptions), (log.dead_letters, dead), (log.mailboxes, [bot_id])]
    found = replace(_in_use(nothing, counts), ids=(bot_id,))
    return found, [*gone, (log.patterns, patterns), (log.keys, keys), (log.bots, [bot_id])]


def _check_counted(log: FakeLog, unread: PageRequest, change: Remove) -> None:
    """What was counted before and what is missing of it are the exact number, but for what left the log since."""
    messages, missing = recounted(unread, change.counted)
    messages += sum(sign * _messages_in(log, unread, span) for span, sign in missing)
    messages -= sum(message.seq in unread.seqs for message in log.wanted(unread))
    exact = sum(log.backlog(unread).values())
    assert exact <= messages <= exact + len(log.removed), (messages, exact, change)


def _messages_in(log: FakeLog, unread: PageRequest, span: Span) -> int:
    source = (span.channel, span.after_seq, span.skip_own)
    return len(log.wanted(replace(unread, sources=(source,), through_seq=span.through_seq)))


def _waiting(log: FakeLog, *mailboxes: PurgeMailbox) -> int:
    return sum(each.returned + sum(log.backlog(each.unread).values()) for each in mailboxes)


def _dead(log: FakeLog, *mailbox_ids: str) -> list[tuple[str, int]]:
    return [key for key in log.dead_letters if key[0] in mailbox_ids]


def _in_use(nothing: Removed, counts: dict[str, int]) -> Removed:
    return replace(nothing, counts=counts, in_the_way={name: count for name, count in counts.items() if count})
