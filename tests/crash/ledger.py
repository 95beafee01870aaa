"""A history put in order: each call with its outcome, each message with its acknowledgements, each subscription.

Owns what follows from the events alone, before anything is judged: who sent what and was told what, which seq
belongs to which message, who was handed what and settled it. `checker` judges.

Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

from bus.model.patterns import WILDCARD, ChannelPattern

from .flushes import Flushes
from .history import (
    ENDINGS,
    PULLED_AGAIN_SECONDS,
    PULLED_LONG,
    Action,
    Checkpoint,
    Commit,
    Deliver,
    Delivery,
    Event,
    Fail,
    Gap,
    Hello,
    Invoke,
    Mark,
    Ok,
    Presence,
    Present,
    Publish,
    ReadRun,
    Retry,
    Sent,
    Settle,
    Stored,
    Subscribe,
    Unknown,
    Unsubscribe,
)
from .subscriptions import Call, Timeline
from .verdict import Rules

__all__ = ["Handed", "Ledger", "Letter", "Settled", "key_of"]


def key_of(message: Delivery | Stored) -> tuple[str, str]:
    """Return what a message is known by: its id and its sender."""
    return message.id, message.sender


class Letter:
    """One message as its sender knows it."""

    __slots__ = ("acked_at", "acked_in", "call", "first", "known", "outcomes", "sender", "sent", "seq", "spent")

    def __init__(self, sent: Sent, sender: str, call: Call) -> None:
        self.sent = sent
        self.sender = sender
        self.call = call
        """The first call that sent it."""
        self.first = call.index
        self.seq: int | None = None
        """As it was acknowledged; None also where it was to wait until it is due."""
        self.acked_at: int | None = None
        """Where it was first acknowledged."""
        self.acked_in = (0, 0)
        """By the how manieth worker, and its fence."""
        self.known = False
        """Whether the first acknowledgement said that it had been stored before."""
        self.outcomes: set[str] = set()
        """What came of the calls that sent it: ok, fail, unknown."""
        self.spent = False
        """Whether it was refused because nothing is left of its thread."""

    @property
    def key(self) -> tuple[str, str]:
        """What it is known by: its id and its sender."""
        return self.sent.id, self.sender

    @property
    def certainly_refused(self) -> bool:
        """Whether every call that sent it was refused."""
        return self.outcomes == {"fail"}


class Handed:
    """One delivery of one message. `mailbox` is the bot's own, or `channel/group`."""

    __slots__ = ("at", "bot", "index", "mailbox", "message", "session")

    def __init__(self, index: int, event: Deliver, message: Delivery) -> None:
        self.index = index
        self.at = event.at
        self.bot = event.bot
        self.session = event.session
        self.message = message
        self.mailbox = event.bot if message.group is None else f"{message.channel}/{message.group}"


class Settled:
    """One message settled by an ack, a nak, a term or a commit, in the session that it was delivered to."""

    __slots__ = ("bot", "call", "confirmed", "ends_at", "how", "mailbox", "on_disk", "seq", "session")

    def __init__(
        self, call: Call, bot: str, session: str, *, how: str, confirmed: bool, place: tuple[str, int]
    ) -> None:
        self.call = call
        self.mailbox, self.seq = place
        self.bot = bot
        self.session = session
        self.how = how
        self.confirmed = confirmed and call.ok is not None
        self.ends_at = call.ok.at if call.ok is not None else call.invoke.at
        self.on_disk = call.ends if self.confirmed else None
        """The event by which it certainly was on disk, if it counted; None where that is not known."""


