"""What a simulated world expects of the worker: who was told what, and what follows from it.

Owns the promises of docs/contract.md as checks, over a memory of its own: what was acknowledged, subscribed,
delivered and confirmed. It looks into the core only where a bound on memory or a count is promised.

A mailbox has a key here: the name of its bot, or `channel/group`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from bus.core.core import Core
from bus.core.effects import Moment
from bus.mailbox.mailbox import Mailbox
from bus.mailbox.sessions import Session
from bus.model.records import EVENTS_CHANNEL, TOLD_CHANNELS, WORKER_ID, WORKER_NAME
from bus.model.repository import (
    AddDeadLetters,
    AddSubscription,
    Change,
    CloseChannel,
    CloseGroup,
    DiscardDeadLetters,
    EndPattern,
    EndSubscription,
    LogMessage,
    PageRequest,
    PurgeMailbox,
    ReleaseDue,
    Remove,
    RemoveMessages,
    RemoveSubscription,
    Subscription,
    group_mailbox_id,
)
from bus.settings import Settings
from bus.wire.frames import Gap, Publication, StoredMessage

from .fake_log import FakeLog, key_of
from .file_faults import backlog_faults, file_faults
from .patterned import Brought, changed_by_patterns, left_out, owed_by_patterns
from .placement import placement_faults
from .prioritized import is_of, overtaking_faults
from .simulated_settings import GROUPS
from .telling import telling_faults

__all__ = ["Promises", "Violation"]

_LARGEST_BYTES = 700
"""The largest message of the simulation as it is delivered: the one that passes a limit in bytes still goes out."""


class Violation(AssertionError):
    """A promise was broken; the text says which, and the seed plays it again."""


class Promises:
    """See the module. Every `check_…` and `note_…` raises Violation where a promise is broken."""

    def __init__(self, log: FakeLog, settings: Settings) -> None:
        self.log = log
        self.settings = settings
        self.steps = 0
        self.deliveries = 0
        self.sent: dict[str, Publication] = {}
        """The first publication with each id. Other bots use it, too: then theirs are other messages."""
        self.awaited: set[str] = set()
        """The ids of messages whose senders awaited a reply."""
        self.acknowledged: dict[tuple[str, str], int | None] = {}
        """Each acknowledged message, by id and sender, with its seq; None while it waits until it is due."""
        self.written: dict[int, LogMessage] = {}
        """Every message that was ever in the log."""
        self.subscribed: dict[tuple[str, str], Subscription] = {}
        """What was acknowledged as subscribed, by bot and channel; a repeated request changes no echo."""
        self.patterns: set[tuple[str, str]] = set()
        """Bots and patterns whose subscription was acknowledged."""
        self._brought = Brought(log)
        self._is_operated = False
        """Whether an operator removes something, or has: what a pattern brings again comes a little later."""
        self.interests: dict[tuple[str, str], Subscription] = {}
        """What the core was told is subscribed."""
        self.delivered: defaultdict[str, set[int]] = defaultdict(set)
        self.settled: defaultdict[str, set[int]] = defaultdict(set)
        self.purged: defaultdict[str, set[int]] = defaultdict(set)
        """What each mailbox passes over because an operator said so."""
        self.discarded: set[tuple[str, int]] = set()
        self._removals: dict[str, dict[str, Any]] = {}
        """What was told of each removal."""
        self.gaps: defaultdict[str, list[Gap]] = defaultdict(list)
        self._firsts: defaultdict[int, dict[str, int]] = defaultdict(dict)
        """By priority, the last message that each mailbox delivered for the first time."""
        self._since: dict[tuple[str, str], int] = {}
        """The end of the log when a bot subscribed: of what is older, retention may have taken some already."""
        self._released: dict[tuple[str, str], int] = {}
        self._due_at: dict[tuple[str, str], str] = {}
        """When each message that waits is due."""
        self._delivered_at: dict[tuple[str, int], int] = {}
        self._wanted_again: dict[tuple[str, int], int] = {}
        self._retried: set[tuple[str, int]] = set()
        self._came_though_dead: set[tuple[str, int]] = set()
        """Dead letters of a channel that was left and asked for from the past: its messages come all the same."""
        self._revived: set[tuple[str, int]] = set()
        """The dead letters whose retry was answered, until they are delivered."""
        self._emptied_at: dict[str, int] = {}
        """When a mailbox last lost all that waited in it, with the dead letters that were tried again."""

    # ── What happened ────────────────────────────────────────────────────────────────────────────────────

    def name(self, bot_id: str) -> str:
        """Return a bot's name, or for a removed bot a name that is nobody else's."""
        if bot_id == WORKER_ID:
            return WORKER_NAME
        return self.log.bots[bot_id].name if bot_id in self.log.bots else f"removed {bot_id}"

    def key(self, mailbox_id: str) -> str:
        """Return a mailbox's key."""
        return mailbox_id if "/" in mailbox_id else self.name(mailbox_id)

    def note_sent(self, publication: Publication) -> Publication:
        """Somebody sends a message; give it back."""
        self.sent.setdefault(publication.id, publication)
        if publication.expects_reply:
            self.awaited.add(publication.id)
        return publication

    def note_acknowledged(
        self, sender_bot_id: str, publication: Publication, seq: int | None, *, scheduled: bool
    ) -> None:
        """A sender was told that its message is on disk."""
        key = (publication.id, sender_bot_id)
        if seq is None:
            if not scheduled:
                return
            # It may have entered the log and left it again: a repeat has the first answer.
            known = key in self.log.scheduled or key in self._released or key in self.log.cancelled
            if not known and key not in self.log.by_id:
                raise Violation(f"acknowledged {key} as waiting, and it is nowhere")
            self.acknowledged.setdefault(key, None)
            return
        if key_of(self.written[seq]) != key:
            raise Violation(f"acknowledged {key} as {seq}, which is another message")
        before = self.acknowledged.get(key) or seq
        # One that was removed is forgotten; a commit that is repeated answers with what it stored, removed or not.
        if before != seq and min(before, seq) not in self.log.removed:
            raise Violation(f"{key} was acknowledged with two seqs")
        self.acknowledged[key] = max(before, seq)

    def note_changes(self, changes: Sequence[Change], answers: Sequence[Any], moment: Moment, core: Core) -> None:
        """The log carried out a transaction, and the core is about to be told."""
        for fault in telling_faults(
            changes, self.written, key=self.key, wanted=core.audience.wants(EVENTS_CHANNEL)
        ):
            raise Violation(fault)
        self.written.update(self.log.messages)
        self._is_operated |= bool(core.directory.closing) or any(isinstance(change, Remove) for change in changes)
        for change, answer in zip(changes, answers, strict=True):
            match change:
                case AddSubscription() if answer.created:
                    self._note_subscription(change, answer.start_seq)
                case RemoveSubscription() if answer:
                    self.interests.pop((self.name(change.bot_id), change.channel), None)
                case ReleaseDue():
                    self._released.update((key_of(message), message.seq) for message in answer.messages)
                    for message in answer.messages:
                        if self._due_at.get(key_of(message), "") > moment.wall:
                            raise Violation(f"{message.seq} entered the log before it was due")
                case AddDeadLetters(dead_letters):
                    for dead in dead_letters:
                        if dead.seq in self.settled[self.key(dead.mailbox_id)]:
                            raise Violation(f"{dead.seq} became a dead letter after a confirmed ack")
                case Remove(what=PurgeMailbox(unread)) if answer.done and not answer.again:
                    self._note_purge(self.key(unread.mailbox_id), unread)
                case Remove(what=DiscardDeadLetters(mailbox_id)) if answer.done and not answer.again:
                    self.discarded.update((self.key(mailbox_id), seq) for seq in answer.seqs)
                case Remove(what=EndSubscription(bot_id, channel)) if answer.done and not answer.again:
                    self._note_end(self.name(bot_id), channel)
                case Remove(what=CloseChannel(channel)) if answer.done and not answer.again:
                    for bot, _ in [key for key in [*self.interests, *self.subscribed] if key[1] == channel]:
                        self._note_end(bot, channel)
                    for group in GROUPS:
                        self._note_closed(channel, group)
                case Remove(what=CloseGroup(channel, group)) if answer.done and not answer.again:
                    self._note_closed(channel, group)
                case Remove(what=EndPattern(bot_id, pattern)) if answer.done:
                    self.patterns.discard((self.name(bot_id), pattern))
                case Remove(kind="bot", name=name) if answer.done and not answer.again:
                    for _, channel in [key for key in [*self.interests, *self.subscribed] if key[0] == name]:
                        self._note_end(name, channel)
                    self._note_gone(name)
                    self.patterns = {key for key in self.patterns if key[0] != name}
                case RemoveMessages():
                    self._check_removed(seq for seq in change.seqs if seq in self.log.removed)
                case _:
                    pass
        self._due_at = {key: message.due_at or "" for key, message in self.log.scheduled.items()}
        for interest in changed_by_patterns(self.log, self.interests, self.name):
            self._note_subscription(interest, interest.start_seq or 0)
        for fault in [] if self._is_operated else [*left_out(self.log), *self._brought.faults(self.written)]:
            raise Violation(fault)
        for fault in file_faults(self.log, self.key):
            raise Violation(fault)

    def _note_subscription(self, change: AddSubscription, start_seq: int) -> None:
        bot = self.name(change.bot_id)
        subscription = Subscription(bot, change.channel, "", start_seq, change.echo, change.group)
        self.interests[bot, change.channel] = subscription
        self._since[bot, change.channel] = self.log.last_seq
        if change.group is not None:
            return
        self._firsts[0][bot] = min(self._firsts[0].get(bot, 0), start_seq)
        # What lies after the start is wanted again, whatever was settled before.
        on_channel = (m.seq for m in self.written.values() if m.recipient_channel == change.channel)
        self.want_again(bot, (seq for seq in on_channel if seq > start_seq))

    def want_again(self, key: str, seqs: Iterable[int]) -> None:
        """Somebody asked for messages that may have been settled."""
        for seq in seqs:
            self.settled[key].discard(seq)
            self.purged[key].discard(seq)
            self._wanted_again[key, seq] = self.steps

    def _note_purge(self, key: str, unread: PageRequest) -> None:
        """What waited is passed over from now on; what was in flight may come again."""
        self._forget_revived(key)
        self.purged[key] |= {
            seq
            for seq, message in self.written.items()
            if seq <= unread.through_seq and is_of(message, unread)
            if seq not in self.delivered[key] and not self._is_dead(key, seq)
        }

    def _note_end(self, bot: str, channel: str) -> None:
        self.interests.pop((bot, channel), None)
        self.subscribed.pop((bot, channel), None)

    def _note_closed(self, channel: str, group: str) -> None:
        """A group is gone: one of its name is another one."""
        for (bot, other), interest in list(self.interests.items()):
            if (other, interest.group) == (channel, group):
                self._note_end(bot, channel)
        self._note_gone(group_mailbox_id(channel, group))

    def _note_gone(self, key: str) -> None:
        """A mailbox is gone: nothing that was said of it is about the next one with its key."""
        self.want_again(key, list(self.written))
        self.delivered[key].clear()
        self.gaps[key].clear()
        for firsts in self._firsts.values():
            firsts.pop(key, None)
        for found in (self.discarded, self._retried, self._came_though_dead):
            found.difference_update([each for each in found if each[0] == key])
        self._forget_revived(key)

    def is_subscribed(self, bot: str, channel: str) -> bool:
        """Return True if a subscription by name is on disk."""
        stands = (each for each in self.log.subscriptions.values() if each.pattern is None)
        return any((self.name(each.bot_id), each.channel) == (bot, channel) for each in stands)

    def note_removal(self, id: str, value: dict[str, Any]) -> None:
        """An operator was told what was removed: the same for each repetition."""
        told = value | {"again": False}
        if value["done"] and self._removals.setdefault(id, told) != told:
            raise Violation(f"the removal {id} was answered in two ways")

    def _forget_revived(self, key: str) -> None:
        self._emptied_at[key] = self.steps
        self._revived = {(other, seq) for other, seq in self._revived if other != key}

    def note_retry(self, key: str, seq: int) -> None:
        """Somebody asked for a dead letter."""
        self.want_again(key, [seq])
        self._retried.add((key, seq))

    def note_retried(self, key: str, seq: int) -> None:
        """Somebody was told that a dead letter is tried again."""
        if (
            max(self._delivered_at.get((key, seq), -1), self._emptied_at.get(key, -1))
            < self._wanted_again[key, seq]
        ):
            self._revived.add((key, seq))

    def confirming(self, items: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Note which deliveries are being acked, to be given to `note_confirmed`."""
        return {item: self._delivered_at[item] for item in items}

    def note_confirmed(self, bot: str, delivered: dict[tuple[str, int], int]) -> None:
        """An ack was confirmed: no delivery after it, unless the messages were asked for again after they came.

        A bot that left its group and asked for the channel itself is answered about its own subscription.
        """
        for (key, seq), step in delivered.items():
            wanted_again = max(self._wanted_again.get((name, seq), -1) for name in (key, bot))
            if wanted_again < step:
                self.settled[key].add(seq)
                if self._is_dead(key, seq) and (key, seq) not in self._came_though_dead:
                    raise Violation(f"{seq} is a dead letter of {key}, and its ack was confirmed")

    def note_restart(self) -> None:
        """The worker was killed."""
        self._firsts.clear()
        self.interests = {
            (self.name(s.bot_id), s.channel): msgspec.structs.replace(s, bot_id=self.name(s.bot_id))
            for s in self.log.subscriptions.values()
        }

    # ── Deliveries ───────────────────────────────────────────────────────────────────────────────────────

    def check_credit(self, session: Session, seqs: Iterable[int]) -> None:
        """A session is given no more than its credit, but for replies that it waits for."""
        waited_for = set(seqs) <= session.express
        outside = len(session.express) + len(session.parked)
        if not waited_for and len(session.in_flight) - outside > session.credit:
            raise Violation(f"{session} was given more than its credit")

    def check_delivery(self, bot: str, message: StoredMessage, moment: Moment, core: Core) -> None:
        """A message is delivered to whom it is for, as it was sent, in its order, and not after it was settled."""
        self.deliveries += 1
        seq = message.seq
        if seq > self.log.last_seq:
            raise Violation(f"{seq} was delivered to {bot} before it was on disk")
        stored = self.written[seq]
        if stored.expires_at is not None and stored.expires_at <= moment.wall:
            raise Violation(f"{seq} was delivered to {bot} after it expired")
        if not stored.body:
            raise Violation(f"{seq} was delivered to {bot} after it was erased")
        contents = [msgspec.json.decode(each) for each in (stored.body, stored.headers)]
        if stored.id != message.id or contents != [message.body, message.headers]:
            raise Violation(f"{seq} was delivered to {bot} with other contents")
        key = self._check_addressed(bot, message, stored)
        if seq in self.settled[key]:
            raise Violation(f"{seq} was delivered to {bot} after a confirmed ack")
        if seq in self.purged[key]:
            raise Violation(f"{seq} was delivered to {bot} after it was purged")
        self.delivered[key].add(seq)
        self._revived.discard((key, seq))
        mailbox = core.directory.find_mailbox(key)
        if mailbox is not None and seq in mailbox.dead_letters.dead:
            self._came_though_dead.add((key, seq))
        self._delivered_at[key, seq] = self.steps
        if message.attempt == 1:
            self._check_order(key, stored, core)

    def _check_addressed(self, bot: str, message: StoredMessage, stored: LogMessage) -> str:
        """Check whom a delivery is for, and give the key of the mailbox that it comes from."""
        channel = stored.recipient_channel
        if channel is None:
            if self.name(stored.recipient_bot_id or "") != bot or message.group is not None:
                raise Violation(f"{stored.seq} was delivered to {bot}, and is for another bot")
            return bot
        if message.group is None and (bot, stored.seq) in self._retried:
            return bot  # somebody asked for it, whether its channel was left or not
        interest = self.interests.get((bot, channel))
        if interest is None or interest.start_seq >= stored.seq:
            raise Violation(f"{stored.seq} on {channel} was delivered to {bot} outside its subscription")
        if message.group != interest.group:
            raise Violation(
                f"{stored.seq} was delivered to {bot} by {message.group}, and it is in {interest.group}"
            )
        return bot if interest.group is None else group_mailbox_id(channel, interest.group)

    def _check_order(self, key: str, stored: LogMessage, core: Core) -> None:
        if (key, stored.seq) in self._retried:
            return  # a dead letter that is tried again starts anew, out of order
        if stored.reply_to in self.awaited:
            return  # somebody may have waited for it
        # Sessions share a mailbox: between them there is no order that anybody could see.
        mailbox = core.directory.find_mailbox(key)
        alone = mailbox is not None and len(mailbox.sessions) == 1
        firsts = self._firsts[stored.priority]
        if alone and stored.seq <= firsts.get(key, 0):
            raise Violation(f"{stored.seq} was first delivered by {key} after {firsts[key]}")
        firsts[key] = max(stored.seq, firsts.get(key, 0))
        if mailbox is not None:
            for fault in overtaking_faults(mailbox, stored, self.log, core, self.settings.limits):
                raise Violation(fault)

    # ── After each event ─────────────────────────────────────────────────────────────────────────────────

    def check(self, core: Core) -> None:
        """Memory is bounded, and what is counted is what there is."""
        for session in core.sessions:
            most = self.settings.limits.in_flight_bytes_max + _LARGEST_BYTES * (1 + len(session.express))
            if session.in_flight_bytes > most:
                raise Violation(f"{session} has more bytes in flight than its limit")
            flying = sum(_wire_bytes(core.directory.mailboxes[id], seq) for seq, id in session.in_flight.items())
            if flying != session.in_flight_bytes:
                raise Violation(f"{session} counts its bytes wrongly")
        for mailbox in core.directory.mailboxes.values():
            self._check_memory(mailbox)
            for fault in placement_faults(mailbox):
                raise Violation(f"{mailbox}: {fault}")
            for fault in backlog_faults(mailbox, self.log):
                raise Violation(fault)
            if mailbox.timed and mailbox not in core.dispatch._timed:
                raise Violation(f"{mailbox} has deadlines, and nobody looks at them")
        if core.last_seq > self.log.last_seq:
            raise Violation("the core is ahead of the disk")

    def _check_memory(self, mailbox: Mailbox) -> None:
        intakes = [mailbox.intake, *(lane.intake for lane in mailbox.sources.lanes)]
        waiting = sum(len(intake) + intake.aside for intake in intakes)
        if waiting > 2 * self.settings.limits.ready_messages_max:
            raise Violation(f"{mailbox} keeps {waiting} messages in memory")
        if not mailbox.sessions and (waiting or any(item.envelope for _, item in mailbox.outstanding.items())):
            raise Violation(f"{mailbox} is away and keeps messages in memory")

    def _check_removed(self, seqs: Iterable[int]) -> None:
        if self.settings.retention.remove_undelivered:
            return  # what nobody was told of is found at the end
        for seq in seqs:
            if self.written[seq].recipient_channel in TOLD_CHANNELS:
                continue  # they are kept for a while, whoever has not read them
            for key in self._owed(self.written[seq]):
                if seq not in self.delivered[key] and not self._is_taken_out(key, seq):
                    raise Violation(f"{seq} was removed before it was delivered by {key}")

    # ── When everything has arrived ──────────────────────────────────────────────────────────────────────

    def check_nothing_lost(self) -> None:
        """Every acknowledged message is in the log, and was delivered by every mailbox that it is for."""
        for message, seq in self.acknowledged.items():
            stored = self.written.get(self._released.get(message, 0) if seq is None else seq)
            if stored is None and message in self.log.cancelled:
                continue
            if stored is None or (stored.seq not in self.log.messages and stored.seq not in self.log.removed):
                raise Violation(f"{message} was acknowledged as {seq} and is not in the log")
            for key in self._owed(stored):
                if not self._is_accounted_for(key, stored.seq):
                    raise Violation(f"{stored.seq} was acknowledged and never delivered by {key}")
        for key, seq in self._revived:
            if "/" not in key and not self._is_dead(key, seq) and not self._is_taken_out(key, seq):
                raise Violation(f"the dead letter {seq} of {key} was tried again and never delivered")
        for fault in left_out(self.log):
            raise Violation(fault)
        if gone := self.patterns - {(self.name(bot_id), pattern) for bot_id, pattern in self.log.patterns}:
            raise Violation(f"the subscriptions to patterns {gone} were acknowledged and are gone")
        stands = {(self.name(s.bot_id), s.channel): s for s in self.log.subscriptions.values()}
        for (bot, channel), subscription in self.subscribed.items():
            found = stands.get((bot, channel))
            if found is None or (found.start_seq, found.group) != (subscription.start_seq, subscription.group):
                raise Violation(f"the subscription of {bot} to {channel} was acknowledged and is gone")

    def check_groups_hold(self, core: Core) -> None:
        """What a group did not deliver waits in its mailbox, whether it has members or not."""
        for group in self.log.groups.values():
            key = group_mailbox_id(group.channel, group.name)
            mailbox = core.directory.mailboxes[key]
            for stored in self.log.messages.values():
                if stored.recipient_channel != group.channel or stored.seq <= group.start_seq:
                    continue
                if stored.seq in self.log.erased | self.purged[key] and mailbox.losses.gap is not None:
                    continue  # whoever comes first is told
                settled = mailbox.fate(stored.seq, group.channel) == "settled"
                if settled and not self._is_accounted_for(key, stored.seq):
                    raise Violation(f"{stored.seq} was never delivered by {key}, and does not wait there")

    def _is_accounted_for(self, key: str, seq: int) -> bool:
        if seq in self.delivered[key] or self._is_dead(key, seq) or (key, seq) in self.discarded:
            return True
        gone = seq in self.log.removed or seq in self.log.erased or seq in self.purged[key]
        return gone and any(gap.from_seq <= seq <= gap.to_seq for gap in self.gaps[key])

    def _is_taken_out(self, key: str, seq: int) -> bool:
        """Return True if an operator erased, purged or discarded it."""
        return seq in self.log.erased or seq in self.purged[key] or (key, seq) in self.discarded

    def _is_dead(self, key: str, seq: int) -> bool:
        return any(dead == seq and self.key(mailbox_id) == key for mailbox_id, dead in self.log.dead_letters)

    def _owed(self, stored: LogMessage) -> list[str]:
        """Return the keys of the mailboxes that a message was for, as far as anybody was told."""
        channel = stored.recipient_channel
        if channel is None:
            recipient = self.log.bots.get(stored.recipient_bot_id or "")
            return [] if recipient is None else [recipient.name]
        owed: dict[str, None] = {}
        brought = {(self.name(each.bot_id), channel): each for each in owed_by_patterns(self.log, channel)}
        for (bot, name), subscription in (brought | self.subscribed).items():
            if name != channel or subscription.start_seq >= stored.seq:
                continue
            if stored.seq in self.log.removed and stored.seq <= self._since[bot, name]:
                continue
            if subscription.group is not None:
                owed[group_mailbox_id(channel, subscription.group)] = None
            elif self.interests[bot, name].echo or self.name(stored.sender_bot_id) != bot:
                owed[bot] = None
        return list(owed)


def _wire_bytes(mailbox: Mailbox, seq: int) -> int:
    """Return the size in bytes of a message that is in flight."""
    return len(mailbox.outstanding._wires.get(seq, b""))
