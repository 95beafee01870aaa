"""A log in memory, for tests of the pure core: what was applied stays, and nothing waits."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, assert_never

from msgspec.structs import replace

from bus.errors import Conflict, Refused
from bus.model.keys import Key
from bus.model.records import WORKER_ID, BotRecord, Channel
from bus.model.repository import (
    AddBot,
    AddChannel,
    AddDeadLetters,
    Added,
    AddFirstMessages,
    AddKey,
    AddMessages,
    AddPattern,
    AddSecurityEvents,
    AddSubscription,
    Applied,
    Change,
    Committed,
    CommitWork,
    DeadLetter,
    Erase,
    Erased,
    Group,
    KeyedSwept,
    LogMessage,
    LogState,
    Looked,
    Lot,
    MailboxState,
    NewMessage,
    NotCommitted,
    NoteKeyUse,
    Outcome,
    Page,
    PageRequest,
    PatternSubscription,
    Recovered,
    RecoverRuns,
    Released,
    ReleaseDue,
    Remove,
    Removed,
    RemoveDeadLetters,
    RemoveMessages,
    RemovePattern,
    RemoveRuns,
    RemoveSecurityEvents,
    RemoveSubscription,
    RevokeKeys,
    RunSurvey,
    SaveMailbox,
    SecurityEvent,
    SecuritySpan,
    SeenBot,
    Started,
    StartScheduled,
    Subscribed,
    Subscription,
    Surveyed,
    SurveyedRuns,
    SurveyRequest,
    SweepKeyed,
    each,
    group_mailbox_id,
    outcome_of,
    stored_lots,
    timestamp_of,
)

from .fake_budgets import answered, counted, erased, spent
from .fake_founding import add_first
from .fake_keyed import FakeKeyed
from .fake_keys import change_keys
from .fake_priorities import last_of_each, wants
from .fake_removals import look, remove
from .fake_runs import remove_runs, survey_runs


class FakeLog:
    """The behaviour of a MessageLog without its disk; `tests/contract/store` holds both to the same promises."""

    def __init__(self) -> None:
        self.messages: dict[int, LogMessage] = {}
        self.last_seq = 0
        self.by_id: dict[tuple[str, str], LogMessage] = {}
        """By id and sender, like `scheduled`."""
        self.scheduled: dict[tuple[str, str], NewMessage] = {}
        self.removed: set[int] = set()
        self.erased: set[int] = set()
        self.cancelled: set[tuple[str, str]] = set()
        """Delayed messages that were removed."""
        self.erasures: dict[str, Erased] = {}
        self.removals: dict[str, Removed] = {}
        self.discarded: set[tuple[str, int]] = set()
        """Dead letters that were removed, by mailbox and seq."""
        self.purged: dict[str, int] = {}
        """The seq up to which a mailbox was purged."""
        self.bots: dict[str, BotRecord] = {}
        self.channels: dict[str, Channel] = {}
        self.groups: dict[tuple[str, str], Group] = {}
        self.subscriptions: dict[tuple[str, str], Subscription] = {}
        self.patterns: dict[tuple[str, str], PatternSubscription] = {}
        self.mailboxes: dict[str, MailboxState] = {}
        self.dead_letters: dict[tuple[str, int], DeadLetter] = {}
        self.keys: dict[str, Key] = {}
        self.commits: dict[str, tuple[str, list[int | None]]] = {}
        self.events: dict[int, SecurityEvent] = {}
        self.runs: dict[str, tuple[str, str, int]] = {}
        """Runs that have ended: of which workflow, when, and with how many steps."""
        self.started: list[Started] = []
        """What schedules start, one answer after another."""
        self.keyed = FakeKeyed()
        self.swept: list[KeyedSwept] = []
        """What sweeps of the keyed store find, likewise; without any, they find what is there."""
        self.sweeps: list[SweepKeyed] = []
        self.is_any_tainted = self.is_any_budget = False
        self.committed: set[int] = set()
        """The numbers of the commits of this transaction."""

    def load(self) -> LogState:
        heads = {message.recipient_channel: message.seq for message in self.messages.values()}
        return LogState(
            epoch="epoch",
            last_seq=self.last_seq,
            last_timestamp=self.messages[self.last_seq].timestamp if self.messages else "",
            bots=list(self.bots.values()),
            channels=[(channel, heads.get(name, 0)) for name, channel in self.channels.items()],
            subscriptions=list(self.subscriptions.values()),
            mailboxes=copy.deepcopy(list(self.mailboxes.values())),
            dead_letters=list(self.dead_letters),
            groups=list(self.groups.values()),
            patterns=list(self.patterns.values()),
            prioritized=last_of_each(self.messages.values(), self.bots),
            scheduled=Counter(message.sender_bot_id for message in self.scheduled.values()),
            next_due_at=self._next_due_at(),
            keys=list(self.keys.values()),
            security=self._span(),
        )

    def apply(self, changes: Sequence[Change]) -> Applied:
        self.committed.clear()
        return Applied([self._apply(change) for change in changes], timestamp_of(changes))

    def _apply(self, change: Change) -> Any:
        match change:
            case AddMessages():
                added = [self.add_lot(lot, change.timestamp) for lot in change.lots]
                self.keyed.retain(change.lots, added, change.timestamp)
                return added
            case AddFirstMessages():
                return add_first(self, change)
            case ReleaseDue():
                return self._release(change)
            case RemoveMessages():
                return self._remove_messages(change)
            case Erase():
                return self._erase(change)
            case Remove():
                return remove(self, change)
            case RemoveRuns():
                return remove_runs(self, change)
            case CommitWork():
                answer = self._commit(change)
                if isinstance(answer, Committed):
                    self.committed.add(change.number)
                return answer
            case RecoverRuns():
                return Recovered([], [])
            case StartScheduled():
                return self._start(change)
            case SaveMailbox(state, settled_by):
                seqs = {seq for number in self.committed for seq in settled_by.get(number, ())}
                self.mailboxes[state.mailbox_id] = state.without(seqs)
            case AddBot(bot):
                return self._add_bot(bot)
            case SeenBot(bot_id, at):
                if bot_id in self.bots:
                    self.bots[bot_id] = replace(self.bots[bot_id], last_seen_at=at)
            case AddChannel(channel):
                self.channels.setdefault(channel.name, channel)
            case AddSubscription():
                return self.subscribe(change)
            case RemoveSubscription():
                return self.unsubscribe(change)
            case AddPattern():
                return self._add_pattern(change)
            case RemovePattern():
                return self.remove_pattern(change)
            case AddDeadLetters(dead_letters):
                self.dead_letters.update({(dead.mailbox_id, dead.seq): dead for dead in dead_letters})
            case RemoveDeadLetters():
                return [seq for seq in change.seqs if self.dead_letters.pop((change.mailbox_id, seq), None)]
            case AddKey() | RevokeKeys() | NoteKeyUse():
                change_keys(self, change)
            case AddSecurityEvents(events):
                self.events.update({event.id: event for event in events})
            case RemoveSecurityEvents():
                return self._remove_events(change)
            case SweepKeyed():
                self.sweeps.append(change)
                return self.swept.pop(0) if self.swept else self.keyed.sweep(change)
            case _:
                assert_never(change)
        return None

    def _remove_messages(self, change: RemoveMessages) -> int:
        gone = [seq for seq in sorted({*change.seqs}) if seq in self.messages and seq < self.last_seq]
        for seq in gone:
            del self.by_id[key_of(self.messages.pop(seq))]
        self.removed.update(gone)
        return len(gone)

    def _add_bot(self, bot: BotRecord) -> int:
        assert bot.id not in self.bots
        assert bot.name not in {other.name for other in self.bots.values()}
        self.bots[bot.id] = bot
        self.mailboxes[bot.id] = MailboxState(bot.id, self.last_seq)
        return self.last_seq

    def _remove_events(self, change: RemoveSecurityEvents) -> SecuritySpan:
        last_id = self._span().last_id
        ids = sorted(self.events)
        old = [id for id in ids if self.events[id].at < change.before][: change.events_max]
        many = [id for id in ids if id <= change.through_id][: change.events_max]
        for id in {*old, *many} - {last_id}:
            del self.events[id]
        return self._span()

    def _span(self) -> SecuritySpan:
        if not self.events:
            return SecuritySpan()
        return SecuritySpan(min(self.events), min(event.at for event in self.events.values()), max(self.events))

    def add_lot(self, lot: Lot, timestamp: str) -> Outcome:
        return outcome_of([self._add(self._decided(each, timestamp), timestamp) for each in lot.messages()])

    def _decided(self, message: NewMessage, timestamp: str) -> NewMessage:
        return counted(self, self._tainted(message), timestamp)

    def _tainted(self, message: NewMessage) -> NewMessage:
        """Return a message with its taint: that of what it answers, if its sender is not external."""
        self.is_any_tainted = self.is_any_tainted or message.tainted
        if message.tainted or message.reply_to is None or not self.is_any_tainted:
            return message
        parents = answered(self, message)
        tainted = not parents or any(parent.tainted for parent in parents)
        return replace(
            message, tainted=tainted, known_only=message.known_only or (tainted and message.untainted_only)
        )

    def _add(self, message: NewMessage, timestamp: str) -> Added:
        known = self.by_id.get(key_of(message))
        if known is not None:
            return Added(known.seq, duplicate=True)
        if key_of(message) in self.scheduled:
            return Added(None, duplicate=True, scheduled=True)
        if message.known_only:
            return Added(None, forbidden=message.tainted and message.untainted_only, budget=message.budget)
        if message.due_at is not None:
            self.scheduled[key_of(message)] = message
            return Added(None, scheduled=True)
        return Added(self._append(message, timestamp).seq, tainted=message.tainted, budget=message.budget)

    def _append(self, message: NewMessage, timestamp: str) -> LogMessage:
        fields = {name: getattr(message, name) for name in NewMessage.__struct_fields__}
        fields |= {"due_at": None, "retain": False, "budget": None}
        self.last_seq += 1
        stored = LogMessage(**fields, seq=self.last_seq, timestamp=timestamp)
        self.messages[stored.seq] = stored
        self.by_id[key_of(stored)] = stored
        return stored

    def _commit(self, work: CommitWork) -> Committed | NotCommitted | None:
        """Carry out a commit that has messages alone; what is done to runs is a store's."""
        if work.id is not None and work.id in self.commits:
            digest, seqs = self.commits[work.id]
            return Committed(seqs) if digest == work.digest else NotCommitted(Conflict("other contents"))
        if work.known_only:
            return None
        if any(self._tainted(message).known_only for lot in work.lots for message in lot.messages()):
            return NotCommitted(None)
        if (error := spent(self, work)) is not None:
            return NotCommitted(error)
        try:
            revisions = self.keyed.write_whole(work.values)
        except Refused as error:
            return NotCommitted(error)
        for channel in work.channels:
            self.channels.setdefault(channel.name, channel)
        for subscription in work.subscriptions:
            self.subscribe(subscription)
        added = [self.add_lot(lot, work.timestamp) for lot in work.lots]
        self.keyed.retain(work.lots, added, work.timestamp)
        seqs = [one.seq for lot, outcome in zip(work.lots, added, strict=True) for one in each(lot, outcome)]
        if work.id is not None:
            self.commits[work.id] = (work.digest, seqs)
        return Committed(seqs, added, revisions)

    def _start(self, change: StartScheduled) -> Started:
        if not self.started:
            return Started([], [])
        started = self.started.pop(0)
        return replace(started, messages=[self._append(each, change.timestamp) for each in started.messages])

    def _release(self, change: ReleaseDue) -> Released:
        until = change.until or change.timestamp
        due = [message for message in self.scheduled.values() if (message.due_at or "") <= until]
        due = sorted(due, key=lambda message: message.due_at or "")[: change.messages_max]
        sizes = accumulate(len(message.body) for message in due)
        due = due[:1] + [message for message, size in zip(due, sizes, strict=True) if size <= change.bytes_max][1:]
        for message in due:
            del self.scheduled[key_of(message)]
        return Released([self._append(message, change.timestamp) for message in due], self._next_due_at())

    def _next_due_at(self) -> str | None:
        return min((message.due_at or "" for message in self.scheduled.values()), default=None)

    def subscribe(self, change: AddSubscription) -> Subscribed:
        assert change.channel in self.channels, "the channel is added in the same transaction"
        key = (change.bot_id, change.channel)
        known = self.subscriptions.get(key)
        retained = self.keyed.retained(change.channel) if change.retained else None
        if known is not None:
            if change.pattern is None and known.group == change.group:
                self.subscriptions[key] = replace(known, pattern=None)
            return Subscribed(known.start_seq, created=False, group=known.group, retained=retained)
        start_seq = self.last_seq if change.start_seq is None else change.start_seq
        if change.group is not None:
            start_seq = self._open_group(change.channel, change.group, start_seq)
        self.subscriptions[key] = Subscription(
            *key, change.subscribed_at, start_seq, change.echo, change.group, change.pattern
        )
        return Subscribed(start_seq, created=True, group=change.group, retained=retained)

    def unsubscribe(self, change: RemoveSubscription) -> bool:
        key = (change.bot_id, change.channel)
        known = self.subscriptions.get(key)
        if known is None or known.pattern is not None:
            return False
        if change.passes_to is None:
            del self.subscriptions[key]
        else:
            self.subscriptions[key] = replace(known, pattern=change.passes_to)
        return True

    def _add_pattern(self, change: AddPattern) -> Subscribed:
        key = (change.bot_id, change.pattern)
        known = self.patterns.get(key)
        if known is not None:
            return Subscribed(known.start_seq, created=False, group=known.group)
        start_seq = self.last_seq if change.start_seq is None else change.start_seq
        self.patterns[key] = PatternSubscription(*key, change.subscribed_at, start_seq, change.echo, change.group)
        return Subscribed(start_seq, created=True, group=change.group)

    def remove_pattern(self, change: RemovePattern) -> bool:
        for key, known in list(self.subscriptions.items()):
            if (known.bot_id, known.pattern) == (change.bot_id, change.pattern):
                if known.channel in change.passed:
                    self.subscriptions[key] = replace(known, pattern=change.passed[known.channel])
                else:
                    del self.subscriptions[key]
        return self.patterns.pop((change.bot_id, change.pattern), None) is not None

    def _open_group(self, channel: str, name: str, start_seq: int) -> int:
        if (channel, name) not in self.groups:
            self.groups[channel, name] = Group(channel, name, start_seq)
            mailbox_id = group_mailbox_id(channel, name)
            self.mailboxes[mailbox_id] = MailboxState(mailbox_id, min(start_seq, self.last_seq))
        return self.groups[channel, name].start_seq

    def _erase(self, change: Erase) -> Erased:
        if change.id in self.erasures:
            return replace(self.erasures[change.id], again=True)
        keys = {(each.id, each.sender_bot_id) for each in change.delayed}
        wanted = {*change.seqs} | {seq for seq, each in self.messages.items() if key_of(each) in keys}
        seqs = tuple(seq for seq in sorted(wanted) if seq in self.messages and self.messages[seq].body)
        channels = {self.messages[seq].recipient_channel or "" for seq in seqs} - {""}
        values = self.keyed.erase(change, seqs, channels)
        for seq in seqs:
            self.messages[seq] = erased(self.messages[seq])
            self.by_id[key_of(self.messages[seq])] = self.messages[seq]
        for key, dead in self.dead_letters.items():
            if dead.seq in seqs:
                self.dead_letters[key] = replace(dead, reason="erased")
        self.erased.update(seqs)
        delayed = tuple(each for each in change.delayed if self.scheduled.pop((each.id, each.sender_bot_id), None))
        self.cancelled.update((each.id, each.sender_bot_id) for each in delayed)
        runs = tuple(sorted(id for id in {*change.runs} if self.runs.pop(id, None) is not None))
        self.erasures[change.id] = done = Erased(seqs, delayed, runs, values=values)
        return done

    def read_page(self, request: PageRequest) -> Page:
        recalled = [self.messages[seq] for seq in sorted(request.seqs) if seq in self.messages]
        wanted = self.wanted(request)
        messages, size_bytes = [], 0
        for message in wanted[: request.messages_max]:
            if size_bytes >= request.bytes_max:
                break
            messages.append(message)
            size_bytes += len(message.body)
        complete = len(messages) == len(wanted)
        erased = tuple(message.seq for message in (*recalled, *messages) if not message.body)
        recalled, messages = ([each for each in found if each.body] for found in (recalled, messages))
        return Page(stored_lots(recalled), stored_lots(messages), complete=complete, erased=erased)

    def backlog(self, request: PageRequest) -> dict[str, int]:
        senders = (message.sender_bot_id for message in self.wanted(request) if message.seq not in request.seqs)
        known = {*self.bots, WORKER_ID}
        return Counter(sender if sender in known else "" for sender in senders)

    def wanted(self, request: PageRequest) -> list[LogMessage]:
        return [
            message
            for message in self.messages.values()
            if message.seq <= request.through_seq
            and any(wants(message, request.mailbox_id, source) for source in request.sources)
        ]

    def look(self, change: Remove) -> Looked:
        return look(self, change)

    def survey(self, request: SurveyRequest) -> list[Surveyed]:
        found = [
            _surveyed(message)
            for message in self.messages.values()
            if request.after_seq < message.seq <= request.through_seq
            and request.channel in (None, message.recipient_channel)
        ]
        return found[: request.messages_max]

    def survey_runs(self, survey: RunSurvey) -> SurveyedRuns:
        return survey_runs(self, survey)

    def of_id(self, id: str) -> list[Surveyed]:
        return [_surveyed(message) for (known, _), message in self.by_id.items() if known == id]

    def locate(self, seqs: Sequence[int]) -> list[Surveyed]:
        return [_surveyed(self.messages[seq]) for seq in sorted(set(seqs)) if seq in self.messages]


def key_of(message: NewMessage) -> tuple[str, str]:
    """Return what a message is known by: its id and its sender."""
    return message.id, message.sender_bot_id


def _surveyed(message: LogMessage) -> Surveyed:
    return Surveyed(
        message.seq,
        message.sender_bot_id,
        message.recipient_bot_id,
        message.recipient_channel,
        message.timestamp,
        len(message.body) + len(message.headers),
        message.priority,
    )