class Ledger:
    """See the module."""

    def __init__(self, history: Sequence[Event], rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self.calls: list[Call] = []
        self.letters: dict[tuple[str, str], Letter] = {}
        """By id and sender."""
        self.handed: list[Handed] = []
        self.deliveries: defaultdict[tuple[str, int], list[Handed]] = defaultdict(list)
        """The same by mailbox and seq."""
        self.asked: dict[str, Call] = {}
        """By id, the messages whose first reply is waited for, with the call that sent each."""
        self.first_seen: dict[int, int] = {}
        """Where each seq was first delivered to anybody."""
        self.settled: defaultdict[tuple[str, int], list[Settled]] = defaultdict(list)
        """By mailbox and seq, acks, terms and commits that were not refused."""
        self.naks: defaultdict[tuple[str, int], list[Settled]] = defaultdict(list)
        """The same of naks."""
        self.retries: defaultdict[tuple[str, int], list[Call]] = defaultdict(list)
        """By mailbox and seq, what put dead letters back and was not refused."""
        self.gaps: list[tuple[int, Gap]] = []
        self.presence: list[tuple[int, Present | Presence]] = []
        """What those were told who watch who is there."""
        self.vanished: list[tuple[int, str]] = []
        """Where a client ended without a word, or may have looked so, and whose it was."""
        self.groups: dict[str, Timeline] = {}
        """The mailboxes of groups: each is a timeline without an end."""
        self.timelines: dict[tuple[str, str], Timeline] = {}
        self.by_patterns: set[tuple[str, str]] = set()
        """Those of them that a pattern brings, if the channel was created."""
        self.sessions: dict[str, Call] = {}
        """The hello that opened each session."""
        self.marks: list[tuple[int, Mark]] = []
        self.length = len(history)
        self._times = [event.at for event in history]
        self._came_by: dict[tuple[str, int], str] = {}
        self._kept: dict[tuple[str, int], Handed] = {}
        self._last: dict[tuple[str, int], Handed] = {}
        self._session_of: dict[str, str] = {}
        self._fences: dict[str, int] = {}
        """That of each session's worker, where there are several."""
        self._of_replaced: set[str] = set()
        self._read(history)
        self._join_messages()
        self._join_settled()
        self._join_flushes(history)
        self._join_subscriptions()
        self._join_vanished()

    def of(self, *kinds: type[Action]) -> Iterator[Call]:
        """Give the calls of some kinds, in order."""
        return (call for call in self.calls if isinstance(call.invoke.action, kinds))

    def timeline(self, bot: str, channel: str) -> Timeline:
        """Give a subscription's timeline; an empty one where nobody ever asked for it."""
        return self.timelines.get((bot, channel)) or Timeline(bot, channel)

    def _read(self, history: Sequence[Event]) -> None:
        ends = iter(
            [i for i, e in enumerate(history) if isinstance(e, Mark) and e.what in ENDINGS] + [len(history)]
        )
        end = next(ends)
        floor = 0
        open_calls: dict[int, Call] = {}
        for index, event in enumerate(history):
            while index >= end and end < len(history):
                end = next(ends)
            match event:
                case Invoke():
                    call = Call(index, event, floor=floor, over=end)
                    call.ends = len(history)
                    if not isinstance(event.action, Hello):
                        call.session = self._session_of.get(event.process, "")
                    open_calls[event.call] = call
                    self.calls.append(call)
                case Ok() | Fail() | Unknown():
                    call = open_calls.pop(event.call)
                    call.outcome, call.ends = event, index
                    if isinstance(event, Ok):
                        floor = max([floor, *(seq for seq in event.seqs if seq is not None)])
                        self._note_session(call, event)
                case Deliver():
                    self._hand_out(index, event)
                case Gap():
                    self.gaps.append((index, event))
                case Present() | Presence():
                    self.presence.append((index, event))
                case Mark() if event.what == "led":
                    self._note_fence(*event.note.split())
                case Mark() if event.what == "vanished":
                    self.vanished.append((index, event.process))
                case Mark():
                    self.marks.append((index, event))

    def _join_vanished(self) -> None:
        """Count clients that may have vanished without knowing it, because they were cut off for long.

        A client may hear that its session is over, or notice only that its connection broke. Short pulls that
        follow one another cut off for long, too: TCP waits twice as long after each packet that was lost.
        """
        pulled = [(index, mark) for index, mark in self.marks if mark.what == "pulled"]
        cut_off = [index for index, mark in pulled if mark.note.endswith(PULLED_LONG)]
        cut_off += [at for (_, first), (at, mark) in pairwise(pulled) if mark.at - first.at < PULLED_AGAIN_SECONDS]
        open_since: dict[str, Call] = {}
        for call in self.of(Hello):
            before = open_since.get(call.invoke.process)
            if before is not None:
                self._cut(before, call.index, cut_off)
            if call.ok is not None:
                open_since[call.invoke.process] = call
        for last in open_since.values():
            self._cut(last, self.length, cut_off)

    def _cut(self, hello: Call, over: int, cut_off: Sequence[int]) -> None:
        action = hello.invoke.action
        assert isinstance(action, Hello)
        if any(hello.ends < each < over for each in cut_off):
            self.vanished.append((over, action.bot))

    def _note_session(self, call: Call, ok: Ok) -> None:
        """Note that a session was opened, and what its client kept from the one before."""
        action = call.invoke.action
        if not isinstance(action, Hello):
            return
        self._session_of[call.invoke.process] = ok.session
        for seq in set(action.holds).difference(ok.not_held):
            handed = self._last.get((action.client, seq))
            if handed is not None:
                self._kept[ok.session, seq] = handed
                self._came_by[ok.session, seq] = handed.mailbox

    def _hand_out(self, index: int, event: Deliver) -> None:
        for message in event.messages:
            handed = Handed(index, event, message)
            self.handed.append(handed)
            self.deliveries[handed.mailbox, message.seq].append(handed)
            self._came_by[event.session, message.seq] = handed.mailbox
            self._last[event.process, message.seq] = handed
            self.first_seen.setdefault(message.seq, index)

    def _join_messages(self) -> None:
        for call in self.of(Publish, Commit):
            action = call.invoke.action
            assert isinstance(action, Publish | Commit)
            for position, sent in enumerate(action.messages):
                letter = self.letters.get((sent.id, action.bot))
                if letter is None:
                    letter = self.letters[sent.id, action.bot] = Letter(sent, action.bot, call)
                    if sent.asks:
                        self.asked[sent.id] = call
                self._note_outcome(letter, call, position)

    def _note_outcome(self, letter: Letter, call: Call, position: int) -> None:
        ok = call.ok
        if call.failed:
            letter.outcomes.add("fail")
        elif ok is None:
            letter.outcomes.add("unknown")
        elif position >= len(ok.seqs) or (ok.seqs[position] is None and position not in ok.scheduled):
            letter.outcomes.add("fail")
            letter.spent = letter.spent or position in ok.spent
        else:
            letter.outcomes.add("ok")
            letter.seq = letter.seq or ok.seqs[position]
            if letter.acked_at is None or call.ends < letter.acked_at:
                letter.acked_at, letter.known = call.ends, position in ok.duplicates
                letter.acked_in = ok.incarnation, self.fence(call.session)

    def _join_settled(self) -> None:
        for call in self.of(Hello):
            if call.ok is not None:
                self.sessions[call.ok.session] = call
        for call in self.of(Settle, Commit):
            action = call.invoke.action
            if call.failed:
                continue
            if isinstance(action, Commit):
                self._settle(call, action, action.acks, how="commit", confirmed=True)
            elif isinstance(action, Settle):
                self._settle(call, action, action.seqs, how=action.how, confirmed=action.confirmed)
        for call in self.of(Retry):
            action = call.invoke.action
            assert isinstance(action, Retry)
            for seq in action.seqs:
                if not call.failed:
                    self.retries[action.mailbox, seq].append(call)

    def _settle(
        self, call: Call, action: Settle | Commit, seqs: Sequence[int], *, how: str, confirmed: bool
    ) -> None:
        passed_over = call.ok.passed_over if call.ok is not None else ()
        for seq in seqs:
            place = (self._came_by.get((action.session, seq), action.bot), seq)
            settled = Settled(call, action.bot, action.session, how=how, confirmed=confirmed, place=place)
            if seq not in passed_over:
                (self.naks if how == "nak" else self.settled)[place].append(settled)

    def _join_flushes(self, history: Sequence[Event]) -> None:
        """Find out when what nobody confirmed was on disk."""
        flushes = Flushes(history, self.calls, self.rules.flush_seconds, self._fences)
        for settled in (one for found in (self.settled, self.naks) for many in found.values() for one in many):
            if not settled.confirmed and settled.call.outcome is None:
                settled.on_disk = flushes.on_disk(settled.call)

    def _join_subscriptions(self) -> None:
        calls: defaultdict[tuple[str, str], list[Call]] = defaultdict(list)
        for call in self.of(Subscribe, Unsubscribe):
            action = call.invoke.action
            assert isinstance(action, Subscribe | Unsubscribe)
            calls[action.bot, action.channel].append(call)
        for (bot, pattern), made in [item for item in calls.items() if WILDCARD in item[0][1]]:
            del calls[bot, pattern]
            # Whoever publishes on such a channel has subscribed to it, or tried to.
            matched = {channel for _, channel in calls if ChannelPattern(pattern).matches(channel)}
            self.by_patterns.update((bot, channel) for channel in matched)
            calls.update({(bot, channel): made for channel in matched})
        for key, made in calls.items():
            self.timelines[key] = Timeline(*key)
            self.timelines[key].read(made)
        for call in self.of(Subscribe):
            action = call.invoke.action
            if isinstance(action, Subscribe) and action.group is not None and not call.failed:
                mailbox = f"{action.channel}/{action.group}"
                self.groups.setdefault(mailbox, Timeline(mailbox, action.channel)).join(call, action)

    def settles(self, settled: Settled) -> Handed | None:
        """Return the delivery that was settled, if it certainly counted.

        The message had come in that session, or was kept by it, and soon enough before: others are passed over.
        """
        key = (settled.mailbox, settled.seq)
        came = self._kept.get((settled.session, settled.seq))
        for handed in self.deliveries[key]:
            if handed.session == settled.session and handed.index < settled.call.index:
                came = handed
        if came is None or settled.ends_at - came.at > self.rules.sure_seconds:
            return None
        member = self.timeline(came.bot, came.message.channel or "")
        if came.mailbox != came.bot and member.left_between(came.index, settled.call.ends):
            return None  # a bot that leaves a group gives back what it has
        return came

    def is_older(self, session: str, than: str) -> bool:
        """Return True if a session was with a worker that was dead or replaced before another session began."""
        one, other = self.sessions.get(session), self.sessions.get(than)
        if one is None or other is None:
            return False
        return one.over <= other.index or self.fence(session) < self.fence(than)

    def is_of_replaced(self, session: str) -> bool:
        """Return True if a session was opened with a worker that another one had replaced."""
        return session in self._of_replaced

    def fence(self, session: str) -> int:
        """Return the fence of a session's worker, lower than that of one that replaces it; 0 if it is unknown."""
        return self._fences.get(session, 0)

    def _note_fence(self, session: str, fence: str) -> None:
        if int(fence) < max(self._fences.values(), default=0):
            self._of_replaced.add(session)
        self._fences[session] = int(fence)

    def at(self, index: int) -> float:
        """Return the time of an event."""
        return self._times[index]

    def answered(self) -> defaultdict[str, list[tuple[int, int]]]:
        """Return, by session, where each call that was answered was sent, and where its answer came."""
        answered: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for call in self.calls:
            if call.ok is not None and call.session:
                answered[call.session].append((call.index, call.ends))
        return answered

    def anew(self, handed: Handed, after: int, *, until: int | None = None) -> bool:
        """Return True if a message may have come anew since an event, as if it had never been delivered.

        Somebody subscribed from the past on (a group never begins anew), or put a dead letter back, `until` an
        event: by default that of the delivery.
        """
        message = handed.message
        until = handed.index if until is None else until
        for call in self.retries[handed.mailbox, message.seq]:
            if call.index < until and (call.ends if call.ok is not None else call.over) > after:
                return True
        if message.channel is None or message.group is not None:
            return False
        return self.timeline(handed.bot, message.channel).wanted_again(after, message.seq)

    def checkpoints(self) -> Iterator[tuple[Call, Checkpoint]]:
        """Give every call that wrote a run's state, with what it wrote."""
        for call in self.of(Checkpoint, Commit):
            action = call.invoke.action
            checkpoint = action.checkpoint if isinstance(action, Commit) else action
            if isinstance(checkpoint, Checkpoint):
                yield call, checkpoint

    def reads(self) -> Iterator[tuple[Call, ReadRun]]:
        """Give every call that read a run's state."""
        for call in self.of(ReadRun):
            assert isinstance(call.invoke.action, ReadRun)
            yield call, call.invoke.action
