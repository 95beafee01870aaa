"""Removals by operators in the log in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from bus.model.repository import (
    CancelDelayed,
    CloseChannel,
    CloseGroup,
    DiscardDeadLetters,
    EndPattern,
    EndSubscription,
    PurgeMailbox,
    Remove,
    RemoveBot,
    Removed,
    RemovePattern,
    RemoveSubscription,
)

if TYPE_CHECKING:
    from .fake_log import FakeLog

__all__ = ["remove"]


def remove(log: FakeLog, change: Remove) -> Removed:
    if change.id in log.removals:
        return replace(log.removals[change.id], again=True)
    removed = Removed(change.kind, change.name, done=not change.dry_run)
    match change.what:
        case DiscardDeadLetters(mailbox_id, seqs):
            found = tuple(seq for seq in sorted({*seqs}) if (mailbox_id, seq) in log.dead_letters)
            removed = replace(removed, counts={"dead_letters": len(found)}, seqs=found)
            if removed.done:
                for seq in found:
                    del log.dead_letters[mailbox_id, seq]
                log.discarded.update((mailbox_id, seq) for seq in found)
        case CancelDelayed(sender_bot_id, ids):
            keys = [(id, sender_bot_id) for id in sorted({*ids}) if (id, sender_bot_id) in log.scheduled]
            removed = replace(removed, counts={"delayed": len(keys)}, ids=tuple(id for id, _ in keys))
            if removed.done:
                for key in keys:
                    del log.scheduled[key]
                log.cancelled.update(keys)
        case EndSubscription(bot_id, channel, waits, passes_to):
            known = log.subscriptions.get((bot_id, channel))
            there = int(known is not None and known.pattern is None)
            count = 0 if waits is None else waits.returned + sum(log.backlog(waits.unread).values())
            removed = replace(removed, counts={"subscriptions": there, "waiting": count})
            if removed.done:
                log.unsubscribe(RemoveSubscription(bot_id, channel, passes_to))
        case EndPattern(bot_id, pattern, waits, passed):
            there = int((bot_id, pattern) in log.patterns)
            count = 0 if waits is None else waits.returned + sum(log.backlog(waits.unread).values())
            removed = replace(removed, counts={"subscriptions": there, "waiting": count})
            if removed.done:
                log.remove_pattern(RemovePattern(bot_id, pattern, passed))
        case CloseGroup():
            removed = _close_group(log, change, change.what, removed)
        case CloseChannel():
            removed = _close_channel(log, change, change.what, removed)
        case RemoveBot():
            removed = _remove_bot(log, change, change.what, removed)
        case PurgeMailbox(unread, returned):
            waiting = sum(log.backlog(unread).values())
            removed = replace(removed, counts={"waiting": returned + waiting})
            if removed.done:
                log.purged[unread.mailbox_id] = max(unread.through_seq, log.purged.get(unread.mailbox_id, 0))
    if removed.done:
        log.removals[change.id] = removed
    return removed


def _close_group(log: FakeLog, change: Remove, what: CloseGroup, removed: Removed) -> Removed:
    group, mailbox_id = (what.channel, what.group), what.waiting.unread.mailbox_id
    members = [key for key, each in log.subscriptions.items() if (each.channel, each.group) == group]
    dead = [key for key in log.dead_letters if key[0] == mailbox_id]
    counts = {
        "waiting": what.waiting.returned + sum(log.backlog(what.waiting.unread).values()),
        "in_flight": what.in_flight,
        "members": len(members),
        "dead_letters": len(dead),
    }
    in_the_way = {name: count for name, count in counts.items() if count}
    done = removed.done and (change.force or not in_the_way)
    if done:
        for key in members:
            del log.subscriptions[key]
        for letter in dead:
            del log.dead_letters[letter]
        log.groups.pop(group, None)
        log.mailboxes.pop(mailbox_id, None)
    return replace(removed, counts=counts, in_the_way=in_the_way, done=done)


def _close_channel(log: FakeLog, change: Remove, what: CloseChannel, removed: Removed) -> Removed:
    mailboxes = {each.unread.mailbox_id for each in what.groups}
    subscriptions = [key for key in log.subscriptions if key[1] == what.channel]
    groups = [key for key in log.groups if key[0] == what.channel]
    dead = [key for key in log.dead_letters if key[0] in mailboxes]
    counts = {
        "waiting": sum(each.returned + sum(log.backlog(each.unread).values()) for each in what.groups),
        "subscriptions": len(subscriptions),
        "groups": len(groups),
        "dead_letters": len(dead),
        "delayed": sum(each.recipient_channel == what.channel for each in log.scheduled.values()),
    }
    in_the_way = {name: count for name, count in counts.items() if count}
    removed = replace(removed, counts=counts, in_the_way=in_the_way)
    if not removed.done or removed.is_refused(force=change.force):
        return replace(removed, done=False)
    for key in subscriptions:
        del log.subscriptions[key]
    for group in groups:
        del log.groups[group]
    for letter in dead:
        del log.dead_letters[letter]
    for mailbox_id in mailboxes:
        log.mailboxes.pop(mailbox_id, None)
    log.channels.pop(what.channel, None)
    return removed


def _remove_bot(log: FakeLog, change: Remove, what: RemoveBot, removed: Removed) -> Removed:
    id = what.bot_id
    subscriptions = [key for key in log.subscriptions if key[0] == id]
    patterns = [key for key in log.patterns if key[0] == id]
    dead = [key for key in log.dead_letters if key[0] == id]
    keys = [name for name, key in log.keys.items() if key.bot_id == id]
    counts = {
        "sessions": what.sessions,
        "waiting": what.waiting.returned + sum(log.backlog(what.waiting.unread).values()),
        "runs": 0,
        "definitions": 0,
        "delayed": sum(id in (each.sender_bot_id, each.recipient_bot_id) for each in log.scheduled.values()),
        "subscriptions": len(subscriptions),
        "patterns": len(patterns),
        "dead_letters": len(dead),
        "keys": len(keys),
    }
    in_the_way = {name: count for name, count in counts.items() if count}
    removed = replace(removed, counts=counts, ids=(id,), in_the_way=in_the_way)
    if not removed.done or removed.is_refused(force=change.force):
        return replace(removed, done=False)
    for key in subscriptions:
        del log.subscriptions[key]
    for letter in dead:
        del log.dead_letters[letter]
    for pattern in patterns:
        del log.patterns[pattern]
    for name in keys:
        del log.keys[name]
    log.bots.pop(id, None)
    log.mailboxes.pop(id, None)
    return removed
